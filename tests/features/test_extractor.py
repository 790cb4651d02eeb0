import copy
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from peers import torchvision_features
from torch import nn

from vggfeat import FeatureExtractor, PerceptualLoss, RangeWarning
from vggfeat.errors import InputError
from vggfeat.features import algorithms, winograd
from vggfeat.features.device import resolve_precision
from vggfeat.networks import arch, weights

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)


def build(network: str) -> nn.Module:
    """The network of torchvision with random weights and, where it has them, random batch statistics."""
    torch.manual_seed(0)
    model = nn.ModuleDict({"features": torchvision_features(network)})
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.weight, mean=1.0, std=0.1)
        if isinstance(module, nn.ReLU):
            module.inplace = False
    return model


def torchvision_activations(model: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    found = []
    with torch.no_grad():
        for module in model["features"]:
            x = module(x)
            found.append(x)
    return found


@pytest.mark.parametrize(
    "network", ["vgg11", "vgg13", "vgg16", "vgg19", "vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn", "alexnet"]
)
def test_every_activation_is_torchvisions(network):
    images = torch.rand(2, 3, 64, 80)
    model = build(network)
    extract = FeatureExtractor(network, "*", weights=model.state_dict())
    features = extract(images)
    theirs = torchvision_activations(model, (images - MEAN) / STD)
    assert list(features) == [layer.name for layer in arch.layers(network)]
    for ours, their in zip(features.values(), theirs, strict=True):
        torch.testing.assert_close(ours, their, rtol=1e-4, atol=1e-4)


def test_conv_activations_keep_their_negative_values(images):
    features = FeatureExtractor("vgg16", ["conv3_3", "relu3_3"])(images)
    assert features["conv3_3"].min() < 0
    torch.testing.assert_close(features["conv3_3"].relu(), features["relu3_3"], rtol=0, atol=0)


def test_what_is_returned_does_not_depend_on_what_else_is(images):
    alone = FeatureExtractor("vgg16", "conv2_2")(images)
    among = FeatureExtractor("vgg16", "*")(images)
    assert torch.equal(alone["conv2_2"], among["conv2_2"])


@pytest.mark.parametrize(
    ("layers", "value"),
    [(["relu1_2"], 43.9598), (["relu1_2", "relu2_2"], 214.3362)],
)
def test_published_content_loss(layers, value):
    """See piq issue 258: all ones against all zeros, squared differences summed over channels, averaged over space."""
    extract = FeatureExtractor("vgg16", layers)
    one, zero = extract(torch.ones(1, 3, 256, 256)), extract(torch.zeros(1, 3, 256, 256))
    assert sum((one[k] - zero[k]).square().sum(1).mean() for k in layers).item() == pytest.approx(value, rel=3e-6)


def test_stops_at_the_deepest_layer():
    extract = FeatureExtractor("vgg16", ["relu1_2", "relu2_2"])
    assert not any(name.startswith("conv3") for name, _ in extract.named_buffers())
    assert list(extract(torch.rand(1, 3, 2, 2))) == ["relu1_2", "relu2_2"]


@pytest.mark.parametrize(("input_range", "change"), [("signed", lambda x: x * 2 - 1), ("byte", lambda x: x * 255)])
def test_input_ranges_agree(input_range, change, images):
    unit = FeatureExtractor("vgg16", "relu2_1")(images)
    other = FeatureExtractor("vgg16", "relu2_1", input_range=input_range)(change(images))
    torch.testing.assert_close(unit, other, rtol=1e-4, atol=1e-4)


def test_oxford_weights_read_bytes_minus_the_mean_colour(images):
    """As stored: BGR, 0-255, minus 103.939 116.779 123.68."""
    extract = FeatureExtractor("vgg19", "conv1_1", weights="oxford")
    state, _ = weights.load("vgg19", "oxford")
    bgr = images[:, [2, 1, 0]] * 255 - torch.tensor([103.939, 116.779, 123.68]).view(1, 3, 1, 1)
    theirs = nn.functional.conv2d(bgr, state["features.0.weight"][:, [2, 1, 0]], state["features.0.bias"], padding=1)
    torch.testing.assert_close(extract(images)["conv1_1"], theirs, rtol=1e-4, atol=1e-3)


def test_frozen_silent_and_out_of_the_way(images):
    class Parent(nn.Module):
        def __init__(self):
            super().__init__()
            self.own = nn.Linear(2, 2)
            self.eye = FeatureExtractor("vgg11_bn", "relu1_1", weights=None)

    parent = Parent().train()
    parent.requires_grad_(requires_grad=True)
    assert set(parent.state_dict()) == {"own.weight", "own.bias"}
    assert [name for name, _ in parent.named_parameters()] == ["own.weight", "own.bias"]
    assert not parent.eye.training
    before = {name: buffer.clone() for name, buffer in parent.eye.named_buffers()}
    parent.eye(images)
    assert all(torch.equal(before[name], buffer) for name, buffer in parent.eye.named_buffers())
    parent.load_state_dict(Parent().state_dict(), strict=True)


def test_gradients_flow_to_the_images_alone():
    extract = FeatureExtractor("6,M,8,M+bn", ["conv1_1", "relu1_1", "pool2"], weights=None).double()
    x = torch.rand(1, 3, 6, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda image: tuple(extract(image).values()), x)


@pytest.mark.parametrize("pooling", ["avg", "l2"])
def test_gradients_through_other_pooling(pooling):
    extract = FeatureExtractor("6,M,8,M", ["pool2"], weights=None, pooling=pooling).double()
    x = torch.rand(1, 3, 6, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda image: extract(image)["pool2"], x)


def test_pooling(images):
    taps = ["relu1_2", "pool1"]
    relu, pool = FeatureExtractor("vgg16", taps, pooling="avg")(images).values()
    torch.testing.assert_close(pool, nn.functional.avg_pool2d(relu, 2))
    relu, pool = FeatureExtractor("vgg16", taps, pooling="l2")(images[..., :45, :]).values()
    window = torch.hann_window(4, dtype=torch.float64)[1:]
    window = torch.outer(window, window) / window.sum() ** 2
    padded = nn.functional.pad(relu.double(), (1, 1, 1, 1)).square()
    theirs = (padded.unfold(2, 3, 2).unfold(3, 3, 2) * window).sum((-1, -2)).add(1e-12).sqrt()
    torch.testing.assert_close(pool, theirs.float())


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros((32, 32, 3)), r"images are of type ndarray, not a tensor \(N, 3, H, W\); of an array"),
        (torch.rand(3, 32, 32), r"3x32x32, not \(N, 3, H, W\): a single image is images\[None\]"),
        (torch.rand(32, 32), r"32x32, not \(N, 3, H, W\)"),
        (torch.rand(1, 1, 32, 32), "1 channels, not 3: a grey image is images.expand"),
        (torch.rand(1, 4, 32, 32), "4 channels, not 3: alpha is not used"),
        (torch.rand(1, 3, 3, 32), "3x32 pixels are too small for relu3_3 of vgg16: it needs at least 4 a side"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), r"images are torch.uint8: pass floating point in \[0, 1\]"),
        (torch.rand(1, 3, 32, 32) * 255, r"outside \[0, 1\] of input_range='unit': is it input_range='byte'\?"),
        (torch.rand(1, 3, 32, 32) * 2 - 1, "is it input_range='signed'"),
        (torch.full((1, 3, 32, 32), float("inf")), "reach from inf to inf"),
        (torch.full((1, 3, 32, 32), float("nan")), "images hold NaN"),
    ],
)
def test_bad_images_each_have_their_own_error(bad, message):
    with pytest.raises(InputError, match=message):
        FeatureExtractor("vgg16", "relu3_3", weights=None)(bad)


