import pytest
import torch
from torch.nn.functional import l1_loss, mse_loss

from vggfeat import LPIPS, FeatureExtractor, PerceptualLoss, RangeWarning, StyleLoss
from vggfeat.errors import InputError, WeightsError
from vggfeat.losses import formulas
from vggfeat.losses.perceptual import LOSS_RECIPES
from vggfeat.networks import weights


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, 2, 3, 32, 40, generator=generator)


@pytest.fixture(autouse=True)
def _offline(tmp_path, monkeypatch):
    def refuse(*_args, **_options):
        raise OSError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.setenv("VGGFEAT_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))


def taps(network, layers, images, **options):
    return FeatureExtractor(network, layers, **options)(images)


def test_content_loss_of_images(pair):
    x, y = (taps("vgg16", ["relu3_3"], images)["relu3_3"] for images in pair)
    torch.testing.assert_close(PerceptualLoss()(*pair), mse_loss(x, y))


def test_johnson(pair):
    layers = ["relu1_2", "relu2_2", "relu3_3", "relu4_3"]
    x, y = (taps("vgg16", layers, images) for images in pair)
    style = sum(mse_loss(*(formulas.gram(z[name], divide_by="chw") for z in (x, y))) for name in layers)
    tv = formulas.total_variation(pair[0]).mean()
    expected = mse_loss(x["relu3_3"], y["relu3_3"]) + 5 * style + 1e-6 * tv
    torch.testing.assert_close(PerceptualLoss.from_recipe("johnson")(*pair), expected)


def test_srgan(pair):
    x, y = (taps("vgg19", ["conv5_4"], images)["conv5_4"] / 12.75 for images in pair)
    torch.testing.assert_close(PerceptualLoss.from_recipe("srgan", weights="oxford")(*pair), mse_loss(x, y))


def test_esrgan(pair):
    x, y = (taps("vgg19", ["conv5_4"], images)["conv5_4"] for images in pair)
    expected = l1_loss(x, y) + 1e-2 * l1_loss(*pair)
    torch.testing.assert_close(PerceptualLoss.from_recipe("esrgan", weights="oxford")(*pair), expected)
    assert x.min() < 0  # before the activation


def test_realesrgan(pair):
    shares = {"conv1_2": 0.1, "conv2_2": 0.1, "conv3_4": 1, "conv4_4": 1, "conv5_4": 1}
    x, y = (taps("vgg19", list(shares), images) for images in pair)
    expected = sum(share * l1_loss(x[name], y[name]) for name, share in shares.items()) + l1_loss(*pair)
    torch.testing.assert_close(PerceptualLoss.from_recipe("realesrgan", weights="oxford")(*pair), expected)


def test_pix2pixhd(pair):
    shares = {"relu1_1": 1 / 32, "relu2_1": 1 / 16, "relu3_1": 1 / 8, "relu4_1": 1 / 4, "relu5_1": 1}
    x, y = (taps("vgg19", list(shares), images) for images in pair)
    expected = 10 * sum(share * l1_loss(x[name], y[name]) for name, share in shares.items())
    torch.testing.assert_close(PerceptualLoss.from_recipe("pix2pixhd", weights="oxford")(*pair), expected)


def test_vqgan(pair):
    expected = LPIPS("vgg")(*pair) + l1_loss(*pair)
    torch.testing.assert_close(PerceptualLoss.from_recipe("vqgan")(*pair), expected)


def test_adversarial_weights_are_stated():
    stated = {name: recipe.adversarial for name, recipe in LOSS_RECIPES.items()}
    assert (stated["esrgan"], stated["realesrgan"]) == (5e-3, 0.1)


@pytest.mark.parametrize("name", ["srgan", "esrgan", "realesrgan", "pix2pixhd"])
def test_published_weights_that_are_not_at_hand_are_never_swapped(name):
    with pytest.raises(WeightsError) as caught:
        PerceptualLoss.from_recipe(name)
    message = str(caught.value)
    assert f"the recipe '{name}' was published with vgg19 imagenet1k_v1" in message
    assert "the bundled weights='oxford' of vgg19 give other values" in message


def test_unknown_recipe():
    with pytest.raises(InputError, match="unknown recipe 'esrgn': did you mean esrgan"):
        PerceptualLoss.from_recipe("esrgn")
    with pytest.raises(InputError, match="LPIPS is defined on vgg16, not on vgg19"):
        PerceptualLoss(network="vgg19", lpips=1.0)


def test_options_replace_a_recipes(pair):
    lighter = PerceptualLoss.from_recipe("vqgan", pixel=0.5)
    torch.testing.assert_close(lighter(*pair), LPIPS("vgg")(*pair) + 0.5 * l1_loss(*pair))


def test_layers_by_glob_index_or_alone(pair):
    expected = PerceptualLoss({"relu1_1": 1, "relu2_1": 1})(*pair)
    assert torch.equal(PerceptualLoss("relu[12]_1")(*pair), expected)
    assert torch.equal(PerceptualLoss(["1", "features.6"])(*pair), expected)
    with pytest.raises(InputError, match="needs a content layer, a style layer or lpips"):
        PerceptualLoss((), pixel=1.0)


def test_one_layer_by_two_names_is_refused():
    """One of the two weights was dropped without a word."""
    with pytest.raises(InputError, match="'relu3_3' and '15' both give relu3_3 a weight: name each layer once"):
        PerceptualLoss({"relu3_3": 1.0, "15": 2.0}, weights=None)
    assert StyleLoss(["relu1_*", "relu1_1"], weights=None).loss.weights == {"relu1_1": 1.0, "relu1_2": 1.0}


@pytest.mark.parametrize("make", [PerceptualLoss, lambda: LPIPS("alex"), StyleLoss])
def test_numpy_arrays_are_refused_with_the_line_to_write(make, pair):
    criterion = make()
    arrays = [x.numpy() for x in pair]
    for images in ((arrays[0], pair[1]), (pair[0], arrays[1]), arrays):
        with pytest.raises(InputError, match=r"of type numpy\.ndarray, not a torch\.Tensor .*: pass torch\.from_numpy"):
            criterion(*images)


def test_a_criterion_knows_its_device():
    """It has no parameters whose device could be asked."""
    assert PerceptualLoss(["relu1_1"]).device == torch.device("cpu")
    assert LPIPS("alex", device="meta").device.type == "meta"
    assert StyleLoss(["relu1_1"]).to("meta").device.type == "meta"


def test_the_sum_of_a_batch(pair):
    options = {"style": ["relu1_2"], "pixel": 1.0}
    values, total = (PerceptualLoss(reduction=name, **options)(*pair) for name in ("none", "sum"))
    torch.testing.assert_close(total, values.sum())


def test_one_value_a_pair(pair):
    options = {"style": ["relu1_2"], "pixel": 1.0, "lpips": 1.0, "tv": 0.1}
    values = PerceptualLoss(reduction="none", **options)(*pair)
    assert values.shape == (2,)
    torch.testing.assert_close(values.mean(), PerceptualLoss(**options)(*pair))
    assert StyleLoss(reduction="none")(*pair).shape == (2,)


def test_a_kept_target_of_another_size_is_refused(pair):
    criterion = PerceptualLoss(["relu4_3"])
    target = criterion.target(pair[1][..., :8, :8])
    with pytest.raises(InputError, match=r"relu4_3 of .* the shapes must match"):
        criterion(pair[0], target)


def test_terms_share_one_pass_and_add_up(pair, monkeypatch):
    criterion = PerceptualLoss(["relu2_2"], ["relu1_2"], pixel=0.5, tv=0.1, lpips=1.0)
    passes = []
    run = FeatureExtractor.run
    monkeypatch.setattr(FeatureExtractor, "run", lambda self, x: passes.append(len(x)) or run(self, x))
    total, terms = criterion.terms(*pair)
    assert passes == [2, 2]
    assert list(terms) == ["content", "style", "lpips", "pixel", "tv"]
    torch.testing.assert_close(total, sum(terms.values()))
    torch.testing.assert_close(total, criterion(*pair))


def test_a_target_is_computed_once_without_a_graph(pair, monkeypatch):
    criterion = PerceptualLoss(["relu2_2"], ["relu1_2"])
    prediction, images = pair[0].clone().requires_grad_(), pair[1].clone().requires_grad_()
    expected = criterion(prediction, images.detach())
    target = criterion.target(images)
    passes = []
    run = FeatureExtractor.run
    monkeypatch.setattr(FeatureExtractor, "run", lambda self, x: passes.append(torch.is_grad_enabled()) or run(self, x))
    assert torch.equal(criterion(prediction, target), expected)
    assert passes == [True]
    expected.backward()
    assert images.grad is None
    assert prediction.grad.abs().sum() > 0


@pytest.mark.parametrize("generated", [(0, 1), (1,)])
def test_a_target_whose_gradient_would_be_lost_is_refused(generated, pair):
    """VQGAN passes (inputs, reconstructions): the generator would learn nothing (SRFlow issue 3)."""
    images = [x.clone().requires_grad_(index in generated) for index, x in enumerate(pair)]
    for criterion in (PerceptualLoss(["relu1_1"]), LPIPS("alex", check="off"), StyleLoss(["relu1_1"])):
        with pytest.raises(InputError, match=r"no gradient reaches it: .* criterion\(generated, real\).* both=True"):
            criterion(*images)
        with torch.no_grad():
            assert criterion(*images).isfinite()
        assert criterion(images[0], images[1].detach()).isfinite()


def test_both_sides_get_a_gradient_when_asked(pair):
    prediction, images = pair[0].clone().requires_grad_(), pair[1].clone().requires_grad_()
    PerceptualLoss(["relu2_2"], lpips=1.0, both=True)(prediction, images).backward()
    assert prediction.grad.abs().sum() > 0
    assert images.grad.abs().sum() > 0


def test_style_loss_of_images_of_two_sizes(pair):
    one = torch.rand(1, 3, 20, 24)
    criterion = StyleLoss({"relu1_2": 2.0}, divide_by="chw")
    x, y = (formulas.gram(taps("vgg16", ["relu1_2"], z)["relu1_2"], divide_by="chw") for z in (pair[0], one))
    torch.testing.assert_close(criterion(pair[0], one), 2 * mse_loss(x, y.expand_as(x)))


@pytest.mark.parametrize(
    ("prediction", "target", "message"),
    [
        ((2, 3, 32, 32), (2, 3, 32, 40), "prediction is 2x3x32x32 and the target 2x3x32x40"),
        ((2, 3, 32, 32), (3, 3, 32, 32), "they must have the same shape"),
        ((3, 32, 32), (3, 32, 32), "a single image is"),
        ((2, 1, 32, 32), (2, 1, 32, 32), "1 channels, not 3"),
    ],
)
def test_batches_that_do_not_fit(prediction, target, message):
    with pytest.raises(InputError, match=message):
        PerceptualLoss(weights=None)(torch.rand(prediction), torch.rand(target))


def test_another_range_is_caught_once(pair, recwarn):
    criterion = PerceptualLoss(weights=None)
    criterion(pair[0] * 1.0001, pair[1])
    assert not recwarn
    with pytest.warns(RangeWarning, match="is it input_range='signed'"):
        criterion(pair[0] * 2 - 1, pair[1] * 2 - 1)
    criterion(pair[0] * 2 - 1, pair[1] * 2 - 1)  # warnings are errors here
    with pytest.raises(InputError, match="is it input_range='byte'"):
        PerceptualLoss(weights=None, check="raise")(pair[0] * 255, pair[1])
    PerceptualLoss(weights=None, check="off")(pair[0] * 255, pair[1])


@pytest.mark.parametrize("input_range", ["signed", "byte"])
def test_unit_images_in_a_wider_range_are_caught(input_range, pair):
    """Whole trainings ran with this mistake: it changes LPIPS by half a percent."""
    with pytest.warns(RangeWarning, match=f"which looks like input_range='unit', not '{input_range}'"):
        PerceptualLoss(weights=None, input_range=input_range)(*pair)


def test_stays_out_of_a_models_way(pair):
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.own = torch.nn.Conv2d(3, 3, 1)
            self.criterion = PerceptualLoss(["relu1_2"], ["relu1_1"], lpips=1.0)

    model = Model().train()
    assert set(model.state_dict()) == {"own.weight", "own.bias"}
    assert {name for name, _ in model.named_parameters()} == {"own.weight", "own.bias"}
    assert not any(module.training for module in model.criterion.modules() if hasattr(module, "trunk"))
    before = torch.get_rng_state()
    first = model.criterion(model.own(pair[0]).sigmoid(), pair[1])
    assert torch.equal(first, model.criterion(model.own(pair[0]).sigmoid(), pair[1]))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.slow
def test_compiles_exports_and_keeps_its_precision(pair):
    criterion = PerceptualLoss(["relu2_2"], ["relu1_2"], pixel=1.0, lpips=1.0, tv=0.1)
    plain = criterion(*pair)
    torch.testing.assert_close(torch.compile(criterion, fullgraph=True, backend="aot_eager")(*pair), plain)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(criterion(*pair), plain)
    program = torch.export.export(criterion, (pair[0], pair[1]))
    torch.testing.assert_close(program.module()(*pair), plain)


def test_half_precision_images_and_channels_last(pair):
    criterion = PerceptualLoss(["relu2_2"], ["relu1_2"], lpips=1.0)
    plain = criterion(*pair)
    assert torch.equal(criterion(*(x.contiguous(memory_format=torch.channels_last) for x in pair)), plain)
    assert criterion(*(x.half() for x in pair)).item() == pytest.approx(plain.item(), rel=1e-2)


def test_weights_of_ones_own(pair, tmp_path):
    state, _ = weights.load("vgg11", None, seed=4)
    torch.save(state, tmp_path / "own.pth")
    criterion = PerceptualLoss(["relu2_1"], network="vgg11", weights=tmp_path / "own.pth")
    assert criterion(*pair).isfinite()
