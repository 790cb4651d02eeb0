"""The objective and its gradient, of a picture at once or block by block: the same gradient in less memory.

Block by block, the network runs one part after the other, each in tiles with the halo that its layers see, and only
what passes a pooling is kept. The first pass sums up what the losses need; their gradients to these sums then tell
every position of every layer what it contributes, and a second pass takes that back through the parts, computing each
tile once more. What is computed twice costs half as much again: so the last parts, which hold a small share of the
values and do most of the work, keep their graph where the memory allows it.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vggfeat.features.extractor import FeatureExtractor, Part
from vggfeat.losses.base import FeatureLoss, Features, PooledLoss
from vggfeat.losses.variation import TotalVariationLoss
from vggfeat.pictures import padding
from vggfeat.transfer.objective import Term, total
from vggfeat.transfer.optimise import Evaluation
from vggfeat.transfer.recipe import Edges

# Channels of a VGG network's first part.
_FIRST_CHANNELS = 64


class Blocks(NamedTuple):
    """How a picture is divided.

    `side`: of a tile, in pixels of the picture; where there are more channels it has fewer positions. `tiled`: how many
    of the network's first parts are looked at in tiles, and twice; None for all.
    """

    side: int
    tiled: int | None = None

    def side_in(self, channels: int) -> int:
        """Positions of a tile's side in a part: tiles of one number of values, whose sides a pooling divides."""
        return 2 * max(4, round(self.side / 2 * (_FIRST_CHANNELS / channels) ** 0.5))


class _Look(NamedTuple):
    """A part's input, and what the part made of it where its graph is there."""

    plane: Tensor
    made: tuple[dict[str, Tensor], Tensor] | None = None