def test_bright_signed_images_are_suspicious_but_not_refused():
    extract = FeatureExtractor("vgg11", "relu1_1", weights=None, input_range="signed")
    bright = torch.rand(1, 3, 8, 8) * 0.5 + 0.5
    with pytest.warns(RangeWarning, match="which looks like input_range='unit', not 'signed'"):
        extract(bright)
    extract(bright)  # said once; warnings are errors here


@pytest.mark.parametrize(
    ("make", "call"),
    [
        (partial(FeatureExtractor, "vgg11", "relu1_1"), lambda extract, x: extract(x)),
        (partial(FeatureExtractor, "vgg11", "relu1_1"), lambda extract, x: extract.forward(x)),
        (partial(FeatureExtractor, "vgg11", "relu1_1"), lambda extract, x: nn.Sequential(nn.Sequential(extract))(x)),
        (PerceptualLoss, lambda criterion, x: criterion(x, x)),
        (PerceptualLoss, lambda criterion, x: criterion.target(x)),
    ],
)
def test_a_warning_points_at_the_users_own_line(make, call):
    bright = torch.full((1, 3, 16, 16), 9.0)
    frozen = make(weights=None, check="warn")
    with pytest.warns(RangeWarning) as caught:
        call(frozen, bright)
    assert [(warning.filename, warning.lineno) for warning in caught] == [(__file__, call.__code__.co_firstlineno)]


