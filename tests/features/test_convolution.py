"""Convolutions hold torch's settings of float32, forward and backward. The processor plays the part of a GPU."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from vggfeat import LPIPS, FeatureExtractor
from vggfeat.features import convolution
from vggfeat.features.convolution import convolve
from vggfeat.features.device import settings
from vggfeat.features.squeezenet import SqueezeNet
from vggfeat.pictures.images import read_picture

CHELSEA = Path(__file__).parents[2] / "assets" / "images" / "chelsea.jpg"


def read():
    return torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision


class Observed(TorchDispatchMode):
    """Notes the settings at the moment of each convolution and its derivative."""

    def __init__(self):
        super().__init__()
        self.forward, self.backward = [], []

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        name = function.name().split(".")[0]
        if name == "aten::convolution":
            self.forward.append(read())
        elif name == "aten::convolution_backward":
            self.backward.append(read())
        return function(*arguments, **(options or {}))


@pytest.fixture
def gpu(monkeypatch):
    """Treat the processor as a device whose arithmetic depends on settings."""
    monkeypatch.setattr(convolution, "DEVICES", ("cpu",))


@pytest.fixture(params=["untouched", "new interface"])
def users(request):
    """The user's settings, which must be the same afterwards."""
    conv, matmul = torch.backends.cudnn.conv, torch.backends.cuda.matmul
    before = read()
    if request.param != "untouched":
        conv.fp32_precision, matmul.fp32_precision = "tf32", "tf32"
    yield read()
    conv.fp32_precision, matmul.fp32_precision = before


