"""The objective of a run: weighted losses over features, each with its target and an optional mask."""

from collections.abc import Callable, Iterable, Mapping, Sequence
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

# Projections of the sliced distance: more of them do not change the pictures visibly.
_PROJECTIONS = 64


class Term(NamedTuple):
    """One weighted loss.

    Args:
        name: of the sum that the term is reported in: `content`, `style`, `tv` or `dream`.
        weight: at least 0.
        loss: reads features.
        target: what `loss.target` returned.
        masks: {layer: weights of the positions, (1, 1, h, w) in [0, 1]}; None weighs all positions equally.
    """

    name: str
    weight: float
    loss: FeatureLoss
    target: Features
    masks: Features | None = None

    def value(self, layer: str, x: Tensor) -> Tensor:
        """The weighted distance between all features `x` (1, C, h, w) of one layer and the target: a scalar."""
        mask = None if self.masks is None else self.masks[layer]
        loss = self.loss
        if isinstance(loss, TotalVariationLoss):
            return self.weight * loss({"image": x}, {})
        if isinstance(loss, PooledLoss) and mask is not None:
            return self.value_from_moments(loss, layer, loss.moments(x, mask), mask.sum())
        return self._value_from_summary(layer, loss.summary(x if mask is None else select(x, mask)))

    def value_from_moments(self, loss: PooledLoss, layer: str, moments: Tensor, positions: Tensor | float) -> Tensor:
        """The same, from the `moments` of one layer that the term's `loss` summed over `positions`: a scalar."""
        return self._value_from_summary(layer, loss.from_moments(moments, positions).to(self.target[layer].dtype))

    def weighted(self, layer: str, distance: Tensor) -> Tensor:
        """The distance (1,) of one layer times the weights of the term and the layer: a scalar."""
        return self.weight * self.loss.weights[layer] * distance.sum()

    def _value_from_summary(self, layer: str, summary: Tensor) -> Tensor:
        return self.weighted(layer, self.loss.distance(summary, self.loss.matching(self.target, layer, summary)))


def select(x: Tensor, mask: Tensor) -> Tensor:
    """The positions of `x` (1, C, H, W) where `mask` (1, 1, H, W) is at least 0.5: (1, C, 1, P).

    For losses that cannot weigh positions. The position of the largest mask value is always selected.
    """
    inside = mask[0, 0] >= min(0.5, float(mask.max()))
    return x[:, :, inside][:, :, None]


def total(terms: Iterable[Term], features: Features) -> tuple[Tensor, dict[str, Tensor]]:
    """The objective at the features of a whole picture, and the sum of the terms of each name: scalars."""
    values: dict[str, Tensor] = {}
    for term in terms:
        for layer in term.loss.layers:
            value = term.value(layer, features[layer])
            values[term.name] = values[term.name] + value if term.name in values else value
    return torch.stack(list(values.values())).sum(0), values


class WeightedLoss(NamedTuple):
    """A loss with its name and weight, before its target is known."""

    name: str
    weight: float
    loss: FeatureLoss

    def term(self, target: Features, *, share: float = 1.0, masks: Features | None = None) -> Term:
        """The term with this target; `share` multiplies the weight."""
        return Term(self.name, self.weight * share, self.loss, target, masks)


def content_losses(recipe: Recipe) -> list[WeightedLoss]:
    """The losses that need no style: the content's and the total variation's."""
    found: list[WeightedLoss] = []
    layers = _nonzero(recipe.content_layers)
    if recipe.content_weight and layers:
        found.append(WeightedLoss("content", recipe.content_weight, ContentLoss(layers)))
    if recipe.tv_weight:
        found.append(WeightedLoss("tv", recipe.tv_weight, TotalVariationLoss()))
    return found


def style_losses(recipe: Recipe) -> list[WeightedLoss]:
    """The losses of the recipe's objective, scaled so that `style_weight` means about the same for each objective."""
    layers = _nonzero(recipe.style_layers)
    if not recipe.style_weight or not layers:
        return []
    made = OBJECTIVES[recipe.objective]
    return [WeightedLoss("style", recipe.style_weight * factor, make(layers)) for factor, make in made]


def _nonzero(layers: Mapping[str, float]) -> dict[str, float]:
    return {name: weight for name, weight in layers.items() if weight}


_Make = Callable[[Mapping[str, float]], FeatureLoss]

OBJECTIVES: Mapping[str, Sequence[tuple[float, _Make]]] = {
    "gram": [(1.0, lambda layers: GramLoss(layers, divide_by="chw"))],
    "gram+meanstd": [(1.0, lambda layers: GramLoss(layers, divide_by="chw")), (1e-3, MeanStdLoss)],
    "covariance": [(3e-2, CovarianceLoss)],
    "swd": [(1e-1, lambda layers: SlicedWassersteinLoss(layers, projections=_PROJECTIONS))],
    "nn": [(1e5, NearestNeighbourLoss)],
}
"""{objective: its losses, each with a factor}.

With these factors each objective moves a photograph about as far as `gram`, by LPIPS: see benchmarks/objectives.md.
"""