def test_range_check_has_a_tolerance_and_a_switch():
    extract = FeatureExtractor("vgg11", "relu1_1", weights=None)
    extract(torch.full((1, 3, 8, 8), 1.0001))
    extract(torch.full((1, 3, 8, 8), -0.2))
    with pytest.raises(InputError, match=r"reach from 1\.3 to 1\.3"):
        extract(torch.full((1, 3, 8, 8), 1.3))
    off = FeatureExtractor("vgg11", "relu1_1", weights=None, check="off")
    assert torch.isfinite(off(torch.full((1, 3, 8, 8), 255.0))["relu1_1"]).all()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"input_range": "sined"}, "unknown input_range 'sined': did you mean signed"),
        ({"precision": "float31"}, "unknown precision 'float31': did you mean float"),
        ({"pooling": "maximum"}, "unknown pooling 'maximum'"),
        ({"check": "never"}, "unknown check 'never'"),
        ({"device": "gpu"}, "unknown device 'gpu': pass auto, cpu, cuda, cuda:1 or mps"),
    ],
)
def test_unknown_options(option, message):
    with pytest.raises(InputError, match=message):
        FeatureExtractor("vgg11", "relu1_1", weights=None, **option)


def test_compiles_and_exports_without_a_break(images):
    extract = FeatureExtractor("vgg16", ["conv1_2", "relu2_1"])
    plain = extract(images)
    compiled = torch.compile(extract, fullgraph=True, backend="aot_eager")(images)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.export's own deprecations
        batch = torch.export.Dim("batch", min=1, max=8)
        program = torch.export.export(extract, (images,), dynamic_shapes={"images": {0: batch}})
        exported = program.module()(images[:1])
    for name in plain:
        torch.testing.assert_close(compiled[name], plain[name])
        torch.testing.assert_close(exported[name], plain[name][:1])


def test_positions():
    extract = FeatureExtractor("vgg16", "relu2_1", weights=None, positions=16)
    assert extract(torch.rand(1, 3, 32, 40))["relu2_1"].shape == (1, 128, 16, 20)
    with pytest.raises(InputError, match="31x40 pixels are too small for relu2_1 of vgg16: it needs at least 32 a"):
        extract(torch.rand(1, 3, 31, 40))
    with pytest.raises(InputError, match="positions is 0: it must be a whole number of at least 1"):
        FeatureExtractor("vgg16", "relu2_1", weights=None, positions=0)


