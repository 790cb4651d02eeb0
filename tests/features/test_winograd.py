"""Winograd's algorithm gives what torch's own convolution gives."""

import pytest
import torch
import torch.nn.functional as F

from vggfeat.features import winograd


def parameters(inputs, outputs):
    """A weight and a bias: of a picture of variance 1 they make one of about that."""
    torch.manual_seed(inputs)
    return torch.randn(outputs, inputs, 3, 3) / (9 * inputs) ** 0.5, torch.randn(outputs)


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
    weight, bias = parameters(inputs, outputs)
    n, height, width = size
    x = torch.randn(n, inputs, height, width).contiguous(memory_format=torch.channels_last).requires_grad_()
    y = winograd.convolve(x, weight, bias, rectify=rectified)
    twin = x.detach().double().requires_grad_()
    expected = F.conv2d(twin, weight.double(), bias.double(), padding=1)
    expected = expected.relu() if rectified else expected
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=5e-5)
    assert y.is_contiguous(memory_format=torch.channels_last)
    pull = torch.randn_like(expected) * (expected.abs() > 1e-4)  # where the sign is sure
    (gradient,) = torch.autograd.grad(y, x, pull.float())
    (reference,) = torch.autograd.grad(expected, twin, pull)
    torch.testing.assert_close(gradient.double(), reference, rtol=1e-5, atol=5e-5)


def test_layouts_and_strides_of_the_input_do_not_matter():
    weight, bias = parameters(128, 128)
    x = torch.randn(3, 128, 18, 20)
    expected = winograd.convolve(x.contiguous(memory_format=torch.channels_last), weight, bias)
    for view in (x, x.transpose(2, 3).contiguous().transpose(2, 3), torch.cat([x, x], 3)[..., :20]):
        torch.testing.assert_close(winograd.convolve(view, weight, bias), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("channels", "size"), [((128, 160), (61, 37)), ((256, 256), (28, 28)), ((512, 512), (24, 24))])
def test_the_number_of_threads_changes_no_bit(channels, size):
    weight, bias = parameters(*channels)
    x = torch.randn(1, channels[0], *size, requires_grad=True)

    def run(threads):
        torch.set_num_threads(threads)
        y = winograd.convolve(x, weight, bias, rectify=True)
        return y.detach(), *torch.autograd.grad(y.sum(), x)

    before = torch.get_num_threads()
    try:
        one, two, three = run(1), run(2), run(3)
    finally:
        torch.set_num_threads(before)
    assert all(map(torch.equal, one, two))
    assert all(map(torch.equal, one, three))


def test_the_gradient_can_be_differentiated_again():
    weight, bias = parameters(128, 128)

    def penalty(run, x):
        (gradient,) = torch.autograd.grad(run(x).square().sum(), x, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), x)[0]

    x = torch.randn(1, 128, 24, 24)
    fast = penalty(lambda x: winograd.convolve(x, weight, bias, rectify=True), x.clone().requires_grad_())
    plain = penalty(lambda x: F.conv2d(x, weight, bias, padding=1).relu(), x.clone().requires_grad_())
    assert torch.linalg.norm(fast - plain) < 1e-4 * torch.linalg.norm(plain)
