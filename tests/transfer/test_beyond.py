import pytest
import torch

from vggfeat import invert, recipe, texture, write_picture
from vggfeat.errors import InputError, LayerError, RecipeError
from vggfeat.features.extractor import FeatureExtractor

QUICK = {"first_size": 64, "steps": 1}
SHALLOW = {"network": "vgg16", "style_layers": {"relu1_1": 1, "relu2_1": 1, "relu3_1": 1}}


@pytest.fixture(scope="module")
def style():
    """Smooth blobs of three colours, (1, 3, 96, 96)."""
    coarse = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(3))
    return torch.nn.functional.interpolate(coarse, (96, 96), mode="bicubic").clamp(0, 1)


def edge_against_inside(image, axis):
    """The mean difference between the first and the last line, over that between the lines where pooling cells meet."""
    difference = (image - image.roll(1, axis)).abs().mean((0, 1, 5 - axis))
    return float(difference[0] / difference[8::8].mean())


@pytest.mark.slow
def test_a_seamless_texture_meets_itself(style):
    small = recipe("texture", first_size=32, steps=10, margin=16)
    image = texture(style, small, size=(64, 64), seamless=True, precision="float32").result()
    bordered = texture(style, small, size=(64, 64), precision="float32").result()
    for axis in (2, 3):
        assert edge_against_inside(image, axis) < 1.5
    assert max(edge_against_inside(bordered, axis) for axis in (2, 3)) > 2.5


def test_a_seamless_texture_is_seen_the_same_from_everywhere(style):
    """Shifted by whole cells of the deepest layer, the picture has the same statistics and so the same loss."""
    run = texture(style, recipe("texture", **QUICK), size=(64, 48), seamless=True, precision="float32")
    evaluator, image = run.evaluators[-1], run.result()
    here, there = (evaluator.features(x)["relu4_1"] for x in (image, image.roll((16, 32), (2, 3))))
    shift = here.roll((2, 4), (2, 3))
    assert (shift - there).abs().max() < 0.15 * here.abs().max()
    assert (shift - there).abs().mean() < 0.01 * here.abs().mean()


def test_a_texture_has_the_size_that_was_asked_for(style):
    run = texture(style, recipe("texture", **QUICK), size=(70, 50))
    steps = list(run)
    assert run.image.shape == (1, 3, 50, 70)
    assert set(steps[-1].losses) == {"style", "total"}


def test_a_texture_keeps_the_pixels_of_its_style(style):
    """Strokes are as large as in the style, whatever the texture's size; a style that is much larger is shrunk."""
    scales = [texture(style, size=size).recipe.style_scale for size in ((96, 96), (192, 192), (24, 24))]
    assert scales == pytest.approx([1, 0.5, 2])


@pytest.mark.slow
def test_a_texture_takes_on_the_style(style):
    from vggfeat.losses.gram import GramLoss

    loss = GramLoss(["relu1_1", "relu2_1", "relu3_1"])
    extract = FeatureExtractor("vgg19", loss.layers)
    image = texture(style, recipe("texture", first_size=48, steps=15), size=(96, 96)).result()
    noise = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    target = loss.target(extract(style))
    assert loss(extract(image), target) < 0.05 * loss(extract(noise), target)


@pytest.mark.slow
def test_an_inversion_finds_the_picture_again(style):
    """A shallow layer knows nearly everything; a deep one less."""
    errors = [
        (invert(style, layer, recipe("invert", first_size=48, steps=25), precision="float32").result() - style)
        .square()
        .mean()
        .sqrt()
        for layer in ("relu1_2", "relu4_2")
    ]
    assert errors[0] < 0.03
    assert errors[0] < 0.5 * errors[1]


@pytest.mark.slow
def test_an_inversions_first_loss_is_near_one_at_every_layer(style):
    """The content term is levelled, so that the weight of the total variation means the same."""
    for layer in ("relu1_1", "relu3_1", "pool5"):
        run = invert(style, layer, recipe("invert", first_size=96, steps=1, margin=32))
        assert 0.01 < next(iter(run)).losses["content"] < 10


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda x: texture(x, size=(0, 5)), InputError, "width is 0: it must be a whole number of at least 1"),
        (lambda x: texture(x, size=(8, 64)), RecipeError, "too few for the recipe's layers"),
        (lambda x: texture(x, recipe("default", style_weight=0)), RecipeError, "a texture needs a style layer"),
        (lambda x: texture(x, recipe("gatys"), seamless=True), RecipeError, "edges wrap needs a margin"),
        (lambda x: invert(x, "relu4_9"), LayerError, "block 4 has"),
        (lambda x: invert(x, "relu4_2:0"), RecipeError, "an inversion needs a layer"),
        (lambda x: invert(x[0, 0], "relu4_2"), InputError, "pass one float RGB image"),
    ],
)
def test_refusals(make, error, message, style):
    with pytest.raises(error, match=message):
        make(style)


def test_a_seamless_texture_in_blocks_is_the_same(style, tmp_path):
    write_picture(tmp_path / "style.png", style)
    small = recipe("texture", **SHALLOW, first_size=128, steps=2)
    whole, blocks = (
        texture(tmp_path / "style.png", small, size=(128, 96), seamless=True, precision="float32", memory_limit=limit)
        for limit in (None, "50MB")
    )
    assert (whole.blocks, blocks.blocks[0] is not None) == ((None,), True)
    assert (whole.result() - blocks.result()).abs().mean() < 0.002
