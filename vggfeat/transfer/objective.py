"""What a run minimises: terms that read features, each with its target, and with the mask of the place it is for."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from vggfeat.losses.base import FeatureLoss, Features, PooledLoss
from vggfeat.losses.content import ContentLoss
from vggfeat.losses.covariance import CovarianceLoss
from vggfeat.losses.gram import GramLoss
from vggfeat.losses.mean_std import MeanStdLoss
from vggfeat.losses.nearest_neighbour import NearestNeighbourLoss
from vggfeat.losses.sliced_wasserstein import SlicedWassersteinLoss
from vggfeat.losses.variation import TotalVariationLoss
from vggfeat.transfer.recipe import Recipe

# Projections of the sliced distance: beyond these the pictures do not change to the eye.
_PROJECTIONS = 64


class Term(NamedTuple):
    """One weighted loss. `masks` weigh the positions of each layer, (1, 1, h, w) in [0, 1]; None is everywhere."""

    name: str
    weight: float
    loss: FeatureLoss
    target: Features
    masks: Features | None = None

    def settled(self, layer: str, x: Tensor) -> Tensor:
        """The weighted distance of one layer's whole features `x` to the target: a scalar."""
        mask = None if self.masks is None else self.masks[layer]
        loss = self.loss
        if isinstance(loss, TotalVariationLoss):
            return self.weight * loss({"image": x}, {})
        if isinstance(loss, PooledLoss) and mask is not None:
            return self.judged(layer, loss.moments(x, mask), mask.sum())
        summary = loss.summary(x if mask is None else chosen(x, mask))
        return self.weigh(layer, loss.distance(summary, loss.matching(self.target, layer, summary)))

    def judged(self, layer: str, moments: Tensor, positions: Tensor | float) -> Tensor:
        """The weighted distance of what the moments of one layer come to: a scalar."""
        loss = self.loss
        assert isinstance(loss, PooledLoss)  # noqa: S101 (only those have moments)
        summary = loss.from_moments(moments, positions).to(self.target[layer].dtype)
        return self.weigh(layer, loss.distance(summary, loss.matching(self.target, layer, summary)))

    def weigh(self, layer: str, distance: Tensor) -> Tensor:
        """A distance of one layer, (1,), times the weights of the term and of the layer: a scalar."""
        return self.weight * self.loss.weights[layer] * distance.sum()


def chosen(x: Tensor, mask: Tensor) -> Tensor:
    """The positions of `x` (1, C, H, W) whose mask is above a half, in a row: (1, C, 1, P).

    For losses that know no weights of positions. At least the position of the greatest mask is chosen.
    """
    inside = mask[0, 0] >= min(0.5, float(mask.max()))
    return x[:, :, inside][:, :, None]


def total(terms: Iterable[Term], features: Features) -> tuple[Tensor, dict[str, Tensor]]:
    """The objective at the features of a whole picture, and the value of each name's terms."""
    values: dict[str, Tensor] = {}
    for term in terms:
        for layer in term.loss.layers:
            value = term.settled(layer, features[layer])
            values[term.name] = values[term.name] + value if term.name in values else value
    return torch.stack(list(values.values())).sum(0), values


@dataclass(frozen=True)
class Place:
    """Where a style goes: `targets` come from `style`, the tensor; `mask` (1, 1, H, W) in [0, 1], None is everywhere.

    `share` is the part that the place takes in the objective: its weight times its area over the picture's.
    """

    style: Tensor
    share: float = 1.0
    mask: Tensor | None = None


def content_losses(recipe: Recipe) -> list[tuple[str, float, FeatureLoss]]:
    """The terms that need the content alone."""
    found: list[tuple[str, float, FeatureLoss]] = []
    layers = _weighed(recipe.content_layers)
    if recipe.content_weight and layers:
        found.append(("content", recipe.content_weight, ContentLoss(layers)))
    if recipe.tv_weight:
        found.append(("tv", recipe.tv_weight, TotalVariationLoss()))
    return found


def style_losses(recipe: Recipe) -> list[tuple[str, float, FeatureLoss]]:
    """The terms that compare with a style. Their weights make `style_weight` mean about the same for each objective."""
    layers = _weighed(recipe.style_layers)
    if not recipe.style_weight or not layers:
        return []
    return [("style", recipe.style_weight * factor, make(layers)) for factor, make in OBJECTIVES[recipe.objective]]


def _weighed(layers: Mapping[str, float]) -> dict[str, float]:
    return {name: weight for name, weight in layers.items() if weight}


_Make = Callable[[Mapping[str, float]], FeatureLoss]

# Factors at which each goes about as far from a photograph as `gram` does, by LPIPS: benchmarks/objectives.md has what
# was measured.
OBJECTIVES: Mapping[str, Sequence[tuple[float, _Make]]] = {
    "gram": [(1.0, lambda layers: GramLoss(layers, divide_by="chw"))],
    "gram+meanstd": [(1.0, lambda layers: GramLoss(layers, divide_by="chw")), (1e-3, MeanStdLoss)],
    "covariance": [(3e-2, CovarianceLoss)],
    "swd": [(1e-1, lambda layers: SlicedWassersteinLoss(layers, projections=_PROJECTIONS))],
    "nn": [(1e5, NearestNeighbourLoss)],
}
