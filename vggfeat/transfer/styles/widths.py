"""The plan of the network of instant styles, as data: its convolutions in order. This module does not import torch."""

from dataclasses import dataclass

from vggfeat.errors import check_number

CHANNELS = 3

MINIMUM_SIDE = 8
"""The least height and width of a picture, so that edges can be reflected at every level."""


@dataclass(frozen=True, slots=True)
class StyleWidths:
    """The channels of the network at full, half and quarter size, and its number of residual blocks.

    Raises `InputError` for values that are not allowed.

    >>> StyleWidths(8, 16, 32, blocks=2).as_dict()
    {'full': 8, 'half': 16, 'quarter': 32, 'blocks': 2}
    """

    full: int = 24
    half: int = 48
    quarter: int = 96
    blocks: int = 4

    def __post_init__(self) -> None:
        for name in ("full", "half", "quarter"):
            check_number(f"width at {name} size", getattr(self, name), 1, 1024)
        check_number("blocks", self.blocks, 1, 64)

    def as_dict(self) -> dict[str, int]:
        """The values that define the network."""
        return {name: getattr(self, name) for name in ("full", "half", "quarter", "blocks")}


@dataclass(frozen=True, slots=True)
class Unit:
    """One convolution of the network, with the normalisation after it.

    Args:
        name: of its parameters in the state dict.
        channels: of its input and its output.
        kernel: side of the kernel, an odd number; edges are reflected by half of it.
        stride: 1 or 2.
        enlarge: repeat each pixel 2x2 before the convolution.
        relu: apply a ReLU after the normalisation.
        level: the size of the output: 0 is that of the picture, 1 half of it, 2 a quarter.
        bounded: limit the normalised values smoothly, so that the units after it see no outliers.
        adds: name of the unit whose output is added to this one's, after the normalisation.
    """

    name: str
    channels: tuple[int, int]
    kernel: int
    stride: int = 1
    enlarge: bool = False
    relu: bool = True
    level: int = 0
    bounded: bool = True
    adds: str = ""


def units(widths: StyleWidths) -> tuple[Unit, ...]:
    """The convolutions of a network in order. Each reads the output of the one before.

    >>> [unit.name for unit in units(StyleWidths(blocks=1))]
    ['enter', 'down1', 'down2', 'block1a', 'block1b', 'up1', 'up2', 'leave']
    """
    full, half, quarter = widths.full, widths.half, widths.quarter
    found = [
        Unit("enter", (CHANNELS, full), 7),
        Unit("down1", (full, half), 3, stride=2, level=1),
        Unit("down2", (half, quarter), 3, stride=2, level=2),
    ]
    before = "down2"
    for number in range(1, widths.blocks + 1):
        found.append(Unit(f"block{number}a", (quarter, quarter), 3, level=2))
        found.append(Unit(f"block{number}b", (quarter, quarter), 3, level=2, relu=False, adds=before))
        before = f"block{number}b"
    return (
        *found,
        Unit("up1", (quarter, half), 3, enlarge=True, level=1),
        Unit("up2", (half, full), 3, enlarge=True),
        Unit("leave", (full, CHANNELS), 7, relu=False, bounded=False),
    )


def sizes(side: int) -> tuple[int, int, int]:
    """A side of a picture at each level: whole, half and quarter, rounded up.

    >>> sizes(511)
    (511, 256, 128)
    """
    half = -(-side // 2)
    return side, half, -(-half // 2)
