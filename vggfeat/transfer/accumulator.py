"""Per-layer statistics over the tiles of a picture, and the gradient that each tile gets from them."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from vggfeat.losses.base import FeatureLoss, Features, PooledLoss
from vggfeat.transfer.objective import Term, WeightedLoss
from vggfeat.transfer.tiles import Tile


class Accumulator:
    """Accumulates per-layer statistics over tiles, then hands each tile its gradient.

    A pooled loss needs the sum of its moments over all tiles. A local loss adds up tile by tile. Any other loss needs
    the features of the whole layer, which are gathered.

    Args:
        terms: the objective, without total variation.
        gather_local: gather the features of local losses too, for their targets.
    """

    def __init__(self, terms: Sequence[Term], *, gather_local: bool = False) -> None:
        self._terms = terms
        self._gather_local = gather_local
        self._moments: dict[tuple[int, str], Tensor] = {}
        self._positions: dict[str, int] = {}
        self._gathered: dict[str, Tensor] = {}
        self._local: dict[int, Tensor] = {}
        self._gradients: dict[tuple[int, str], Tensor] = {}

    def add(self, layer: str, x: Tensor, tile: Tile, size: tuple[int, int]) -> None:
        """Add the features `x` of `tile`, in a layer whose size is (height, width)."""
        self._positions[layer] = size[0] * size[1]
        for index, term in self._reading(layer):
            if isinstance(term.loss, PooledLoss):
                moments = _moments(term.loss, term, layer, x, tile).double()
                before = self._moments.get((index, layer))
                self._moments[index, layer] = moments if before is None else before + moments
            elif self._is_local(term):
                before = self._local.get(index, x.new_zeros((), dtype=torch.float64))
                self._local[index] = before + self._share(term, layer, x, tile).double()
            else:
                if layer not in self._gathered:
                    whole = x.new_empty(1, x.shape[1], *size)
                    self._gathered[layer] = whole.contiguous(memory_format=torch.channels_last)
                tile.view(self._gathered[layer]).copy_(x)

    def targets(self, losses: Sequence[WeightedLoss]) -> list[Features]:
        """The target of each loss, once every tile was added."""
        return [
            {layer: loss.prepared(self._summary(index, loss, layer)) for layer in loss.layers if layer != "image"}
            for index, (_, _, loss) in enumerate(losses)
        ]

    def _summary(self, index: int, loss: FeatureLoss, layer: str) -> Tensor:
        masks, selections = self._terms[index].masks, self._terms[index].selections
        if isinstance(loss, PooledLoss):
            positions = self._positions[layer] if masks is None else masks[layer].sum()
            return loss.from_moments(self._moments[index, layer], positions).float()
        gathered = self._gathered[layer]
        return loss.summary(gathered if selections is None else selections[layer].of(gathered))

    def finish(self) -> dict[str, Tensor]:
        """The sum of the terms of each name, once every tile was added. Only then `gradients` may be called."""
        values: dict[str, Tensor] = {}
        gathered = {layer: x.requires_grad_() for layer, x in self._gathered.items()}
        for index, term in enumerate(self._terms):
            parts = [self._local[index].float()] if index in self._local else []
            for layer in term.loss.layers:
                if isinstance(term.loss, PooledLoss):
                    # In float64, because a difference of squares follows.
                    leaf = self._moments[index, layer].requires_grad_()
                    positions = self._positions[layer] if term.masks is None else term.masks[layer].sum()
                    distance = term.value_from_moments(term.loss, layer, leaf, positions)
                    self._gradients[index, layer] = torch.autograd.grad(distance, leaf)[0].float()
                elif self._is_local(term):
                    continue
                else:
                    distance = term.value(layer, gathered[layer])
                    (self._gradients[index, layer],) = torch.autograd.grad(distance, gathered[layer])
                parts.append(distance.detach())
            value = sum(parts[1:], parts[0])
            values[term.name] = values[term.name] + value if term.name in values else value
        self._gathered.clear()
        return values

    def gradients(self, layer: str, x: Tensor, tile: Tile) -> Iterator[tuple[Tensor, Tensor]]:
        """Pairs for `torch.autograd.grad`: an output computed from the features `x` of `tile`, and its gradient."""
        for index, term in self._reading(layer):
            if isinstance(term.loss, PooledLoss):
                yield _moments(term.loss, term, layer, x, tile), self._gradients[index, layer]
            elif self._is_local(term):
                share = self._share(term, layer, x, tile)
                yield share, torch.ones_like(share)
            else:
                yield x, tile.view(self._gradients[index, layer])

    def _reading(self, layer: str) -> Iterator[tuple[int, Term]]:
        return ((index, term) for index, term in enumerate(self._terms) if layer in term.loss.weights)

    def _is_local(self, term: Term) -> bool:
        return term.loss.local and term.selections is None and not self._gather_local

    def _share(self, term: Term, layer: str, x: Tensor, tile: Tile) -> Tensor:
        """The contribution of a tile to a local loss: its mean distance times its share of the positions."""
        target = term.target[layer]
        target = tile.view(target) if term.loss.aligned else target
        distance = term.loss.distance(term.loss.summary(x), target)
        return term.weighted(layer, distance) * (tile.area / self._positions[layer])


def _moments(loss: PooledLoss, term: Term, layer: str, x: Tensor, tile: Tile) -> Tensor:
    return loss.moments(x, None if term.masks is None else tile.view(term.masks[layer]))
