"""Every way to run a layer gives what torch's own convolution gives."""

import copy
import io
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from vggfeat import FeatureExtractor, arch, images
from vggfeat.features import steps, winograd

PICTURES = Path(__file__).parents[2] / "assets" / "images"
DEEP = ["relu2_2", "relu3_3", "conv4_2", "relu5_1"]


def convolution(inputs, outputs, *, rectified=True):
    """The step of a 3x3 convolution, and tensors for it."""
    layer, relu = arch.layers("vgg19")[:2]
    torch.manual_seed(inputs)
    tensors = torch.randn(outputs, inputs, 3, 3) / (9 * inputs) ** 0.5, torch.randn(outputs)
    return steps.Step([layer, relu] if rectified else [layer], overwritable=False), tensors


def _photograph():
    """(1, 3, 130, 170) out of a bundled photograph."""
    return images.read_picture(PICTURES / "chelsea.jpg").rgb[:, :, 60:190, 80:250]


@pytest.fixture(autouse=True)
def _needs_a_measured_processor():
    if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        pytest.skip("Winograd's algorithm has not been measured on this processor")


def test_the_transforms_are_a_convolution():
    outward, weights, inward = winograd.transforms()
    signal, taps = torch.randn(6, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    correlated = torch.stack([signal[i : i + 3] @ taps for i in range(4)])
    torch.testing.assert_close(outward @ ((weights @ taps) * (inward @ signal)), correlated, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rectified", [True, False])
@pytest.mark.parametrize(
    ("size", "inputs", "outputs"),
    [
        ((3, 16, 16), 128, 128),
        ((2, 1, 61), 128, 128),
        ((2, 15, 17), 128, 160),
        ((3, 33, 18), 160, 128),
        ((1, 90, 14), 128, 128),  # a last round that overlaps
        ((1, 70, 130), 128, 128),  # several rounds in an image
        ((1, 3, 1300), 128, 128),  # a row longer than a round
        ((1, 47, 48), 512, 512),
    ],
)
def test_equals_torch(size, inputs, outputs, rectified):
    step, tensors = convolution(inputs, outputs, rectified=rectified)
    n, height, width = size
    x = torch.randn(n, inputs, height, width).contiguous(memory_format=torch.channels_last).requires_grad_()
    y = step(x, tensors)
    assert type(y.grad_fn).__name__ == "_ConvolutionBackward"
    twin = x.detach().double().requires_grad_()
    expected = F.conv2d(twin, *(t.double() for t in tensors), padding=1)
    expected = expected.relu() if rectified else expected
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=5e-5)
    assert y.is_contiguous(memory_format=torch.channels_last)
    pull = torch.randn_like(expected) * (expected.abs() > 1e-4)  # where the sign is sure
    (gradient,) = torch.autograd.grad(y, x, pull.float())
    (reference,) = torch.autograd.grad(expected, twin, pull)
    torch.testing.assert_close(gradient.double(), reference, rtol=1e-5, atol=5e-5)


def test_layouts_and_strides_of_the_input_do_not_matter():
    step, tensors = convolution(128, 128)
    x = torch.randn(3, 128, 18, 20)
    expected = step(x.contiguous(memory_format=torch.channels_last), tensors)
    for view in (x, x.transpose(2, 3).contiguous().transpose(2, 3), torch.cat([x, x], 3)[..., :20]):
        torch.testing.assert_close(step(view, tensors), expected, rtol=1e-6, atol=1e-6)


def test_an_image_is_the_same_alone_and_in_a_batch():
    step, tensors = convolution(128, 128)
    x = torch.randn(5, 128, 22, 22)
    assert torch.equal(step(x, tensors)[3:4], step(x[3:4], tensors))


def test_small_pictures_are_left_to_torch():
    step, tensors = convolution(128, 128)

    def runs(*size):
        return type(step(torch.randn(*size, requires_grad=True), tensors).grad_fn).__name__

    assert runs(1, 128, 12, 20) == runs(9, 128, 8, 8) == "ReluBackward0"
    assert runs(1, 128, 16, 16) == runs(2, 128, 8, 32) == runs(8, 128, 13, 13) == "_ConvolutionBackward"


def test_the_gradient_can_be_differentiated_again():
    step, tensors = convolution(128, 128)

    def penalty(run, x):
        (gradient,) = torch.autograd.grad(run(x).square().sum(), x, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), x)[0]

    x = torch.randn(1, 128, 24, 24)
    fast = penalty(lambda x: step(x, tensors), x.clone().requires_grad_())
    plain = penalty(lambda x: F.conv2d(x, *tensors, padding=1).relu(), x.clone().requires_grad_())
    assert torch.linalg.norm(fast - plain) < 1e-4 * torch.linalg.norm(plain)


def test_weights_may_change():
    step, (weight, bias) = convolution(128, 128, rectified=False)
    x = torch.randn(1, 128, 24, 24)
    before = step(x, (weight, bias))
    weight.mul_(2)
    torch.testing.assert_close(step(x, (weight, bias)) - bias[:, None, None], 2 * (before - bias[:, None, None]))


def test_works_in_inference_mode_and_afterwards_in_a_graph():
    step, tensors = convolution(128, 128)
    x = torch.randn(1, 128, 24, 24)
    with torch.inference_mode():
        inside = step(x, tensors)
    outside = step(x.requires_grad_(), tensors)
    torch.testing.assert_close(inside, outside.detach())
    outside.sum().backward()


def test_leaves_to_torch_what_it_cannot_do():
    step, tensors = convolution(128, 128)
    x = torch.randn(2, 1, 128, 24, 24)
    plain = torch.stack([F.conv2d(image, *tensors, padding=1).relu() for image in x])
    torch.testing.assert_close(torch.func.vmap(lambda image: step(image, tensors))(x), plain, rtol=1e-5, atol=1e-5)
    half = step(x[0].bfloat16(), [t.bfloat16() for t in tensors])
    assert half.dtype == torch.bfloat16
    assert step(x[0, :0], tensors).shape == (0, 128, 24, 24)
    meta = step(x[0].to("meta"), [t.to("meta") for t in tensors])
    assert meta.shape == (1, 128, 24, 24)


def test_a_network_equals_the_plain_one():
    extract = FeatureExtractor("vgg19", DEEP)
    plain = FeatureExtractor("vgg19", DEEP, channels_last=False).double()
    image = _photograph()
    fast, exact = extract(image), plain(image.double())
    for name, features in fast.items():
        assert torch.linalg.norm(features - exact[name]) < 1e-5 * torch.linalg.norm(exact[name])


def test_gradients_point_where_the_plain_ones_do():
    image = _photograph().requires_grad_()

    def gradient(**options):
        features = FeatureExtractor("vgg19", DEEP, **options)(image)
        loss = sum(layer.float().square().mean() for layer in features.values())
        return torch.autograd.grad(loss, image)[0].flatten()

    for precision, least in (("float32", 0.999999), ("bfloat16", 0.999)):
        plain = gradient(precision=precision, channels_last=False)
        assert torch.cosine_similarity(plain, gradient(precision=precision), dim=0) > least


def test_copies_and_files_compute_the_same():
    extract = FeatureExtractor("vgg16", "relu3_3")
    image = torch.rand(1, 3, 64, 64)
    expected = extract(image)["relu3_3"]
    assert torch.equal(copy.deepcopy(extract)(image)["relu3_3"], expected)
    stream = io.BytesIO()
    torch.save(extract, stream)
    stream.seek(0)
    assert torch.equal(torch.load(stream, weights_only=False)(image)["relu3_3"], expected)
    assert extract.double()(image)["relu3_3"].dtype == torch.float64
