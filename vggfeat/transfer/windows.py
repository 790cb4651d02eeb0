"""Compute the targets of a style that is much larger than the picture, window by window.

Each window is enlarged and goes through the whole network, with the halo that all of its layers need. That costs more
than blocks, which run the network part by part, but the enlarged style and its features are never held in memory, only
the sums that the losses need.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vggfeat.errors import RecipeError
from vggfeat.features.extractor import FeatureExtractor
from vggfeat.losses.base import Features, PooledLoss
from vggfeat.pictures import images
from vggfeat.transfer.accumulator import Accumulator
from vggfeat.transfer.blocks import Whole
from vggfeat.transfer.objective import WeightedLoss
from vggfeat.transfer.tiles import Tile

# Sides of windows to choose from, in pixels.
_SIDES = (512, 256, 128, 64)
# Float32 pictures of the style's size that evaluating it in blocks holds, and planes of its largest layers in windows.
_PICTURES = 3
_ACTIVATIONS = 3.5


class Plan(NamedTuple):
    """How a style of (height, width) is evaluated: in windows of `side` pixels."""

    height: int
    width: int
    side: int


class Windows(Whole):
    """Computes the targets of a style in windows. Arguments as in `Whole`; the margin is always mirrored."""

    def __init__(self, extract: FeatureExtractor, margin: int) -> None:
        super().__init__(extract, margin)
        self._deepest = max(self._stride.values())
        reach = sum(part.halo * part.stride for part in self._parts)
        self._halo = -(-reach // self._deepest) * self._deepest

    def choose(self, height: int, width: int, losses: Sequence[WeightedLoss], budget: int) -> Plan | None:
        """The windows in which a style of `height` x `width` fits into `budget` bytes; None if it fits in blocks.

        Raises `RecipeError` if it does not fit in the smallest windows.
        """
        sizes = self.sizes(_outline(height, width))
        channels = {layer.name: layer.channels for part in self._parts for layer in part.stack}
        item = self.extract.dtype.itemsize
        gathered = {name for _, _, loss in losses if not isinstance(loss, PooledLoss) for name in loss.layers}
        kept = sum(channels[name] * sizes[name][0] * sizes[name][1] * 4 for name in gathered)
        pooled = [part.last.name for part in self._parts if part.last.kind == "pool"]
        planes = sorted(channels[name] * sizes[name][0] * sizes[name][1] * item for name in pooled)
        if kept + _PICTURES * 12 * height * width + sum(planes[-2:]) <= budget:
            return None
        most = max(layer.channels / layer.stride**2 for part in self._parts for layer in part.stack)
        needs: dict[int, int] = {}
        for side in _SIDES:
            down, across = (min(side + 2 * self._halo, each + 2 * self._margin) for each in (height, width))
            needs[side] = kept + int(_ACTIVATIONS * most * down * across * item)
            if needs[side] <= budget:
                return Plan(height, width, max(self._deepest, side))
        least = needs[_SIDES[-1]]
        raise RecipeError(
            f"at this style scale a style has {width}x{height} pixels and takes {least / 1e6:.0f} MB, "
            f"{budget / 1e6:.0f} MB are allowed: choose a smaller style scale, or allow more memory"
        )

    def windowed(
        self, picture: Tensor, plan: Plan, losses: Sequence[WeightedLoss], area: Tensor | None = None
    ) -> list[Features]:
        """The target of each loss for `picture` (1, 3, h, w) enlarged to the plan's size; `area` as in `Style`."""
        height, width, side = plan
        if height * width < picture.shape[2] * picture.shape[3]:
            picture = images.resize(picture, height, width)
        outline = _outline(height, width)
        sizes, margin = self.sizes(outline), self.margin(outline)
        masks = None if area is None else {name: images.resize(area, *sizes[name]) for name in self.extract.layers}
        whole = Tile(0, height + 2 * margin, 0, width + 2 * margin)
        with torch.no_grad():
            terms = [loss.term({}, masks=masks, device=picture.device) for loss in losses]
            sums = Accumulator(terms, gather_local=True)
            for top in range(0, whole.bottom, side):
                for left in range(0, whole.right, side):
                    tile = Tile(top, top + side, left, left + side).within(whole)
                    outer = tile.grown(self._halo, whole.bottom, whole.right)
                    window = self.extract.normalised(_enlarged(picture, (height, width), outer, margin))
                    plane = window.contiguous(memory_format=torch.channels_last)
                    del window
                    places = self._contributions(tile, outer, sizes, margin)
                    for part in self._parts:
                        features, plane = part(plane)
                        for layer, x in features.items():
                            if layer in places:
                                source, target = places[layer]
                                sums.add(layer, source.view(x), target, sizes[layer])
                        del features  # before the next part needs memory
            return sums.targets(losses)

    def _contributions(
        self, tile: Tile, outer: Tile, sizes: Mapping[str, tuple[int, int]], margin: int
    ) -> dict[str, tuple[Tile, Tile]]:
        """{layer: (the positions of `tile` in the features of `outer`, and in the whole layer)}."""
        places: dict[str, tuple[Tile, Tile]] = {}
        for layer in self.extract.layers:
            stride = self._stride[layer]
            cut = margin // stride
            height, width = (side + 2 * cut for side in sizes[layer])
            own = tile.shrunk(stride, height, width).within(Tile(cut, height - cut, cut, width - cut))
            if own.area:
                origin = outer.shrunk(stride, height, width)
                places[layer] = own.relative_to(origin), own.relative_to(Tile(cut, 0, cut, 0))
        return places


def _outline(height: int, width: int) -> Tensor:
    """A picture that has a size but no pixels."""
    return torch.empty((), device="meta").expand(1, 3, height, width)


def _enlarged(picture: Tensor, size: tuple[int, int], tile: Tile, margin: int) -> Tensor:
    """The tile of `picture` resized to (height, width) `size`, bilinear, and mirrored at a margin."""
    for axis, first, last, side in ((2, tile.top, tile.bottom, size[0]), (3, tile.left, tile.right, size[1])):
        places = (torch.arange(first, last, dtype=torch.float64) - margin).abs()
        places = torch.where(places > side - 1, 2 * (side - 1) - places, places)
        before = picture.shape[axis]
        places = ((places + 0.5) * (before / side) - 0.5).clamp(0, before - 1)
        low = places.long()
        share = (places - low).to(picture.device, picture.dtype)
        indices = (index.to(picture.device) for index in (low, (low + 1).clamp(max=before - 1)))
        near, far = (picture.index_select(axis, index) for index in indices)
        picture = torch.lerp(near, far, share.view(-1, 1) if axis == 2 else share)
    return picture
