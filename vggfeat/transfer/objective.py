"""The objective of a run: weighted losses over features, each with its target and an optional mask."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Self, cast

import torch
from torch import Tensor

from vggfeat.losses.base import FeatureLoss, Features, PooledLoss, layer_features
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


class Selection(NamedTuple):
    """The positions of a layer that a mask selects.

    Args:
        positions: their numbers, (P,).
        places: for each position of the layer its place among them, or P if it is not selected: (H·W,).
    """

    positions: Tensor
    places: Tensor

    @classmethod
    def where(cls, mask: Tensor) -> Self:
        """Select where `mask` (1, 1, H, W) is at least 0.5; the position of its largest value is always selected."""
        inside = (mask >= mask.max().clamp(max=0.5)).flatten()
        positions = inside.nonzero()[:, 0]
        places = torch.full_like(inside, len(positions), dtype=torch.long)
        places[positions] = torch.arange(len(positions), device=mask.device)
        return cls(positions, places)

    def to(self, device: torch.device) -> Self:
        """The selection on `device`."""
        return type(self)(self.positions.to(device), self.places.to(device))

    def of(self, x: Tensor) -> Tensor:
        """The selected positions of `x` (1, C, H, W): (1, C, 1, P)."""
        return cast("Any", _Select).apply(x, *self)


class _Select(torch.autograd.Function):
    """Indexing of positions. Its gradient reads by index, since adding by index differs from run to run on CUDA."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, positions: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        ctx.size = x.shape[2:]
        return x.flatten(2).index_select(2, positions)[:, :, None]

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        (places,) = ctx.saved_tensors
        selected = grad_outputs[0].flatten(2)
        padded = torch.cat([selected, torch.zeros_like(selected[:, :, :1])], dim=2)
        return padded.index_select(2, places).unflatten(2, ctx.size), None, None


class Term(NamedTuple):
    """One weighted loss.

    Args:
        name: of the sum that the term is reported in: `content`, `style`, `tv` or `dream`.
        weight: at least 0.
        loss: reads features.
        target: what `loss.target` returned.
        masks: {layer: weights of the positions, (1, 1, h, w) in [0, 1]}; None weighs all positions equally.
        selections: {layer: positions that are compared}, in place of `masks` for losses that cannot weigh positions;
            None compares all positions.
    """

    name: str
    weight: float
    loss: FeatureLoss
    target: Features
    masks: Features | None = None
    selections: Mapping[str, Selection] | None = None

    def value(self, layer: str, x: Tensor) -> Tensor:
        """The weighted distance between all features `x` (1, C, h, w) of one layer and the target: a scalar."""
        mask = None if self.masks is None else self.masks[layer]
        loss = self.loss
        if isinstance(loss, TotalVariationLoss):
            return self.weight * loss({"image": x}, {})
        if isinstance(loss, PooledLoss) and mask is not None:
            return self.value_from_moments(loss, layer, loss.moments(x, mask), mask.sum())
        x = x if self.selections is None else self.selections[layer].of(x)
        return self.weighted(layer, loss.compare(x, layer_features(self.target, layer), layer))

    def target_of(self, features: Features) -> Features:
        """The target that the features of a picture make, where each position counts as the term's masks say."""
        loss = self.loss
        if self.masks is not None and isinstance(loss, PooledLoss):
            moments = {name: loss.moments(features[name], mask) for name, mask in self.masks.items()}
            return {
                name: loss.prepared(loss.from_moments(moments[name], mask.sum())) for name, mask in self.masks.items()
            }
        if self.selections is not None:
            features = {name: chosen.of(features[name]) for name, chosen in self.selections.items()}
        return loss.target(features)

    def value_from_moments(self, loss: PooledLoss, layer: str, moments: Tensor, positions: Tensor | float) -> Tensor:
        """The same, from the `moments` of one layer that the term's `loss` summed over `positions`: a scalar."""
        summary = loss.from_moments(moments, positions).to(self.target[layer].dtype)
        return self.weighted(layer, loss.distance(summary, loss.matching(self.target, layer, summary)))

    def weighted(self, layer: str, distance: Tensor) -> Tensor:
        """The distance (1,) of one layer times the weights of the term and the layer: a scalar."""
        return self.weight * self.loss.weights[layer] * distance.sum()


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

    def term(
        self,
        target: Features,
        *,
        share: float = 1.0,
        masks: Features | None = None,
        device: torch.device | None = None,
    ) -> Term:
        """The term with this target; `share` multiplies the weight.

        `masks` may be on another device than the features, which is that of the target, or `device`.
        """
        weight = self.weight * share
        if masks is None:
            return Term(self.name, weight, self.loss, target)
        masks = {name: masks[name] for name in self.loss.layers}
        device = device or next(iter(target.values())).device
        if isinstance(self.loss, PooledLoss):
            return Term(self.name, weight, self.loss, target, {name: mask.to(device) for name, mask in masks.items()})
        selections = {name: Selection.where(mask).to(device) for name, mask in masks.items()}
        return Term(self.name, weight, self.loss, target, selections=selections)


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
