"""Losses that read a mapping {layer: features}, never fetching it, and their weighted sum.

A loss is configured once and holds no tensor. `loss.target(features)` keeps, without a graph, what the features
of the target come down to: features, Gram matrices, ... It can be computed once and used again.
`loss(features, target)` compares, and its gradient reaches `features` alone.

    extract = FeatureExtractor("vgg19", objective.layers)
    targets = objective.target(extract(photograph))
    total, terms = objective(extract(prediction), targets)
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from vggfeat import functional
from vggfeat.errors import InputError

Features = Mapping[str, Tensor]
Layers = Mapping[str, float] | Sequence[str]
Reduction = Literal["mean", "none"]


class FeatureLoss(nn.Module):
    """What losses share: a weighted sum over layers of a distance between summaries of their features.

    Args:
        layers: {layer: weight}, or layers of weight 1.
        reduction: `mean` over the batch, a scalar, or `none`, (N,).
    """

    def __init__(self, layers: Layers, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        self.weights: dict[str, float] = dict(layers) if isinstance(layers, Mapping) else dict.fromkeys(layers, 1.0)
        self.reduction: Reduction = reduction

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that this loss reads."""
        return tuple(self.weights)

    def summary(self, x: Tensor) -> Tensor:
        """What the features `x` (N, C, H, W) of one layer are compared by."""
        raise NotImplementedError

    def distance(self, x: Tensor, target: Tensor) -> Tensor:
        """How far two summaries are apart: (N,). The mean square, unless a loss says otherwise."""
        return (x - target).square().flatten(1).mean(1)

    @torch.no_grad()
    def target(self, features: Features) -> dict[str, Tensor]:
        """What `features` are to be compared with, without a graph. A batch of one serves a batch of any size."""
        return {name: self.summary(_read(features, name)).detach() for name in self.layers}

    def forward(self, features: Features, target: Features) -> Tensor:
        """The loss of `features` against what `target()` returned for the target's features, in float32."""
        total = sum(
            weight * self.distance(self.summary(_read(features, name)), target[name])
            for name, weight in self.weights.items()
        )
        assert isinstance(total, Tensor)  # noqa: S101 (there is at least one layer)
        return total.mean() if self.reduction == "mean" else total


class ContentLoss(FeatureLoss):
    """The mean square difference of features: Gatys et al. (2016) without their factor 1/2, Johnson et al. (2016)."""

    def summary(self, x: Tensor) -> Tensor:
        """The features themselves, in float32 at least."""
        return x.to(torch.promote_types(x.dtype, torch.float32))


class StyleLoss(FeatureLoss):
    """The mean square difference of Gram matrices; `divide_by` as in `functional.gram`."""

    def __init__(
        self, layers: Layers, *, divide_by: functional.GramDivisor = "hw", reduction: Reduction = "mean"
    ) -> None:
        super().__init__(layers, reduction=reduction)
        self.divide_by: functional.GramDivisor = divide_by

    def summary(self, x: Tensor) -> Tensor:
        """The Gram matrix, (N, C, C)."""
        return functional.gram(x, divide_by=self.divide_by)


class TotalVariationLoss(FeatureLoss):
    """The total variation of the image itself, which the mapping holds as `image`; it has no target."""

    def __init__(self, *, power: Literal[1, 2] = 2, reduction: Reduction = "mean") -> None:
        super().__init__(["image"], reduction=reduction)
        self.power: Literal[1, 2] = power

    def target(self, features: Features) -> dict[str, Tensor]:  # noqa: ARG002 (the base class's signature)
        """Nothing: smoothness needs no example."""
        return {}

    def forward(self, features: Features, target: Features) -> Tensor:  # noqa: ARG002 (the base class's signature)
        """`functional.total_variation` of `features["image"]`."""
        total = functional.total_variation(_read(features, "image"), power=self.power)
        return total.mean() if self.reduction == "mean" else total


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
    def layers(self) -> tuple[str, ...]:
        """The layers that any term reads, each once."""
        return tuple(dict.fromkeys(name for loss in self.losses.values() for name in loss.layers))

    def target(self, features: Features) -> dict[str, dict[str, Tensor]]:
        """What every term compares with, by term, all from the same features."""
        return {name: loss.target(features) for name, loss in self.losses.items()}

    def forward(self, features: Features, targets: Mapping[str, Features]) -> tuple[Tensor, dict[str, Tensor]]:
        """The total, and the weighted value of each term. Terms of different targets take them by name."""
        values = {name: self.weights[name] * loss(features, targets[name]) for name, loss in self.losses.items()}
        total = torch.stack(list(values.values())).sum(0)
        return total, values


def _read(features: Features, name: str) -> Tensor:
    try:
        return features[name]
    except KeyError:
        raise InputError(f"the features hold no {name}, only {', '.join(features)}") from None