class Tile(NamedTuple):
    """A rectangle of rows `top` to `bottom` and columns `left` to `right`, the ends not included."""

    top: int
    bottom: int
    left: int
    right: int

    def grown(self, halo: int, height: int, width: int) -> "Tile":
        """The tile with `halo` more on each side, as far as the plane goes."""
        return Tile(
            max(0, self.top - halo),
            min(height, self.bottom + halo),
            max(0, self.left - halo),
            min(width, self.right + halo),
        )

    def shrunk(self, step: int, height: int, width: int) -> "Tile":
        """What becomes of the tile behind a pooling of `step` that yields `height` x `width`."""
        return Tile(
            self.top // step,
            min(height, -(-self.bottom // step)),
            self.left // step,
            min(width, -(-self.right // step)),
        )

    def within(self, other: "Tile") -> "Tile":
        """What the tile and `other` share."""
        return Tile(
            max(self.top, other.top),
            min(self.bottom, other.bottom),
            max(self.left, other.left),
            min(self.right, other.right),
        )

    def seen_from(self, origin: "Tile") -> "Tile":
        """The tile, counted from the corner of `origin`."""
        return Tile(self.top - origin.top, self.bottom - origin.top, self.left - origin.left, self.right - origin.left)

    def of(self, plane: Tensor) -> Tensor:
        """The tile's part of (N, C, H, W), a view to read or write."""
        return plane[:, :, self.top : self.bottom, self.left : self.right]

    def cut_from(self, features: Tensor) -> Tensor:
        """Likewise, a view whose gradient keeps the memory layout."""
        return padding.window(features, *self)

    @property
    def area(self) -> int:
        """Positions; 0 where the tile is empty."""
        return max(0, self.bottom - self.top) * max(0, self.right - self.left)


class Whole:
    """Looks at a picture at once.

    Args:
        extract: the network.
        margin: pixels put around a picture, and cut off its features again.
        edges: whether they are the picture's mirror image, or itself, so that one edge meets the other.
    """

    def __init__(self, extract: FeatureExtractor, margin: int, edges: Edges = "mirror") -> None:
        self.extract = extract
        self._margin = margin
        self._edges: Edges = edges
        self._stride = {layer.name: layer.stride for part in extract.parts() for layer in part.layers}

    def margin(self, image: Tensor) -> int:
        """The margin of `image`: a small one gets none that is mirrored."""
        return self._margin if self._edges == "wrap" or min(image.shape[2:]) > self._margin else 0

    def surrounded(self, image: Tensor) -> Tensor:
        """`image` with its margin."""
        margin = self.margin(image)
        pad = padding.wrap_pad if self._edges == "wrap" else padding.mirror_pad
        return pad(image, margin) if margin else image

    def features(self, image: Tensor) -> Features:
        """The features of `image`, and the image itself."""
        margin = self.margin(image)
        features = self.extract(self.surrounded(image))
        inner = {name: padding.crop(x, margin // self._stride[name]) for name, x in features.items()}
        return {**inner, "image": image}

    def targets(self, image: Tensor, losses: Sequence[FeatureLoss]) -> list[Features]:
        """What each loss compares with, of the target `image`."""
        with torch.no_grad():
            features = self.features(image)
            return [loss.target(features) for loss in losses]

    def evaluate(self, terms: Sequence[Term], image: Tensor) -> Evaluation:
        """The objective at `image` and its gradient."""
        image = image.detach().requires_grad_()
        loss, values = total(terms, self.features(image))
        (gradient,) = torch.autograd.grad(loss, image)
        values = {name: value.detach() for name, value in values.items()}
        return Evaluation(loss.detach(), gradient.contiguous(), values)


class Blockwise(Whole):
    """Looks at a picture in tiles."""

    def __init__(self, extract: FeatureExtractor, margin: int, blocks: Blocks, edges: Edges = "mirror") -> None:
        super().__init__(extract, margin, edges)
        self.blocks = blocks
        self._parts = extract.parts()
        self._tiled = self._parts[: blocks.tiled]

    def targets(self, image: Tensor, losses: Sequence[FeatureLoss]) -> list[Features]:
        """What each loss compares with, of the target `image`."""
        with torch.no_grad():
            sums = _Sums([Term("", 1.0, loss, {}) for loss in losses], keep_local=True)
            self._look(self._padded(image), image, sums)
            return [
                {
                    layer: loss.from_moments(sums.moments[index, layer], sums.positions[layer]).float()
                    if isinstance(loss, PooledLoss)
                    else loss.summary(sums.gathered[layer])
                    for layer in loss.layers
                    if layer != "image"
                }
                for index, loss in enumerate(losses)
            ]

    def evaluate(self, terms: Sequence[Term], image: Tensor) -> Evaluation:
        """The objective at `image` and its gradient."""
        leaf = image.detach().requires_grad_()
        padded = self._padded(leaf)
        reading = [term for term in terms if not isinstance(term.loss, TotalVariationLoss)]
        sums = _Sums(reading)
        looks = self._look(padded.detach(), image, sums)
        values = sums.settle()
        inner = self._back(looks, image, sums)
        (gradient,) = torch.autograd.grad(padded, leaf, inner.to(padded.dtype), retain_graph=True)
        del looks, inner
        for term in terms:
            if isinstance(term.loss, TotalVariationLoss):
                value = term.settled("image", leaf)
                gradient = gradient + torch.autograd.grad(value, leaf)[0]
                values[term.name] = value.detach()
        return Evaluation(torch.stack(list(values.values())).sum(0), gradient.contiguous(), values)

    def _padded(self, image: Tensor) -> Tensor:
        padded = self.extract.normalised(self.surrounded(image))
        return padded.contiguous(memory_format=torch.channels_last)

    def _look(self, plane: Tensor, image: Tensor, sums: "_Sums") -> list[_Look]:
        """Sum up what the losses need; return what was made of the picture on the way."""
        looks: list[_Look] = []
        for part in self._parts:
            if part in self._tiled or not torch.is_grad_enabled():
                looks.append(_Look(plane))
                with torch.no_grad():
                    plane = self._look_in_tiles(part, plane, image, sums)
                continue
            plane = plane.detach().requires_grad_()
            features, out = part(plane)
            looks.append(_Look(plane, (features, out)))
            tile = _all_of(plane)
            with torch.no_grad():
                for layer, here, there in self._owned(part, plane, tile, tile, image):
                    sums.add(layer, here.of(features[layer]), there, self._inner(part, layer, plane, image))
            plane = out
        return looks

    def _look_in_tiles(self, part: Part, plane: Tensor, image: Tensor, sums: "_Sums") -> Tensor:
        """Sum up what the losses need of a part; return the next one's input, or `plane` behind the last."""
        after: Tensor | None = None
        for tile in self._tiles(part, plane):
            seen = tile.grown(part.halo, *plane.shape[2:])
            features, out = part(_own(seen.of(plane)))
            for layer, here, there in self._owned(part, plane, tile, seen, image):
                sums.add(layer, here.of(features[layer]), there, self._inner(part, layer, plane, image))
            if part is self._parts[-1]:
                continue
            if after is None:
                sides = [part.last.output_side(side) for side in plane.shape[2:]]
                after = out.new_empty(1, out.shape[1], *sides).contiguous(memory_format=torch.channels_last)
            step = part.last.step
            lands = tile.shrunk(step, *after.shape[2:])
            lands.of(after).copy_(lands.seen_from(seen.shrunk(step, *after.shape[2:])).of(out))
        return plane if after is None else after

    def _back(self, looks: list[_Look], image: Tensor, sums: "_Sums") -> Tensor:
        """The gradient at the input of the first part."""
        gradient: Tensor | None = None
        for part in reversed(self._parts):
            plane, made = looks.pop()
            before = torch.zeros_like(plane)
            for tile in self._tiles(part, plane) if made is None else [_all_of(plane)]:
                seen = tile.grown(part.halo, *plane.shape[2:])
                x = plane if made else _own(seen.of(plane)).requires_grad_()
                features, out = made or part(x)
                outputs: list[Tensor] = []
                pulls: list[Tensor] = []
                for layer, here, there in self._owned(part, plane, tile, seen, image):
                    for output, pull in sums.pulls(layer, here.cut_from(features[layer]), there):
                        outputs.append(output)
                        pulls.append(pull)
                if gradient is not None:
                    step = part.last.step
                    lands = tile.shrunk(step, *gradient.shape[2:])
                    outputs.append(lands.seen_from(seen.shrunk(step, *gradient.shape[2:])).cut_from(out))
                    pulls.append(lands.of(gradient))
                if outputs:
                    (found,) = torch.autograd.grad(outputs, x, pulls)
                    seen.of(before).add_(found)
            gradient = before
        assert gradient is not None  # noqa: S101 (there is at least one part)
        return gradient

    def _tiles(self, part: Part, plane: Tensor) -> Iterator[Tile]:
        side = self.blocks.side_in(part.last.channels)
        height, width = plane.shape[2:]
        for top in range(0, height, side):
            for left in range(0, width, side):
                yield Tile(top, min(height, top + side), left, min(width, left + side))

    def _inner(self, part: Part, layer: str, plane: Tensor, image: Tensor) -> tuple[int, int]:
        """Height and width of a layer's features once the margin is cut off."""
        cut = 2 * (self.margin(image) // self._stride[layer])
        height, width = _size(part, layer, plane)
        return height - cut, width - cut

    def _owned(
        self, part: Part, plane: Tensor, tile: Tile, seen: Tile, image: Tensor
    ) -> Iterator[tuple[str, Tile, Tile]]:
        """For each layer of a part what a tile owns of it: where in the tile's features, and where in the layer's."""
        for layer in part.layers:
            step = layer.stride // part.stride
            cut = self.margin(image) // layer.stride
            height, width = _size(part, layer.name, plane)
            mine, origin = (
                (tile, seen) if step == 1 else (tile.shrunk(step, height, width), seen.shrunk(step, height, width))
            )
            mine = mine.within(Tile(cut, height - cut, cut, width - cut))
            if mine.area:
                yield layer.name, mine.seen_from(origin), mine.seen_from(Tile(cut, 0, cut, 0))


class _Sums:
    """What the tiles of a picture add up to, for each term and layer, and what that says to each tile."""

    def __init__(self, terms: Sequence[Term], *, keep_local: bool = False) -> None:
        self.terms = terms
        self.moments: dict[tuple[int, str], Tensor] = {}
        self.positions: dict[str, int] = {}
        self.gathered: dict[str, Tensor] = {}
        self._local: dict[int, Tensor] = {}
        self._pulls: dict[tuple[int, str], Tensor] = {}
        self._keep_local = keep_local

    def _reading(self, layer: str) -> Iterator[tuple[int, Term]]:
        return ((index, term) for index, term in enumerate(self.terms) if layer in term.loss.weights)

    def _is_local(self, term: Term) -> bool:
        return term.loss.local and term.masks is None and not self._keep_local

    def add(self, layer: str, x: Tensor, place: Tile, inner: tuple[int, int]) -> None:
        """Take in the features `x` that a tile owns at `place` of a layer of the size `inner`."""
        self.positions[layer] = inner[0] * inner[1]
        for index, term in self._reading(layer):
            if isinstance(term.loss, PooledLoss):
                moments = self._moments(term, layer, x, place).double()
                known = self.moments.get((index, layer))
                self.moments[index, layer] = moments if known is None else known + moments
            elif self._is_local(term):
                known = self._local.get(index, x.new_zeros((), dtype=torch.float64))
                self._local[index] = known + self._part(term, layer, x, place).double()
            else:
                if layer not in self.gathered:
                    whole = x.new_empty(1, x.shape[1], *inner)
                    self.gathered[layer] = whole.contiguous(memory_format=torch.channels_last)
                place.of(self.gathered[layer]).copy_(x)

    def settle(self) -> dict[str, Tensor]:
        """The value of each name's terms. From here on `pulls` can be asked."""
        values: dict[str, Tensor] = {}
        gathered = {layer: x.requires_grad_() for layer, x in self.gathered.items()}
        for index, term in enumerate(self.terms):
            value = self._local.get(index, torch.zeros((), dtype=torch.float64)).float()
            for layer in term.loss.layers:
                if isinstance(term.loss, PooledLoss):
                    # In float64, since a difference of squares follows.
                    leaf = self.moments[index, layer].requires_grad_()
                    mask = None if term.masks is None else term.masks[layer].sum()
                    distance = term.judged(layer, leaf, self.positions[layer] if mask is None else mask)
                    self._pulls[index, layer] = torch.autograd.grad(distance, leaf)[0].float()
                elif self._is_local(term):
                    continue
                else:
                    distance = term.settled(layer, gathered[layer])
                    (self._pulls[index, layer],) = torch.autograd.grad(distance, gathered[layer])
                value = value.to(distance.device) + distance.detach()
            values[term.name] = values[term.name] + value if term.name in values else value
        self.gathered.clear()
        return values

    def pulls(self, layer: str, x: Tensor, place: Tile) -> Iterator[tuple[Tensor, Tensor]]:
        """What is to be differentiated of the features `x` that a tile owns, and the gradient there."""
        for index, term in self._reading(layer):
            if isinstance(term.loss, PooledLoss):
                yield self._moments(term, layer, x, place), self._pulls[index, layer]
            elif self._is_local(term):
                part = self._part(term, layer, x, place)
                yield part, torch.ones_like(part)
            else:
                yield x, place.of(self._pulls[index, layer])

    def _moments(self, term: Term, layer: str, x: Tensor, place: Tile) -> Tensor:
        assert isinstance(term.loss, PooledLoss)  # noqa: S101 (its callers have looked)
        return term.loss.moments(x, None if term.masks is None else place.of(term.masks[layer]))

    def _part(self, term: Term, layer: str, x: Tensor, place: Tile) -> Tensor:
        """A tile's share of a local loss: its mean distance times its share of the positions."""
        target = term.target[layer]
        target = place.of(target) if term.loss.aligned else target
        distance = term.loss.distance(term.loss.summary(x), target)
        return term.weigh(layer, distance) * (place.area / self.positions[layer])


def _size(part: Part, layer: str, plane: Tensor) -> tuple[int, int]:
    """Height and width of a layer's features, given its part's input."""
    height, width = plane.shape[2:]
    if layer == part.last.name:
        return part.last.output_side(height), part.last.output_side(width)
    return height, width  # within a part all but the pooling at its end keep the size


def _all_of(plane: Tensor) -> Tile:
    """The tile that is the whole plane."""
    return Tile(0, plane.shape[2], 0, plane.shape[3])


def _own(view: Tensor) -> Tensor:
    """A copy in the network's layout, that nothing else reads or keeps alive."""
    return view.detach().clone(memory_format=torch.channels_last)