@pytest.mark.slow
def test_one_graph_serves_every_size(images):
    extract = FeatureExtractor("vgg16", ["conv1_2", "relu2_1"], weights=None)
    for dynamic in (None, True):
        torch.compiler.reset()
        compiled = torch.compile(extract, fullgraph=True, backend="aot_eager", dynamic=dynamic)
        for batch in (images, images[..., :40], images[:1], torch.rand(5, 3, 20, 24)):
            torch.testing.assert_close(compiled(batch)["relu2_1"], extract(batch)["relu2_1"])


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_can_be_built_and_used_in_every_mode(mode, images):
    with mode():
        extract = FeatureExtractor("vgg16", "relu1_2")
        inside = extract(images)["relu1_2"]
    x = images.clone().requires_grad_()
    outside = extract(x)["relu1_2"]
    outside.sum().backward()
    assert torch.equal(inside, outside)
    assert x.grad.abs().sum() > 0


def test_can_be_saved_and_vmapped(images, tmp_path):
    extract = FeatureExtractor("vgg16", "relu1_2")
    torch.save(extract, tmp_path / "whole.pt")
    again = torch.load(tmp_path / "whole.pt", weights_only=False)
    assert torch.equal(again(images)["relu1_2"], extract(images)["relu1_2"])
    plain = FeatureExtractor("vgg16", "relu1_2", channels_last=False)
    mapped = torch.func.vmap(lambda image: plain(image[None])["relu1_2"][0])(images)
    torch.testing.assert_close(mapped, plain(images)["relu1_2"])


def test_autocast_does_not_change_the_precision(images):
    extract = FeatureExtractor("vgg16", "relu2_1")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = extract(images)["relu2_1"]
    assert inside.dtype == torch.float32
    assert torch.equal(inside, extract(images)["relu2_1"])


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_is_close(precision, images):
    exact = FeatureExtractor("vgg16", "relu3_3")(images)["relu3_3"]
    half = FeatureExtractor("vgg16", "relu3_3", precision=precision)(images)["relu3_3"]
    assert half.dtype == getattr(torch, precision)
    assert torch.cosine_similarity(exact.flatten(), half.float().flatten(), dim=0) > 0.9995


def test_a_parents_half_keeps_the_mean_colour_exact():
    extract = FeatureExtractor("vgg16", "relu1_1").half()
    assert extract.offset.dtype == torch.float32
    assert extract.offset.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406], abs=1e-7)
    assert extract(torch.rand(1, 3, 8, 8))["relu1_1"].dtype == torch.float16


def test_copies_and_moves(images):
    extract = FeatureExtractor("vgg16", "relu1_2")
    twin = copy.deepcopy(extract)
    assert torch.equal(twin(images)["relu1_2"], extract(images)["relu1_2"])
    moved = twin.to("meta")(images.to("meta"))["relu1_2"]
    assert moved.device.type == "meta"
    assert moved.shape == (2, 64, 48, 64)


def test_no_device_is_assumed():
    """On the meta device any tensor that was left on the CPU is an error."""
    for pooling in ("max", "avg", "l2"):
        extract = FeatureExtractor("vgg16_bn", "*", weights=None, pooling=pooling, device="meta")
        features = extract(torch.empty(2, 3, 32, 40, device="meta", requires_grad=True))
        sum(x.float().mean() for x in features.values()).backward()
        assert {x.device.type for x in features.values()} == {"meta"}


def test_device(device, images):
    extract = FeatureExtractor("vgg16", "relu3_3", device=device)
    there = extract(images.to(device))["relu3_3"]
    assert there.device.type == device
    torch.testing.assert_close(
        there.cpu(), FeatureExtractor("vgg16", "relu3_3")(images)["relu3_3"], rtol=1e-2, atol=1e-2
    )


def test_auto_precision_asks_the_processor(monkeypatch):
    cpu = torch.device("cpu")
    for faster, dtype in ((False, torch.float32), (True, torch.bfloat16)):
        monkeypatch.setattr(algorithms, "bfloat16_is_faster", lambda faster=faster: faster)
        assert resolve_precision("auto", cpu) == dtype
    assert resolve_precision("auto", torch.device("meta")) == torch.float32
    assert resolve_precision("float16", cpu) == torch.float16


