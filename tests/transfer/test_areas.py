"""The part of a style that counts: its opaque part, and the white of a mask of the style."""

import pytest
import torch
from PIL import Image

from vggfeat.errors import InputError
from vggfeat.pictures import images
from vggfeat.transfer.beyond import texture
from vggfeat.transfer.blocks import Blockwise, Whole
from vggfeat.transfer.evaluator import extractor
from vggfeat.transfer.inputs import Inputs, Style
from vggfeat.transfer.named import recipe
from vggfeat.transfer.objective import OBJECTIVES, style_losses
from vggfeat.transfer.run import stylize
from vggfeat.transfer.tiles import Blocks

SMALL = {
    "network": "vgg16",
    "content_layers": {"relu2_1": 1},
    "style_layers": {"relu1_1": 1, "relu2_1": 1},
    "first_size": 48,
    "steps": 3,
}
GENERATOR = torch.Generator().manual_seed(0)
CONTENT, STYLE = (torch.rand(1, 3, 48, side, generator=GENERATOR) for side in (48, 64))
LEFT = torch.zeros(1, 1, 48, 64)
LEFT[..., :32] = 1


def style_of_half(tmp_path):
    """A file whose right half is transparent."""
    images.write_picture(tmp_path / "half.png", STYLE, alpha=LEFT, bits=16)
    return tmp_path / "half.png"


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("blocks", [None, Blocks(32)], ids=["whole", "blocks"])
def test_a_target_is_that_of_the_positions_inside(objective, blocks):
    """A picture beside itself, of which one half counts, has the target of one of them, away from the seam."""
    chosen = recipe("default", **SMALL | {"style_layers": {"relu1_1": 1}}, objective=objective)
    extract = extractor(chosen, ["relu1_1"], torch.device("cpu"))
    method = Whole(extract, 0) if blocks is None else Blockwise(extract, 0, blocks)
    losses = style_losses(chosen)
    features = extract(STYLE)["relu1_1"]
    expected = [each.loss.target({"relu1_1": features[..., :32]})["relu1_1"] for each in losses]
    found = method.targets(STYLE, losses, {"relu1_1": LEFT})
    for target, wanted in zip(found, expected, strict=True):
        # The order of positions does not matter to any of these losses.
        assert each_close(target["relu1_1"], wanted)
    assert not all(
        each_close(target["relu1_1"], wanted)
        for target, wanted in zip(method.targets(STYLE, losses), expected, strict=True)
    )


def each_close(a, b):
    a, b = a.flatten().sort().values, b.flatten().sort().values
    return a.shape == b.shape and torch.allclose(a, b, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("color", ["style", "linear", "histogram", "luminance"])
@pytest.mark.parametrize("objective", ["gram", "swd"])
def test_what_is_transparent_does_not_matter(objective, color, tmp_path):
    chosen = recipe("default", **SMALL, objective=objective, color=color)
    path = style_of_half(tmp_path)
    painted = [stylize(CONTENT, path, chosen, size=48).result()]
    masked = stylize(CONTENT, STYLE, chosen, size=48, style_masks=[LEFT]).result()
    other = torch.cat([STYLE[..., :32], 1 - STYLE[..., 32:]], 3)
    images.write_picture(path, other, alpha=LEFT, bits=16)
    painted.append(stylize(CONTENT, path, chosen, size=48).result())
    # The last columns of the receptive fields see the mean colour, whatever is hidden.
    assert (painted[0] - painted[1]).abs().max() < 1e-3
    assert (painted[0] - masked).abs().mean() < 0.01
    whole = stylize(CONTENT, STYLE, chosen, size=48).result()
    assert (whole - masked).abs().mean() > 2 * (painted[0] - masked).abs().mean()


def test_a_style_is_as_strong_however_much_of_it_is_transparent():
    chosen = recipe("default", **SMALL)
    flat = torch.full((1, 3, 48, 48), 0.5)
    pattern = torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(1))
    framed = torch.full((1, 3, 48, 144), 0.5)
    framed[..., 48:96] = pattern
    area = torch.zeros(1, 1, 48, 144)
    area[..., 48:96] = 1
    wide = recipe("default", **SMALL, style_scale=3**0.5)  # of the area of the frame, too
    change = [
        (stylize(flat, style, how, size=48, **more).result() - flat).abs().mean()
        for style, how, more in (
            (pattern, chosen, {}),
            (framed, wide, {"style_masks": [area]}),
            (framed, wide, {}),
        )
    ]
    assert change[1] == pytest.approx(float(change[0]), rel=0.1)
    assert change[2] < 0.8 * change[0]


