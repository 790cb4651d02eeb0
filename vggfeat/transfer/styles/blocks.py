"""Paint a picture in blocks where memory is short, with the statistics of the whole picture.

Instance normalisation needs the mean and variance of each channel over the whole picture, so the network runs unit by
unit. Outputs at quarter size are kept whole. Outputs at full and half size are computed block by block for their
statistics, and again for each unit that reads them, which costs at most three convolutions a block.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from vggfeat.errors import InputError
from vggfeat.transfer.styles.network import StyleNetwork, enlarged
from vggfeat.transfer.styles.widths import CHANNELS, StyleWidths, Unit, sizes, units

_SIDES = (1024, 512, 256, 128)
_FLOAT = 4  # bytes

# Pictures in memory besides the network's activations: content, painting, and their copies.
_PICTURES = 4

Region = tuple[int, int, int, int]
"""Top, bottom, left and right of a part of an activation."""


def predict(widths: StyleWidths, height: int, width: int, side: int | None = None) -> int:
    """Bytes of activations that painting a picture needs, whole or in blocks of `side` pixels.

    >>> widths = StyleWidths()
    >>> predict(widths, 4000, 6000, side=256) < predict(widths, 4000, 6000) / 3
    True
    """
    pictures = _PICTURES * CHANNELS * height * width
    if side is None:
        return (pictures + max(_floats(unit, height, width) for unit in units(widths))) * _FLOAT
    quarter = widths.quarter * sizes(height)[2] * sizes(width)[2]
    block = min(side, height) + 32, min(side, width) + 32
    return (pictures + 3 * quarter + 2 * max(_floats(unit, *block) for unit in units(widths))) * _FLOAT


def _floats(unit: Unit, height: int, width: int) -> int:
    """Floats in memory while a unit runs: its input, its padded input, its output, and a residual."""
    read, written = unit.channels
    before = unit.level - 1 if unit.stride == 2 else unit.level
    positions = sizes(height)[before] * sizes(width)[before]
    return 2 * read * positions + (2 + bool(unit.adds)) * written * sizes(height)[unit.level] * sizes(width)[unit.level]


def choose(widths: StyleWidths, height: int, width: int, budget: int | None) -> int | None:
    """The side of the blocks in which a picture fits into `budget` bytes; None if it fits whole.

    Raises `InputError` if it does not fit in the smallest blocks.
    """
    if budget is None or predict(widths, height, width) <= budget:
        return None
    for side in _SIDES:
        if predict(widths, height, width, side) <= budget:
            return side
    least = predict(widths, height, width, _SIDES[-1])
    raise InputError(
        f"{width}x{height} pixels take {least / 1e6:.0f} MB even in small blocks, {budget / 1e6:.0f} MB are allowed: "
        "choose a smaller size, or allow more memory"
    )


def paint(network: StyleNetwork, picture: Tensor, mix: Tensor, side: int) -> Tensor:
    """Paint `picture` (1, 3, H, W), which is on the CPU, in blocks of `side` pixels. Returns the painting there."""
    return _Blocks(network, picture, mix).paint(side)


class _Blocks:
    """The activations that are kept whole, and the statistics of the units so far."""

    def __init__(self, network: StyleNetwork, picture: Tensor, mix: Tensor) -> None:
        self.network, self.picture, self.mix = network, picture, mix
        self.device = mix.device
        self.heights, self.widths = sizes(picture.shape[2]), sizes(picture.shape[3])
        self.before = dict(zip(network.units[1:], network.units, strict=False))
        self.whole: dict[str, Tensor] = {}
        self.statistics: dict[str, tuple[Tensor, Tensor]] = {}

    def paint(self, side: int) -> Tensor:
        last = self.network.units[-1]
        for unit in self.network.units:
            height, width = self.heights[unit.level], self.widths[unit.level]
            kept = unit.level == 2 or unit is last
            place = torch.device("cpu") if unit is last else self.device
            whole = torch.empty(1, unit.channels[1], height, width, device=place) if kept else None
            count = 0
            mean = square = torch.zeros(1, unit.channels[1], dtype=torch.float64)
            for region in _tiled(height, width, side >> unit.level):
                top, bottom, left, right = region
                x = self.convolved(unit, region)
                if whole is not None:
                    whole[:, :, top:bottom, left:right] = x
                # Chan et al. (1979): combine the moments of the parts.
                part_variance, part_mean = (value.double().cpu() for value in torch.var_mean(x, (2, 3), correction=0))
                positions = x.shape[2] * x.shape[3]
                shift = part_mean - mean
                mean = mean + shift * positions / (count + positions)
                square = square + part_variance * positions + shift.square() * count * positions / (count + positions)
                count += positions
            moments = mean.float().to(self.device), (square / count).float().to(self.device)
            self.statistics[unit.name] = moments
            if whole is not None:
                self.keep(unit, whole, side)
        return self.whole[last.name].sigmoid_()

    def keep(self, unit: Unit, whole: Tensor, side: int) -> None:
        """Normalise a whole output in place, and drop the outputs that no later unit reads."""
        for top, bottom, left, right in _tiled(whole.shape[2], whole.shape[3], side):
            part = whole[:, :, top:bottom, left:right]
            part.copy_(self.normalised(unit, part.to(self.device), (top, bottom, left, right)))
        self.whole[unit.name] = whole
        later = self.network.units[self.network.units.index(unit) + 1 :]
        needed = {unit.name, *(other.adds for other in later)}
        self.whole = {name: x for name, x in self.whole.items() if name in needed}

    def normalised(self, unit: Unit, x: Tensor, region: Region) -> Tensor:
        """The output of a unit in a region, given its convolution."""
        x = self.network.part(unit).normalise(x, *self.statistics[unit.name], self.mix)
        return x + self.cut(self.whole[unit.adds], region) if unit.adds else x

    def output(self, unit: Unit | None, region: Region) -> Tensor:
        """The output of a unit in a region; that of None is the picture."""
        if unit is None:
            return self.cut(self.picture, region).to(self.device)
        if unit.name in self.whole:
            return self.cut(self.whole[unit.name], region)
        return self.normalised(unit, self.convolved(unit, region), region)

    def convolved(self, unit: Unit, region: Region) -> Tensor:
        """The output of a unit's convolution, before normalisation, in a region."""
        before = self.before.get(unit)
        level = unit.level - (unit.stride - 1)
        top, bottom, above, below = _reach(unit, *region[:2], self.heights[level])
        left, right, before_left, after_right = _reach(unit, *region[2:], self.widths[level])
        if unit.enlarge:
            coarse = self.output(before, (top // 2, (bottom + 1) // 2, left // 2, (right + 1) // 2))
            x = self.cut(enlarged(coarse), (top % 2, top % 2 + bottom - top, left % 2, left % 2 + right - left))
        else:
            x = self.output(before, (top, bottom, left, right))
        x = x.contiguous(memory_format=torch.channels_last)
        x = self.network.part(unit).convolve(x, (before_left, after_right, above, below))
        if unit is self.network.units[-1]:
            x = x + self.output(None, region) * self.network.gated(self.mix)
        return x

    @staticmethod
    def cut(x: Tensor, region: Region) -> Tensor:
        """A region of an activation."""
        top, bottom, left, right = region
        return x[:, :, top:bottom, left:right]


def _reach(unit: Unit, start: int, stop: int, size: int) -> tuple[int, int, int, int]:
    """The range of the input that outputs `start` to `stop` read, and by how much edges are reflected at either end."""
    low, high = start * unit.stride - unit.kernel // 2, (stop - 1) * unit.stride + unit.kernel // 2 + 1
    return max(0, low), min(size, high), max(0, -low), max(0, high - size)


def _tiled(height: int, width: int, side: int) -> Iterator[Region]:
    """Regions of at most `side` positions a side that cover an activation."""
    for top in range(0, height, side):
        for left in range(0, width, side):
            yield top, min(height, top + side), left, min(width, left + side)