def test_channels_last_images_and_any_batch(images):
    extract = FeatureExtractor("vgg16", "relu2_2")
    one = extract(images)["relu2_2"]
    assert torch.equal(one, extract(images.contiguous(memory_format=torch.channels_last))["relu2_2"])
    torch.testing.assert_close(one[1:], extract(images[1:])["relu2_2"], rtol=1e-4, atol=1e-4)
    assert extract(images[:0])["relu2_2"].shape == (0, 128, 24, 32)


@pytest.fixture
def run_at_once(monkeypatch):
    """How many pictures each pass through the network had."""
    seen, run_steps = [], FeatureExtractor.run_steps
    monkeypatch.setattr(
        FeatureExtractor, "run_steps", lambda self, steps, x: (seen.append(len(x)), run_steps(self, steps, x))[1]
    )
    return seen


@pytest.mark.parametrize(
    ("precision", "side", "expected"),
    [
        ("float32", 224, [1, 1, 1, 1, 1]),
        pytest.param("bfloat16", 224, [2, 2, 1], marks=pytest.mark.slow),  # where a processor emulates bfloat16
        ("float32", 128, [3, 2]),
        ("float32", 32, [5]),
    ],
)
def test_a_batch_is_computed_in_pieces_that_stay_small(precision, side, expected, run_at_once):
    """On a CPU, where no gradient is asked for: what is returned is the same, in the same layout."""
    extract = FeatureExtractor("vgg16", ["relu1_2", "relu2_2"], precision=precision, device="cpu")
    batch = torch.rand(5, 3, side, side)
    winograd.transforms.cache_clear()
    with torch.device("meta"):  # another default device
        found = extract(batch)
    assert run_at_once == expected
    run_at_once.clear()
    graph = extract(batch.clone().requires_grad_())
    assert run_at_once == [5]
    for layer, features in graph.items():
        tolerance = {"rtol": 1e-5, "atol": 1e-5} if precision == "float32" else {"rtol": 0.02, "atol": 0.02}
        torch.testing.assert_close(found[layer], features.detach(), **tolerance)
        assert found[layer].stride() == features.stride()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_pieces_where_gradients_are_switched_off(mode, run_at_once):
    batch = torch.rand(3, 3, 224, 224).requires_grad_()
    with mode():
        found = FeatureExtractor("vgg16", "relu1_2")(batch)["relu1_2"]
    assert run_at_once == [1, 1, 1]
    assert not found.requires_grad


def test_bit_for_bit_a_batch_stays_whole(run_at_once):
    extract = FeatureExtractor("vgg16", "relu1_1", channels_last=False)
    extract(torch.rand(3, 3, 224, 224))  # larger than the pieces of the tests above
    assert run_at_once == [3]


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize(
    ("layer", "precision"), [pytest.param("relu1_2", "bfloat16", marks=pytest.mark.slow), ("relu3_1", "float32")]
)
def test_a_trace_serves_every_batch(layer, precision):
    extract = FeatureExtractor("vgg16", layer, precision=precision, check="off")
    traced = torch.jit.trace(extract, torch.rand(3, 3, 256, 256), strict=False, check_trace=False)
    images = torch.rand(5, 3, 224, 192)
    torch.testing.assert_close(traced(images)[layer], extract(images)[layer], rtol=1e-3, atol=1e-4)


def test_weights_that_read_bgr(images):
    state, entry = weights.load("vgg16")
    theirs = state | {"features.0.weight": state["features.0.weight"].flip(1)}
    options = {"mean": entry.mean, "std": entry.std}
    found = FeatureExtractor("vgg16", "relu1_1", weights=theirs, input_order="bgr", **options)(images)
    assert torch.equal(found["relu1_1"], FeatureExtractor("vgg16", "relu1_1")(images)["relu1_1"])
