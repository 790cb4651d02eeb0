"""Losses that read a mapping {layer: features}, never fetching it, and their weighted sum.

A loss is configured once and holds no tensor of its own. `loss.target(features)` keeps, without a graph, what the
features of the target come down to: features, Gram matrices, moments. It can be computed once and used again.
`loss(features, target)` compares, and its gradient reaches `features` alone.

    extract = FeatureExtractor("vgg19", objective.layers)
    targets = objective.target(extract(photograph))
    total, terms = objective(extract(prediction), targets)
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Self, TypeVar, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vggfeat import functional
from vggfeat.errors import InputError, near

Features = Mapping[str, Tensor]
Layers = Mapping[str, float] | Sequence[str]
Reduction = Literal["mean", "none"]
Distance = Literal["l2", "l1", "charbonnier", "huber", "cosine"]
_Word = TypeVar("_Word", bound=str)


class FeatureLoss(nn.Module):
    """What losses share: a weighted sum over layers of a distance between summaries of their features.

    Args:
        layers: {layer: weight}, or layers of weight 1. The layer `image` is the image itself, where the mapping
            holds it.
        reduction: `mean` over the batch, a scalar, or `none`, (N,).
    """

    aligned = True
    """Whether features are compared position by position, so that two images must be of one size."""

    local = False
    """Whether the distance is a mean over positions that do not know of each other."""

    def __init__(self, layers: Layers, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        layers = [layers] if isinstance(layers, str) else layers
        self.weights: dict[str, float] = dict(layers) if isinstance(layers, Mapping) else dict.fromkeys(layers, 1.0)
        if not self.weights:
            raise InputError(f"{type(self).__name__} needs at least one layer")
        self.reduction: Reduction = one_of("reduction", reduction, get_args(Reduction))

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that this loss reads."""
        return tuple(self.weights)

    def summary(self, x: Tensor) -> Tensor:
        """What the features `x` (N, C, H, W) of one layer are compared by, in float32 at least."""
        raise NotImplementedError

    def distance(self, x: Tensor, target: Tensor) -> Tensor:
        """How far two summaries are apart: (N,). The mean square, unless a loss says otherwise."""
        return (x - target).square().flatten(1).mean(1)

    def target(self, features: Features, *, graph: bool = False) -> dict[str, Tensor]:
        """What `features` are to be compared with; a batch of one serves a batch of any size.

        With `graph` the gradient reaches these features too.
        """
        found = {name: read(features, name) for name in self.layers}
        with functional.without_autocast(next(iter(found.values())).device.type):
            return {name: self.summary(x if graph else x.detach()) for name, x in found.items()}

    def forward(self, features: Features, target: Features) -> Tensor:
        """The loss of `features` against what `target()` returned for the target's features, in float32 at least."""
        some = read(features, next(iter(self.weights)))
        with functional.without_autocast(some.device.type):
            values: list[Tensor] = []
            for name, weight in self.weights.items():
                summary = self.summary(read(features, name))
                values.append(weight * self.distance(summary, self.fitting(target, name, summary)))
            return self.reduce(torch.stack(values).sum(0))

    def fitting(self, target: Features, name: str, summary: Tensor) -> Tensor:
        """The target of one layer, where it can be compared with `summary`. Raises `InputError` where it cannot."""
        found = read(target, name)
        batch = found.shape[0] == 1 or found.shape[0] == summary.shape[0]
        if not batch or (self.aligned and found.shape[1:] != summary.shape[1:]):
            shapes = ["x".join(map(str, x.shape)) for x in (summary, found)]
            raise InputError(f"{name} is {shapes[0]} of the prediction and {shapes[1]} of the target: they do not fit")
        return found

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # What was published in float32 keeps its digits when a parent is turned to half precision.
        before = dict(self.named_buffers(recurse=False))
        super()._apply(fn, recurse)  # pyright: ignore[reportUnknownMemberType] (untyped upstream)
        for name, x in before.items():
            moved = self.get_buffer(name)
            if moved.dtype in (torch.float16, torch.bfloat16):
                self.register_buffer(name, x.to(moved.device), persistent=False)
        return self

    def reduce(self, values: Tensor) -> Tensor:
        """(N,) to what `reduction` asks for."""
        return values.mean() if self.reduction == "mean" else values


