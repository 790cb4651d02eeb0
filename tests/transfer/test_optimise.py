import pytest
import torch

from vggfeat.transfer import optimise
from vggfeat.transfer.optimise import BoundedAdam, BoundedLBFGS, LossAndGradient, precondition


def quadratic(target, scale):
    """The loss 1/2 sum scale (x - target)², whose bounded minimum is the target clamped."""

    def closure(image):
        difference = image - target
        loss = (scale * difference.square()).sum() / 2
        return LossAndGradient(loss, scale * difference, {"all": loss})

    return closure


def optimisers():
    return [
        pytest.param(BoundedLBFGS, id="lbfgs"),
        pytest.param(lambda *args: BoundedAdam(*args, learning_rate=0.02), id="adam"),
    ]


@pytest.mark.parametrize("make", optimisers())
def test_finds_the_bounded_minimum_and_never_leaves_the_bounds(make):
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(1, 3, 8, 8, generator=generator) * 2 - 0.5
    scale = torch.logspace(-1, 1, target.numel()).reshape(target.shape)
    optimiser = make(torch.full_like(target, 0.5), quadratic(target, scale))
    for _ in range(200):
        optimiser.step()
        assert optimiser.image.min() >= 0
        assert optimiser.image.max() <= 1
    torch.testing.assert_close(optimiser.image.detach(), target.clamp(0, 1), rtol=0, atol=5e-3)


@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (7, 9), (24, 33), (64, 48)])
def test_the_pyramid_is_symmetric_and_positive(size, wrap):
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(1, 3, *size, generator=generator, dtype=torch.float64) for _ in range(2))
    torch.testing.assert_close((x * precondition(y, wrap=wrap)).sum(), (y * precondition(x, wrap=wrap)).sum())
    assert (x * precondition(x, wrap=wrap)).sum() >= x.square().sum()


@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize("size", [(32, 32), (33, 47), (64, 31), (3, 2)])
def test_downsampling_is_a_quarter_of_the_gradient_of_upsampling(size, wrap):
    x = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    half = torch.zeros(1, 3, *(-(-side // 2) for side in size), requires_grad=True)
    (expected,) = torch.autograd.grad(optimise.upsample(half, *size, wrap=wrap), half, x)
    torch.testing.assert_close(optimise.downsample(x, wrap=wrap), expected / 4, rtol=0, atol=3e-7)


def test_the_pyramid_amplifies_what_is_coarse():
    flat, grain = torch.ones(1, 1, 256, 256), torch.ones(1, 1, 256, 256)
    grain[..., ::2, 1::2] = grain[..., 1::2, ::2] = -1
    inside = (..., slice(96, 160), slice(96, 160))
    torch.testing.assert_close(precondition(flat)[inside], 31 * flat[inside])  # 1 + 2 + 4 + 8 + 16
    torch.testing.assert_close(precondition(grain)[inside], grain[inside])


def test_the_pyramid_has_no_edge_where_it_wraps():
    x = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    shifted = precondition(x.roll((16, 32), (2, 3)), wrap=True)
    torch.testing.assert_close(shifted, precondition(x, wrap=True).roll((16, 32), (2, 3)))


def test_lbfgs_finds_smooth_pictures_sooner_with_the_pyramid(monkeypatch):
    """Where grain costs much and flat colours little, as for the features of a network."""
    coarse = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    target = torch.nn.functional.interpolate(coarse, (96, 96), mode="bicubic").clamp(0, 1)

    def closure(image):
        difference = (image - target).detach().requires_grad_()
        grain = difference - torch.nn.functional.avg_pool2d(difference, 5, 1, 2)
        loss = difference.square().sum() + 100 * grain.square().sum()
        (gradient,) = torch.autograd.grad(loss, difference)
        return LossAndGradient(loss.detach(), gradient, {"all": loss.detach()})

    def reached():
        optimiser = BoundedLBFGS(torch.full_like(target, 0.5), closure)
        for _ in range(15):
            optimiser.step()
        return optimiser.evaluation.loss

    preconditioned = reached()
    monkeypatch.setattr(optimise, "precondition", lambda x, **_: x)
    assert preconditioned < 0.5 * reached()


def test_lbfgs_is_fast_where_scales_differ():
    target = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    scale = torch.logspace(0, 4, target.numel()).reshape(target.shape)
    closure = quadratic(target, scale)
    optimiser = BoundedLBFGS(torch.zeros_like(target), closure)
    start = closure(optimiser.image).loss
    for _ in range(60):
        optimiser.step()
    assert closure(optimiser.image).loss < 1e-3 * start


def test_lbfgs_takes_back_a_step_that_rises():
    """A cliff that the model of the loss cannot foresee."""

    def cliff(image):
        smooth = quadratic(torch.full_like(image, 0.9), torch.ones_like(image))(image)
        loss = smooth.loss + 1e6 * (image > 0.7).sum()
        return LossAndGradient(loss, smooth.gradient, {"all": loss})

    optimiser = BoundedLBFGS(torch.full((1, 1, 2, 2), 0.1), cliff)
    losses = []
    for _ in range(40):
        optimiser.step()
        losses.append(cliff(optimiser.image).loss.item())
    assert max(losses) <= 4 * 0.8**2 / 2 * 1.05
    assert 0.5 < optimiser.image.mean() <= 0.7


@pytest.mark.parametrize("make", optimisers())
def test_what_is_held_belongs_together_and_stays(make):
    """Also where a step is taken back."""

    def closure(image):
        loss = (10 * image).sin().sum()
        return LossAndGradient(loss, 10 * (10 * image).cos(), {"all": loss})

    optimiser = make(torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0)), closure)
    held = []
    for _ in range(12):
        optimiser.step()
        assert optimiser.evaluation.terms["all"] == optimiser.evaluation.loss == closure(optimiser.image).loss
        held.append((optimiser.image, optimiser.image.clone()))
    assert all(torch.equal(image, copy) for image, copy in held)


def test_lbfgs_at_a_minimum_stays():
    x = torch.full((1, 3, 4, 4), 0.5)
    optimiser = BoundedLBFGS(x, quadratic(x.clone(), torch.ones_like(x)))
    for _ in range(5):
        optimiser.step()
    assert torch.equal(optimiser.image, x)


def test_no_device_is_assumed():
    """On the meta device a value that is asked for, or a tensor left on the CPU, is an error."""
    image = torch.empty(1, 3, 8, 8, device="meta")

    def closure(image):
        return LossAndGradient(image.sum(), torch.empty_like(image), {"all": image.sum()})

    for optimiser in (BoundedLBFGS(image, closure), BoundedAdam(image, closure, learning_rate=0.1)):
        for _ in range(3):
            optimiser.step()
        assert optimiser.image.device.type == "meta"