def tensors(dtype=torch.float32, groups=1):
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(2, 4, 9, 7, generator=generator, dtype=dtype),
        torch.randn(6, 4 // groups, 3, 3, generator=generator, dtype=dtype),
        torch.randn(6, generator=generator, dtype=dtype),
    )


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(("arithmetic", "expected"), [("float32", "ieee"), ("tf32", "tf32")])
def test_settings_at_the_moment_of_each_operation(users, arithmetic, expected):
    x, weight, bias = tensors()
    x.requires_grad_()
    with Observed() as seen:
        y = convolve(x, weight, bias, padding=1, arithmetic=arithmetic)
        assert read() == users
        (gradient,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        assert read() == users
        torch.autograd.grad(gradient.square().sum(), x)
    assert read() == users
    assert len(seen.forward) >= 2  # the second derivative convolves too
    assert len(seen.backward) >= 2
    assert set(seen.forward + seen.backward) == {(expected, expected)}


@pytest.mark.usefixtures("gpu")
def test_settings_are_restored_when_a_convolution_fails(users):
    x, weight, _ = tensors()
    with pytest.raises(RuntimeError, match="channels"):
        convolve(x[:, :3], weight)
    assert read() == users


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("pooling", ["max", "l2"])
@pytest.mark.parametrize(("precision", "expected"), [("float32", "ieee"), ("tf32", "tf32")])
def test_a_networks_pass_holds_them(users, channels_last, pooling, precision, expected):
    extract = FeatureExtractor(
        "vgg11",
        "relu3_1",
        weights=None,
        pooling=pooling,
        channels_last=channels_last,
        precision=precision,
        device="cpu",
    )
    x = torch.rand(1, 3, 16, 16).requires_grad_()
    with Observed() as seen:
        loss = extract(x)["relu3_1"].square().mean()
        loss.backward()
    assert read() == users
    assert len(seen.forward) >= 3
    assert len(seen.backward) >= 3
    assert set(seen.forward + seen.backward) == {(expected, expected)}


@pytest.mark.usefixtures("gpu")
def test_squeezenet_holds_them(users):
    squeeze = SqueezeNet(["features.3"], weights=None, device="cpu")
    x = torch.rand(1, 3, 33, 33).requires_grad_()
    with Observed() as seen:
        squeeze(x)["features.3"].square().mean().backward()
    assert read() == users
    assert len(seen.forward) == 25  # all of torchvision's
    assert len(seen.backward) == 4
    assert set(seen.forward + seen.backward) == {("ieee", "ieee")}


@pytest.mark.usefixtures("gpu")
def test_the_heads_of_lpips_hold_them(users):
    """They are convolutions too where the `lpips` package is followed exactly."""
    criterion = LPIPS("alex", weights=None, exact=True, device="cpu", check="off")
    x, y = torch.rand(2, 1, 3, 64, 64)
    with Observed() as seen:
        criterion(x.requires_grad_(), y).mean().backward()
    assert read() == users
    assert len(seen.forward) == 15  # five layers of two pictures, and five heads
    assert set(seen.forward + seen.backward) == {("ieee", "ieee")}


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(("stride", "padding", "groups"), [(1, 1, 1), (2, 0, 1), (2, 1, 2)])
def test_equals_torchs_convolution(stride, padding, groups):
    x, weight, bias = tensors(groups=groups)
    x.requires_grad_()
    ours = convolve(x, weight, bias, stride=stride, padding=padding, groups=groups)
    torchs = F.conv2d(x, weight, bias, stride, padding, 1, groups)
    assert torch.equal(ours, torchs)
    upstream = torch.rand_like(ours)
    assert torch.equal(*(torch.autograd.grad(y, x, upstream)[0] for y in (ours, torchs)))


@pytest.mark.usefixtures("gpu")
@pytest.mark.filterwarnings("ignore:.torch.jit.script:FutureWarning")
def test_derivatives(monkeypatch):
    monkeypatch.setattr(convolution, "DTYPES", (torch.float64,))
    x, weight, bias = tensors(torch.float64)
    x = x[:1, :, :4, :4].requires_grad_()

    def run(x):
        return convolve(x, weight, bias, stride=2, padding=1).pow(2)

    assert torch.autograd.gradcheck(run, x, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(run, x)


@pytest.mark.usefixtures("gpu")
def test_function_transforms():
    x, weight, bias = tensors()

    def loss(x, run=convolve):
        return run(x, weight, bias, padding=1).square().sum()

    def plain(x):
        return loss(x, F.conv2d)

    batch = x[:, None]
    torch.testing.assert_close(torch.func.grad(loss)(x), torch.func.grad(plain)(x))
    torch.testing.assert_close(*(torch.func.jvp(f, (x,), (x,))[1] for f in (loss, plain)))
    for transformed in (
        torch.func.vmap,
        lambda f: torch.func.vmap(torch.func.grad(f)),
    ):
        torch.testing.assert_close(transformed(loss)(batch), transformed(plain)(batch))


@pytest.mark.usefixtures("gpu")
def test_a_compiled_graph_holds_them(users, monkeypatch):
    seen = []

    def noting(real):
        def note(*arguments):
            if not any(isinstance(argument, FakeTensor) for argument in arguments):
                seen.append(read())
            return real(*arguments)

        return note

    monkeypatch.setattr(F, "conv2d", noting(F.conv2d))
    monkeypatch.setattr(torch.nn.grad, "conv2d_input", noting(torch.nn.grad.conv2d_input))
    x, weight, bias = tensors()

    def loss(x):
        return F.relu(convolve(x, weight, bias, padding=1), inplace=True).square().sum()

    x.requires_grad_()
    (gradient,) = torch.autograd.grad(torch.compile(loss, fullgraph=True, backend="aot_eager")(x), x)
    assert read() == users
    assert seen == [("ieee", "ieee")] * 2
    (expected,) = torch.autograd.grad(loss(x), x)
    torch.testing.assert_close(gradient, expected)


def _as_tf32(x):
    """Round to a mantissa of 10 bits, as NVIDIA's tensor cores read the factors of float32 products."""
    return ((x.detach().contiguous().view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)


def _on_a_card(real, *factors):
    """A convolution as a card computes it: in TF32 if torch's setting allows it at that moment."""

    def run(*arguments):
        given = list(arguments)
        if read()[0] == "tf32":
            for place in factors:
                given[place] = _as_tf32(given[place])
        return real(*given)

    return run


@pytest.fixture
def card(monkeypatch):
    monkeypatch.setattr(convolution, "DEVICES", ("cpu",))
    monkeypatch.setattr(F, "conv2d", _on_a_card(F.conv2d, 0, 1))
    monkeypatch.setattr(torch.nn.grad, "conv2d_input", _on_a_card(torch.nn.grad.conv2d_input, 1, 2))


# The largest errors, relative to the largest value, that TF32 may cause in a VGG-19 up to relu5_1: `dump-verify` allows
# as much for features. A gradient has larger ones where a rounding changes which side of a ReLU or a pool is taken.
FEATURES, GRADIENT = 4e-3, 4e-2


@pytest.mark.usefixtures("card")
def test_emulated_tf32_stays_within_stated_tolerances():
    picture = read_picture(CHELSEA).rgb[:, :, 100:196, 150:246]

    def run(precision, **options):
        x = picture.clone().requires_grad_()
        extract = FeatureExtractor("vgg19", ["relu3_1", "relu5_1"], precision=precision, device="cpu", **options)
        features = extract(x)
        sum(y.square().mean() for y in features.values()).backward()
        return [*(y.detach() for y in features.values()), x.grad]

    def errors(found):
        return [float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, exact, strict=True)]

    exact = run("float32", channels_last=False)
    with settings(torch.device("cuda"), "tf32"):  # the user allows TF32, float32 is IEEE all the same
        assert max(errors(run("float32", channels_last=False))) == 0
        # Winograd's algorithm does not run on GPUs.
        first, second, gradient = errors(run("tf32", channels_last=False))
    assert 1e-4 < first < FEATURES
    assert 1e-4 < second < FEATURES
    assert 1e-4 < gradient < GRADIENT


@pytest.mark.usefixtures("gpu")
def test_half_precision_and_trained_weights_are_torchs():
    x, weight, bias = tensors()
    with Observed() as seen:
        convolve(x.bfloat16(), weight.bfloat16(), bias.bfloat16())
        convolve(x, weight.requires_grad_(), bias)
    assert seen.forward == [read()] * 2


def test_the_precision_in_use_has_a_name(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    extract = FeatureExtractor("vgg11", "relu1_1", weights=None, precision="tf32", device="cpu")
    assert extract.precision == "float32"  # the processor has no TF32
    with FakeTensorMode(allow_non_fake_inputs=True):
        extract.offset = torch.empty(1, device="cuda")
    assert extract.precision == "tf32"
    assert FeatureExtractor("vgg11", "relu1_1", weights=None, device="cpu").bfloat16().precision == "bfloat16"