class PooledLoss(FeatureLoss):
    """A loss of sums over space: those of the parts of a picture add up to those of the whole."""

    aligned = False

    def moments(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """The sums over the positions of `x` (N, C, H, W), each weighed by `mask` (1, 1, H, W) in [0, 1]."""
        raise NotImplementedError

    def settle(self, moments: Tensor, positions: Tensor | float) -> Tensor:
        """The summary that these sums over so many `positions` come to."""
        raise NotImplementedError

    def summary(self, x: Tensor) -> Tensor:
        """What the features of one layer are compared by, in float32 at least."""
        return self.settle(self.moments(x), x.shape[2] * x.shape[3])


class ContentLoss(FeatureLoss):
    """The difference of features, averaged over channels and space.

    `distance`: `l2` the mean square (Gatys et al. 2016 without their factor 1/2; Johnson et al. 2016), `l1` the mean
    absolute difference, `charbonnier` sqrt(d² + 1e-6) (Lai et al. 2017), `huber` d²/2 below 1 and |d| - 1/2 above,
    `cosine` 1 minus the cosine of the vectors of channels.
    """

    local = True

    def __init__(self, layers: Layers, *, distance: Distance = "l2", reduction: Reduction = "mean") -> None:
        super().__init__(layers, reduction=reduction)
        self.kind: Distance = one_of("distance", distance, get_args(Distance))

    def summary(self, x: Tensor) -> Tensor:
        """The features, of unit length for `cosine`."""
        return functional.unit_normalize(x) if self.kind == "cosine" else functional.at_least_float32(x)

    def distance(self, x: Tensor, target: Tensor) -> Tensor:
        """The mean over channels and space: (N,)."""
        if self.kind == "cosine":
            return 1 - (x * target).sum(1).mean((1, 2))
        return _ELEMENTWISE[self.kind](x, target.expand_as(x)).flatten(1).mean(1)


def _charbonnier(x: Tensor, y: Tensor) -> Tensor:
    return ((x - y).square() + 1e-6).sqrt()


_ELEMENTWISE: Mapping[Distance, Callable[[Tensor, Tensor], Tensor]] = {
    "l2": lambda x, y: (x - y).square(),
    "l1": lambda x, y: (x - y).abs(),
    "charbonnier": _charbonnier,
    "huber": lambda x, y: F.huber_loss(x, y, reduction="none"),
}


class GramLoss(PooledLoss):
    """The mean square difference of Gram matrices; `divide_by` as in `functional.gram`.

    With `distance="l1"` the mean absolute difference (BasicSR's default).
    """

    def __init__(
        self,
        layers: Layers,
        *,
        divide_by: functional.GramDivisor = "hw",
        distance: Literal["l2", "l1"] = "l2",
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(layers, reduction=reduction)
        self.divide_by: functional.GramDivisor = one_of("divide_by", divide_by, get_args(functional.GramDivisor))
        self.kind: Literal["l2", "l1"] = one_of("distance", distance, ("l2", "l1"))

    def moments(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """The products of channels, (N, C, C)."""
        return functional.gram(x if mask is None else x * mask.sqrt().to(x.dtype), divide_by="none")

    def settle(self, moments: Tensor, positions: Tensor | float) -> Tensor:
        """The Gram matrix, (N, C, C)."""
        match self.divide_by:
            case "hw":
                return moments / positions
            case "chw":
                return moments / (positions * moments.shape[1])
            case "none":
                return moments

    def distance(self, x: Tensor, target: Tensor) -> Tensor:
        """The mean over the matrix: (N,)."""
        return _ELEMENTWISE[self.kind](x, target).flatten(1).mean(1)


class MeanStdLoss(PooledLoss):
    """The mean square difference of channel means plus that of standard deviations (Huang & Belongie 2017)."""

    def summary(self, x: Tensor) -> Tensor:
        """Means and deviations, (N, 2, C)."""
        return functional.mean_std(x)

    def moments(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Sums and sums of squares, (N, 2, C)."""
        x = functional.at_least_float32(x)
        first = x if mask is None else x * mask
        return torch.stack([first.sum((2, 3)), (first * x).sum((2, 3))], dim=1)

    def settle(self, moments: Tensor, positions: Tensor | float) -> Tensor:
        """Means and deviations, (N, 2, C), up to the rounding of a difference of squares."""
        mean, square = (moments / positions).unbind(1)
        return torch.stack([mean, ((square - mean.square()).clamp_min(0) + 1e-8).sqrt()], dim=1)

    def distance(self, x: Tensor, target: Tensor) -> Tensor:
        """The two mean squares, added: (N,)."""
        return (x - target).square().mean(2).sum(1)


class CovarianceLoss(PooledLoss):
    """The squared 2-Wasserstein distance of the Gaussians with the features' means and covariances, over C."""

    def summary(self, x: Tensor) -> Tensor:
        """Mean and covariance, (N, C + 1, C)."""
        return functional.mean_covariance(x)

    def moments(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Sums, and below them the products of channels, (N, C + 1, C)."""
        first = x if mask is None else x * mask.to(x.dtype)
        products = functional.gram(x if mask is None else x * mask.sqrt().to(x.dtype), divide_by="none")
        return torch.cat([functional.at_least_float32(first).sum((2, 3))[:, None], products], dim=1)

    def settle(self, moments: Tensor, positions: Tensor | float) -> Tensor:
        """Mean and covariance, (N, C + 1, C), up to the rounding of a difference of products."""
        means = moments / positions
        mean, products = means[:, :1], means[:, 1:]
        return torch.cat([mean, products - mean.mT @ mean], dim=1)

    def distance(self, x: Tensor, target: Tensor) -> Tensor:
        """`functional.gaussian_w2` divided by the number of channels: (N,)."""
        return functional.gaussian_w2(x, target) / x.shape[2]


class SlicedWassersteinLoss(FeatureLoss):
    """The mean squared 2-Wasserstein distance of features projected on random directions (Heitz et al. 2021).

    `projections` unit directions are drawn from `seed`, the same in every call; None takes as many as channels.
    """

    aligned = False

    def __init__(
        self, layers: Layers, *, projections: int | None = None, seed: int = 0, reduction: Reduction = "mean"
    ) -> None:
        super().__init__(layers, reduction=reduction)
        self.projections = projections
        self.seed = seed

    def summary(self, x: Tensor) -> Tensor:
        """Sorted projections, (N, K, H·W)."""
        channels = x.shape[1]
        generator = torch.Generator().manual_seed(self.seed)
        directions = torch.randn(channels, self.projections or channels, generator=generator, dtype=torch.float64)
        directions = F.normalize(directions, dim=0)
        return functional.sorted_projections(x, directions.to(x.device, torch.promote_types(x.dtype, torch.float32)))

    def distance(self, x: Tensor, target: Tensor) -> Tensor:
        """`functional.quantile_distance`: (N,)."""
        return functional.quantile_distance(x, target)


class ContextualLoss(FeatureLoss):
    """Minus the logarithm of `functional.contextual_similarity` (Mechrez et al. 2018), for unaligned pictures.

    Memory grows with `chunk` times the number of positions of the target.
    """

    aligned = False

    def __init__(
        self, layers: Layers, *, bandwidth: float = 0.5, chunk: int = 1024, reduction: Reduction = "mean"
    ) -> None:
        super().__init__(layers, reduction=reduction)
        self.bandwidth = bandwidth
        self.chunk = chunk

    def summary(self, x: Tensor) -> Tensor:
        """The features themselves."""
        return functional.at_least_float32(x)

    def distance(self, x: Tensor, target: Tensor) -> Tensor:
        """-log of the similarity: (N,)."""
        return -functional.contextual_similarity(x, target, bandwidth=self.bandwidth, chunk=self.chunk).log()


class NearestNeighbourLoss(FeatureLoss):
    """The cosine distance of each position's features to the nearest of the target's, averaged over space.

    Li & Wand (2016) match patches, Kolkin et al. (2022) single positions, as here. Both sides are centred on the mean
    of the target. Memory grows with `chunk` times the number of positions of the target.
    """

    aligned = False
    local = True

    def __init__(self, layers: Layers, *, chunk: int = 1024, reduction: Reduction = "mean") -> None:
        super().__init__(layers, reduction=reduction)
        self.chunk = chunk

    def summary(self, x: Tensor) -> Tensor:
        """The features themselves."""
        return functional.at_least_float32(x)

    def distance(self, x: Tensor, target: Tensor) -> Tensor:
        """The mean over positions of 1 minus the greatest cosine: (N,)."""
        return functional.nearest_cosine_distance(x, target, chunk=self.chunk)


class TotalVariationLoss(FeatureLoss):
    """The total variation of the image itself, which the mapping holds as `image`; it has no target."""

    aligned = False

    def __init__(self, *, power: Literal[1, 2] = 2, reduction: Reduction = "mean") -> None:
        super().__init__(["image"], reduction=reduction)
        self.power: Literal[1, 2] = power

    def target(self, features: Features, *, graph: bool = False) -> dict[str, Tensor]:  # noqa: ARG002 (the base's)
        """Nothing: smoothness needs no example."""
        return {}

    def forward(self, features: Features, target: Features) -> Tensor:  # noqa: ARG002 (the base's)
        """`functional.total_variation` of `features["image"]`."""
        return self.reduce(functional.total_variation(read(features, "image"), power=self.power))


class WeightedSum(nn.Module):
    """Several losses over the same features: `WeightedSum(content=(1.0, ContentLoss(...)), style=(1e3, ...))`."""

    def __init__(self, **terms: tuple[float, FeatureLoss]) -> None:
        super().__init__()
        if not terms:
            raise InputError("a weighted sum needs at least one term")
        self.weights = {name: float(weight) for name, (weight, _) in terms.items()}
        self.terms = nn.ModuleDict({name: loss for name, (_, loss) in terms.items()})

    @property
    def losses(self) -> dict[str, FeatureLoss]:
        """The losses by the names of their terms."""
        return {name: loss for name, loss in self.terms.items() if isinstance(loss, FeatureLoss)}

    @property
    def aligned(self) -> bool:
        """Whether any term compares features position by position."""
        return any(loss.aligned for loss in self.losses.values())

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that any term reads, each once."""
        return tuple(dict.fromkeys(name for loss in self.losses.values() for name in loss.layers))

    def target(self, features: Features, *, graph: bool = False) -> dict[str, dict[str, Tensor]]:
        """What every term compares with, by term, all from the same features."""
        return {name: loss.target(features, graph=graph) for name, loss in self.losses.items()}

    def forward(self, features: Features, targets: Mapping[str, Features]) -> tuple[Tensor, dict[str, Tensor]]:
        """The total, and the weighted value of each term. Terms of different targets take them by name."""
        values = {name: self.weights[name] * loss(features, targets[name]) for name, loss in self.losses.items()}
        return torch.stack(list(values.values())).sum(0), values


def read(features: Features, name: str) -> Tensor:
    """The features of one layer. Raises `InputError` where the mapping does not hold them."""
    try:
        return features[name]
    except KeyError:
        raise InputError(f"the features hold no {name}, only {', '.join(features)}") from None


def one_of(option: str, value: _Word, known: tuple[str, ...]) -> _Word:
    """`value`, if it is among the known words. Raises `InputError`."""
    if value not in known:
        raise InputError(f"unknown {option} '{value}': {near(value, known)}")
    return value
