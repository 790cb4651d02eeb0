"""Evaluate an objective and its gradient: on the whole picture, or in tiles with less memory and the same gradient.

In tiles, the network runs part by part. Each part runs tile by tile, with the halo that its layers need, and only the
output of the pooling at its end is kept. The first pass accumulates the statistics that the losses need. Their
gradients give the gradient at every position of every layer, which the second pass propagates back through the parts,
computing each tile again. That costs half as much again, so the last parts, which hold few of the activations and do
most of the work, keep their graph if memory allows.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vggfeat.features.extractor import FeatureExtractor, Part
from vggfeat.losses.base import Features
from vggfeat.losses.variation import TotalVariationLoss
from vggfeat.pictures import padding
from vggfeat.transfer.accumulator import Accumulator
from vggfeat.transfer.objective import Term, WeightedLoss, total
from vggfeat.transfer.optimise import LossAndGradient
from vggfeat.transfer.recipe import Edges
from vggfeat.transfer.tiles import Blocks, Tile


class Whole:
    """Evaluates an objective on the whole picture at once.

    Args:
        extract: the network.
        margin: pixels added around a picture; they are cut off its features again.
        edges: what the margin holds: the mirror image of the picture, or its opposite edge (`wrap`).
    """

    blocks: Blocks | None = None

    def __init__(self, extract: FeatureExtractor, margin: int, edges: Edges = "mirror") -> None:
        self.extract = extract
        self._margin = margin
        self._edges: Edges = edges
        self._parts = extract.parts()
        self._stride = {layer.name: layer.stride for part in self._parts for layer in part.stack}

    def margin(self, image: Tensor) -> int:
        """The margin of `image` (1, 3, H, W) in pixels: 0 if a side is too short to be mirrored."""
        return self._margin if self._edges == "wrap" or min(image.shape[2:]) > self._margin else 0

    def pad(self, image: Tensor) -> Tensor:
        """`image` with its margin."""
        margin = self.margin(image)
        pad = padding.wrap_pad if self._edges == "wrap" else padding.mirror_pad
        return pad(image, margin) if margin else image

    def sizes(self, image: Tensor) -> dict[str, tuple[int, int]]:
        """{layer: (height, width)} of the features of `image`, without the margin."""
        margin = self.margin(image)
        height, width = (side + 2 * margin for side in image.shape[2:])
        found: dict[str, tuple[int, int]] = {}
        for part in self._parts:
            for layer in part.stack:
                height, width = layer.output_side(height), layer.output_side(width)
                cut = 2 * (margin // layer.stride)
                found[layer.name] = height - cut, width - cut
        return found

    def features(self, image: Tensor) -> Features:
        """The features of `image` (1, 3, H, W) in [0, 1], without the margin, and the image itself."""
        margin = self.margin(image)
        features = self.extract(self.pad(image))
        inner = {name: padding.crop(x, margin // self._stride[name]) for name, x in features.items()}
        return {**inner, "image": image}

    def targets(self, image: Tensor, losses: Sequence[WeightedLoss], masks: Features | None = None) -> list[Features]:
        """The target of each loss, computed from `image`; `masks` as in `Evaluator.targets`."""
        with torch.no_grad():
            features = self.features(image)
            return [loss.term({}, masks=masks, device=image.device).target_of(features) for loss in losses]

    def evaluate(self, terms: Sequence[Term], image: Tensor) -> LossAndGradient:
        """The objective at `image` (1, 3, H, W) and its gradient."""
        image = image.detach().requires_grad_()
        loss, values = total(terms, self.features(image))
        (gradient,) = torch.autograd.grad(loss, image)
        values = {name: value.detach() for name, value in values.items()}
        return LossAndGradient(loss.detach(), gradient.contiguous(), values)


class _Saved(NamedTuple):
    """The input of a part, and the features and output of the part if its graph was kept."""

    plane: Tensor
    result: tuple[dict[str, Tensor], Tensor] | None = None


class _Crop(NamedTuple):
    """The positions of a layer that one tile contributes: `source` in its features, `target` in the whole layer."""

    layer: str
    source: Tile
    target: Tile


class Blockwise(Whole):
    """Evaluates an objective in tiles. Arguments as in `Whole`, with the tiles described by `blocks`."""

    def __init__(self, extract: FeatureExtractor, margin: int, blocks: Blocks, edges: Edges = "mirror") -> None:
        super().__init__(extract, margin, edges)
        self.blocks = self._blocks = blocks
        self._tiled = self._parts[: blocks.tiled]

    def targets(self, image: Tensor, losses: Sequence[WeightedLoss], masks: Features | None = None) -> list[Features]:
        """The target of each loss, computed from `image`; `masks` as in `Evaluator.targets`."""
        with torch.no_grad():
            terms = [loss.term({}, masks=masks, device=image.device) for loss in losses]
            sums = Accumulator(terms, gather_local=True)
            self._forward(self._normalised(image), image, sums)
            return sums.targets(losses)

    def evaluate(self, terms: Sequence[Term], image: Tensor) -> LossAndGradient:
        """The objective at `image` (1, 3, H, W) and its gradient."""
        leaf = image.detach().requires_grad_()
        padded = self._normalised(leaf)
        sums = Accumulator([term for term in terms if not isinstance(term.loss, TotalVariationLoss)])
        saved = self._forward(padded.detach(), image, sums)
        values = sums.finish()
        inner = self._backward(saved, image, sums)
        (gradient,) = torch.autograd.grad(padded, leaf, inner.to(padded.dtype), retain_graph=True)
        del saved, inner
        for term in terms:
            if isinstance(term.loss, TotalVariationLoss):
                value = term.value("image", leaf)
                gradient = gradient + torch.autograd.grad(value, leaf)[0]
                values[term.name] = value.detach()
        return LossAndGradient(torch.stack(list(values.values())).sum(0), gradient.contiguous(), values)

    def _normalised(self, image: Tensor) -> Tensor:
        padded = self.extract.normalised(self.pad(image))
        return padded.contiguous(memory_format=torch.channels_last)

    def _forward(self, plane: Tensor, image: Tensor, sums: Accumulator) -> list[_Saved]:
        """Run all parts and accumulate what the losses need; return what the backward pass needs."""
        sizes = self.sizes(image)
        saved: list[_Saved] = []
        for part in self._parts:
            if part in self._tiled or not torch.is_grad_enabled():
                if torch.is_grad_enabled():
                    saved.append(_Saved(plane))
                with torch.no_grad():
                    plane = self._forward_in_tiles(part, plane, image, sums)
                continue
            plane = plane.detach().requires_grad_()
            features, out = part(plane)
            saved.append(_Saved(plane, (features, out)))
            tile = Tile.covering(plane)
            with torch.no_grad():
                for layer, source, target in self._crops(part, tile, tile, image):
                    sums.add(layer, source.view(features[layer]), target, sizes[layer])
            plane = out
        return saved

    def _forward_in_tiles(self, part: Part, plane: Tensor, image: Tensor, sums: Accumulator) -> Tensor:
        """Run one part and accumulate; return the input of the next part, or `plane` after the last."""
        sizes = self.sizes(image)
        after: Tensor | None = None
        for tile in self._tiles(part, plane):
            outer = tile.grown(part.halo, *plane.shape[2:])
            features, out = part(_copy(outer.view(plane)))
            for layer, source, target in self._crops(part, tile, outer, image):
                sums.add(layer, source.view(features[layer]), target, sizes[layer])
            if part is self._parts[-1]:
                continue
            if after is None:
                sides = [part.last.output_side(side) for side in plane.shape[2:]]
                after = out.new_empty(1, out.shape[1], *sides).contiguous(memory_format=torch.channels_last)
            source, target = _through_pooling(part, tile, outer, after)
            target.view(after).copy_(source.view(out))
        return plane if after is None else after

    def _backward(self, saved: list[_Saved], image: Tensor, sums: Accumulator) -> Tensor:
        """The gradient at the input of the first part; `saved` is emptied on the way."""
        gradient: Tensor | None = None
        for part in reversed(self._parts):
            plane, result = saved.pop()
            before = torch.zeros_like(plane)
            for tile in self._tiles(part, plane) if result is None else [Tile.covering(plane)]:
                outer = tile.grown(part.halo, *plane.shape[2:])
                x = plane if result else _copy(outer.view(plane)).requires_grad_()
                features, out = result or part(x)
                pairs = [
                    pair
                    for layer, source, target in self._crops(part, tile, outer, image)
                    for pair in sums.gradients(layer, source.crop(features[layer]), target)
                ]
                if gradient is not None:
                    source, target = _through_pooling(part, tile, outer, gradient)
                    pairs.append((source.crop(out), target.view(gradient)))
                if pairs:
                    outputs, gradients = zip(*pairs, strict=True)
                    (found,) = torch.autograd.grad(outputs, x, gradients)
                    outer.view(before).add_(found)
            gradient = before
        assert gradient is not None  # noqa: S101 (there is at least one part)
        return gradient

    def _tiles(self, part: Part, plane: Tensor) -> Iterator[Tile]:
        side = self._blocks.side_in(part.last.channels)
        height, width = plane.shape[2:]
        for top in range(0, height, side):
            for left in range(0, width, side):
                yield Tile(top, min(height, top + side), left, min(width, left + side))

    def _crops(self, part: Part, tile: Tile, outer: Tile, image: Tensor) -> Iterator[_Crop]:
        """The contribution of `tile` to each layer of a part that ran on `outer`."""
        sizes = self.sizes(image)
        for layer in part.layers:
            step = layer.stride // part.stride
            cut = self.margin(image) // layer.stride
            height, width = (side + 2 * cut for side in sizes[layer.name])
            own, origin = (
                (tile, outer) if step == 1 else (tile.shrunk(step, height, width), outer.shrunk(step, height, width))
            )
            own = own.within(Tile(cut, height - cut, cut, width - cut))
            if own.area:
                yield _Crop(layer.name, own.relative_to(origin), own.relative_to(Tile(cut, 0, cut, 0)))


def _through_pooling(part: Part, tile: Tile, outer: Tile, after: Tensor) -> tuple[Tile, Tile]:
    """Where a tile ends up behind a part's pooling: in the output of `outer`, and in the whole plane `after`."""
    step, (height, width) = part.last.step, after.shape[2:]
    target = tile.shrunk(step, height, width)
    return target.relative_to(outer.shrunk(step, height, width)), target


def _copy(view: Tensor) -> Tensor:
    """A channels_last copy that shares no memory with `view`."""
    return view.detach().clone(memory_format=torch.channels_last)