def test_a_texture_is_of_the_opaque_part(tmp_path):
    chosen = recipe("texture", network="vgg16", style_layers={"relu1_1": 1}, first_size=32, steps=6)
    Image.new("RGBA", (32, 64), (255, 0, 0, 255)).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as red:
        red.paste((0, 255, 0, 0), (0, 0, 32, 32))
        red.save(tmp_path / "a.png")
    mean = texture(tmp_path / "a.png", chosen, size=(32, 32)).result().mean((0, 2, 3))
    opaque = texture(Image.new("RGB", (32, 32), "red"), chosen, size=(32, 32)).result().mean((0, 2, 3))
    assert (mean - opaque).abs().max() < 0.1


@pytest.mark.parametrize(
    ("style", "options", "message"),
    [
        (Image.new("RGBA", (8, 8)), {}, "no part of the style 'a picture' counts: it is transparent"),
        (STYLE, {"style_masks": [torch.zeros(1, 1, 4, 4)]}, "counts: its mask is black"),
        (STYLE, {"style_masks": []}, "0 style masks for 1 styles"),
        (STYLE, {"masks": [torch.zeros(1, 1, 4, 4)]}, "no style applies anywhere, since its mask is black"),
        ([STYLE, STYLE], {"masks": [torch.zeros(1, 1, 4, 4), None], "weights": [1, 0]}, "no style applies anywhere"),
        (STYLE, {"keep": torch.ones(1, 1, 4, 4)}, "the whole content is kept"),
    ],
)
def test_masks_that_leave_nothing_are_refused(style, options, message):
    with pytest.raises(InputError, match=message):
        Inputs.read(CONTENT, style, **options)
    some = Inputs.read(CONTENT, [STYLE, STYLE], masks=[torch.zeros(1, 1, 4, 4), None])
    assert len(some.styles) == 2


def test_the_area_changes_the_fingerprint():
    plain, masked = (Inputs(CONTENT, (Style(STYLE, area=area),)) for area in (None, LEFT))
    assert plain.fingerprint() != masked.fingerprint()


GREY = torch.rand(1, 1, 48, 48, generator=GENERATOR).expand(-1, 3, -1, -1)


def chroma(picture):
    return float((picture.amax(1) - picture.amin(1)).max())


@pytest.mark.parametrize("color", ["style", "content", "luminance", "linear", "histogram"])
@pytest.mark.parametrize("options", [{}, {"optimiser": "adam"}, {"start": "noise"}, {"objective": "swd"}])
def test_grey_stays_grey(color, options):
    chosen = recipe("default", **SMALL | options, color=color)
    run = stylize(GREY, torch.nn.functional.avg_pool2d(GREY, 4), chosen, size=48)
    assert all(chroma(progress.image) <= 1e-6 for progress in run)
    assert (run.image - GREY).abs().mean() > 1e-3


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_texture_of_a_grey_picture_is_grey(objective):
    chosen = recipe(
        "texture", network="vgg16", style_layers={"relu1_1": 1}, first_size=32, steps=3, objective=objective
    )
    run = texture(GREY, chosen, size=(32, 32))
    losses = [progress.losses["total"] for progress in run]
    assert chroma(run.image) == 0
    assert losses[-1] < losses[0]
    assert chroma(texture(STYLE, chosen, size=(32, 32)).result()) > 0.1


def test_a_grey_photograph_takes_the_colours_of_a_style():
    chosen = recipe("default", **SMALL)
    assert chroma(stylize(GREY, STYLE, chosen, size=48).result()) > 0.02
    nearly = (GREY + torch.rand(GREY.shape, generator=torch.Generator().manual_seed(2)) / 255).clamp(0, 1)
    assert chroma(stylize(nearly, GREY, chosen, size=48).result()) == 0
