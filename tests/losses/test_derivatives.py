"""Second derivatives, and derivatives by `torch.func`, of every loss and criterion."""

import pytest
import torch

from vggfeat import (
    ADISTS,
    DISTS,
    LPIPS,
    STLPIPS,
    ContentLoss,
    ContextualLoss,
    CovarianceLoss,
    DISTSLoss,
    FeatureExtractor,
    GramLoss,
    LPIPSLoss,
    MeanStdLoss,
    NearestNeighbourLoss,
    PerceptualLoss,
    SlicedWassersteinLoss,
    StyleLoss,
    TotalVariationLoss,
    WeightedSum,
)
from vggfeat.errors import InputError
from vggfeat.losses.criterion import Criterion

LAYERS = {"relu1_1": 0.7}
LOSSES = {
    **{name: ContentLoss(LAYERS, distance=name) for name in ("l2", "l1", "charbonnier", "huber", "cosine")},
    **{f"gram-{name}": GramLoss(LAYERS, distance=name) for name in ("l2", "l1")},
    "mean_std": MeanStdLoss(LAYERS),
    "covariance": CovarianceLoss(LAYERS),
    "sliced_wasserstein": SlicedWassersteinLoss(LAYERS, projections=3),
    "contextual": ContextualLoss(LAYERS, chunk=5),
    "nearest_neighbour": NearestNeighbourLoss(LAYERS),
}


def noise(seed, *shape):
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def over_features(loss, layer="relu1_1", channels=3, *, both=False):
    """The loss as a function of the features, and points to differentiate it at."""
    x, y = (noise(seed, 2, channels, 3, 3).requires_grad_() for seed in (0, 1))
    if both:
        return lambda x, y: loss({layer: x}, loss.target({layer: y}, graph=True)), (x, y)
    target = loss.target({layer: y})
    return lambda x: loss({layer: x}, target), (x,)


@pytest.mark.parametrize("name", LOSSES)
def test_second_derivative_of_every_loss(name):
    both = name != "nearest_neighbour"  # whose gradient reaches the first argument only
    assert torch.autograd.gradgradcheck(*over_features(LOSSES[name], both=both))


def head_loss(*, exact):
    loss = LPIPSLoss("alex", exact=exact).double()
    loss.weights = {"relu1_1": 1.0}
    loss.register_buffer("head0", loss.get_buffer("head0")[:3], persistent=False)
    return loss


@pytest.mark.parametrize("exact", [False, True])
def test_second_derivative_of_lpips(exact):
    """It was zero in the fast path, without an error."""
    function, inputs = over_features(head_loss(exact=exact), both=True)
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


def test_second_derivative_of_dists():
    loss = DISTSLoss().double()
    loss.weights = {"image": 1.0}
    function, inputs = over_features(loss, "image", both=True)
    assert torch.autograd.gradgradcheck(function, inputs)


def test_second_derivative_of_total_variation():
    loss = TotalVariationLoss()
    assert torch.autograd.gradgradcheck(lambda x: loss({"image": x}, {}), noise(0, 1, 2, 3, 4).requires_grad_())


NETWORK = "3,M,4"
OBJECTIVE = WeightedSum(content=(1.0, ContentLoss(["relu2_1"])), style=(2.0, GramLoss(["relu1_1"])))
CRITERIA = {
    "content": lambda **options: PerceptualLoss(["conv2_1"], network=NETWORK, **options),
    "terms": lambda **options: PerceptualLoss(
        ["conv2_1"], ["conv1_1"], network=NETWORK, pixel=0.5, tv=0.1, distance="charbonnier", **options
    ),
    "style": lambda **options: StyleLoss(["conv1_1"], network=NETWORK, **options),
}


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("name", CRITERIA)
def test_second_derivative_of_criteria(name, both):
    criterion = CRITERIA[name](both=both, weights=None, check="off").double()
    x, y = noise(0, 1, 3, 4, 4).requires_grad_(), noise(1, 1, 3, 4, 4).requires_grad_(both)
    function, inputs = (criterion, (x, y)) if both else (lambda x: criterion(x, y), (x,))
    assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.parametrize("make", [LPIPS, DISTS, STLPIPS, ADISTS, lambda **options: LPIPS("alex", **options)])
def test_gradient_penalty_of_published_metrics(make):
    """The derivative of the squared norm of the gradient, against a difference quotient in double precision."""
    criterion = make(check="off").double()
    x, y, way = noise(0, 1, 3, 32, 32), noise(1, 1, 3, 32, 32), noise(2, 1, 3, 32, 32) - 0.5

    def penalty(x):
        (gradient,) = torch.autograd.grad(criterion(x, y), x, create_graph=True)
        return gradient.square().sum()

    x.requires_grad_()
    (ours,) = torch.autograd.grad(penalty(x), x)
    step = 1e-6
    plus, minus = (penalty((x + sign * step * way).detach().requires_grad_()) for sign in (1, -1))
    assert (ours * way).sum().item() == pytest.approx(((plus - minus) / (2 * step)).item(), rel=1e-3)
    assert ours.abs().max() > 0


FUNC = {**LOSSES, "lpips": head_loss(exact=False), "lpips-exact": head_loss(exact=True)}
# torch.utils.checkpoint does not support torch.func, nor does the gradient of the trace of a root.
NO_FUNC = {"contextual", "covariance"}


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")  # torch's own, in forward mode
@pytest.mark.parametrize("name", sorted(FUNC.keys() - NO_FUNC))
def test_torch_func(name):
    function, (x,) = over_features(FUNC[name])
    (expected,) = torch.autograd.grad(function(x), x)
    x = x.detach()
    torch.testing.assert_close(torch.func.grad(function)(x), expected)
    way = noise(5, *x.shape) - 0.5
    _, tangent = torch.func.jvp(function, (x,), (way,))
    torch.testing.assert_close(tangent, (expected * way).sum())
    several = torch.stack([x, x.flip(0)])
    mapped = torch.func.vmap(function, randomness="same")(several)
    torch.testing.assert_close(mapped, torch.stack([function(z) for z in several]))


def test_float16_refuses_a_second_derivative():
    """Its gradients are scaled inside the network; the second ones would be wrong by that factor."""
    criterion = Criterion(
        FeatureExtractor(NETWORK, ["relu1_1"], weights=None, precision="float16", check="off"), GramLoss(["relu1_1"])
    )
    x = torch.rand(1, 3, 96, 96, requires_grad=True)
    torch.autograd.grad(criterion(x, torch.rand(1, 3, 96, 96)), x)
    with pytest.raises(InputError, match="second derivatives need precision"):
        torch.autograd.grad(criterion(x, torch.rand(1, 3, 96, 96)), x, create_graph=True)
