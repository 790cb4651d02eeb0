"""A step picks the algorithm by the rule, and a network gives what torch's own convolutions give."""

import copy
import io
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from vggfeat import FeatureExtractor
from vggfeat.features import algorithms, steps
from vggfeat.networks import arch
from vggfeat.pictures import images

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
    capability = torch.backends.cpu.get_cpu_capability()
    if algorithms.choose(capability, torch.float32, (256, 256), (56, 56)) != "winograd":
        pytest.skip("Winograd's algorithm has not been measured on this processor")


def test_an_image_is_the_same_alone_and_in_a_batch():
    step, tensors = convolution(128, 128)
    x = torch.randn(5, 128, 40, 40)
    assert torch.equal(step(x, tensors)[3:4], step(x[3:4], tensors))


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1, 128, 12, 20), "ReluBackward0"),
        ((9, 128, 16, 16), "ReluBackward0"),  # the rule looks at one image, not at the batch
        ((1, 128, 40, 40), "_ConvolutionBackward"),
        ((2, 128, 8, 200), "_ConvolutionBackward"),
    ],
)
def test_the_rule_decides_for_each_size(size, expected):
    step, tensors = convolution(128, 128)
    y = step(torch.randn(*size, requires_grad=True), tensors)
    assert type(y.grad_fn).__name__ == expected


def test_weights_may_change():
    step, (weight, bias) = convolution(128, 128, rectified=False)
    x = torch.randn(1, 128, 40, 40)
    before = step(x, (weight, bias))
    weight.mul_(2)
    torch.testing.assert_close(step(x, (weight, bias)) - bias[:, None, None], 2 * (before - bias[:, None, None]))


def test_works_in_inference_mode_and_afterwards_in_a_graph():
    step, tensors = convolution(128, 128)
    x = torch.randn(1, 128, 40, 40)
    with torch.inference_mode():
        inside = step(x, tensors)
    outside = step(x.requires_grad_(), tensors)
    torch.testing.assert_close(inside, outside.detach())
    outside.sum().backward()


def test_leaves_to_torch_what_it_cannot_do():
    step, tensors = convolution(128, 128)
    x = torch.randn(2, 1, 128, 40, 40)
    plain = torch.stack([F.conv2d(image, *tensors, padding=1).relu() for image in x])
    torch.testing.assert_close(torch.func.vmap(lambda image: step(image, tensors))(x), plain, rtol=1e-5, atol=1e-5)
    half = step(x[0].bfloat16(), [t.bfloat16() for t in tensors])
    assert half.dtype == torch.bfloat16
    assert step(x[0, :0], tensors).shape == (0, 128, 40, 40)
    meta = step(x[0].to("meta"), [t.to("meta") for t in tensors])
    assert meta.shape == (1, 128, 40, 40)


def test_a_network_equals_the_plain_one():
    extract = FeatureExtractor("vgg19", DEEP)
    plain = FeatureExtractor("vgg19", DEEP, channels_last=False).double()
    image = _photograph()
    fast, exact = extract(image), plain(image.double())
    for name, features in fast.items():
        assert torch.linalg.norm(features - exact[name]) < 1e-5 * torch.linalg.norm(exact[name])


def test_gradients_point_where_the_plain_ones_do():
    image = _photograph()[..., :64, :64].requires_grad_()

    def gradient(**options):
        features = FeatureExtractor("vgg19", ["relu2_2", "conv3_4"], **options)(image)
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
