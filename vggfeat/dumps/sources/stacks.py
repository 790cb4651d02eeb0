"""Arrays of pictures: which of a file's arrays hold them, and which axis is which."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vggfeat.dumps.sources.item import Item, columns_of
from vggfeat.errors import InputError, near

Array = npt.NDArray[Any]

_CHANNELS = (1, 3, 4)


@dataclass(frozen=True, slots=True)
class Stack:
    """An array of `count` pictures: (N, H, W), (N, H, W, C), or (N, C, H, W) if `channels_first`.

    If `single`, it is one picture, (H, W, C).
    """

    count: int
    channels_first: bool = False
    single: bool = False

    @classmethod
    def of(cls, shape: Sequence[int], dtype: np.dtype[Any]) -> "Stack":
        """Recognise an array of pictures. Raises `InputError` with the reason if it is none.

        >>> Stack.of((10, 3, 32, 32), np.dtype("uint8"))
        Stack(count=10, channels_first=True, single=False)
        """
        if dtype.name not in {"uint8", "uint16", "bool"} and dtype.kind != "f":
            raise InputError(f"it holds {dtype}, and pictures are uint8, uint16, bool or floating in [0, 1]")
        if len(shape) not in {3, 4} or 0 in shape:
            raise InputError(f"its shape is {tuple(shape)}, and pictures are (N, H, W), (N, H, W, C) or (N, C, H, W)")
        if len(shape) == 3:
            if shape[0] == 3 and shape[2] not in _CHANNELS:
                raise InputError(f"its shape is {tuple(shape)}, which may be 3 grey pictures or one: give it 4 axes")
            return cls(1, single=True) if shape[2] in _CHANNELS else cls(shape[0])
        last, first = shape[3] in _CHANNELS, shape[1] in _CHANNELS
        if last == first:
            word = "either axis 1 or axis 3" if last else "neither axis 1 nor axis 3"
            raise InputError(f"its shape is {tuple(shape)}, and {word} may be the channels, which are 1, 3 or 4")
        return cls(shape[0], channels_first=first)

    def picture(self, array: Any, row: int) -> Array:
        """The picture `row` of `array`, (H, W) or (H, W, C)."""
        found = np.asarray(array[()] if self.single else array[row])
        return np.moveaxis(found, 0, -1) if self.channels_first else found

    def items(self, path: Path, name: str, labels: Mapping[str, Sequence[Any]]) -> Iterator[Item]:
        """The pictures as items of `path`; `labels`: {column: one value for each picture}."""
        for row in range(self.count):
            values = {column: _plain(found[row]) for column, found in labels.items()}
            yield Item(f"{row:06}", str(path), f"{name}/{row}" if name else str(row), columns=columns_of(values))


def stacks_of(arrays: Mapping[str, Any]) -> tuple[dict[str, Stack], dict[str, str]]:
    """{name: the stack} of the arrays that hold pictures, and {name: the reason} of the others.

    Of `arrays` only the `shape` and the `dtype` are read.
    """
    found: dict[str, Stack] = {}
    reasons: dict[str, str] = {}
    for name, array in arrays.items():
        try:
            found[name] = Stack.of(array.shape, array.dtype)
        except InputError as error:
            reasons[name] = str(error)
    return found, reasons


def chosen_stack(stacks: Mapping[str, Stack], reasons: Mapping[str, str], asked: str | None) -> str:
    """The name `asked` for, else the only stack, else the one called `image` or `images`. Raises `InputError`."""
    if asked is not None:
        if asked in reasons:
            raise InputError(f"'{asked}' is no array of pictures: {reasons[asked]}")
        if asked not in stacks:
            raise InputError(f"it has no array '{asked}': {near(asked, [*stacks, *reasons])}")
        return asked
    if len(stacks) == 1:
        return next(iter(stacks))
    if not stacks:
        told = "; ".join(f"{name}: {reason}" for name, reason in list(reasons.items())[:3])
        raise InputError(f"it holds no array of pictures ({told or 'it is empty'})")
    if known := [name for name in stacks if name.rpartition("/")[2].lower() in {"image", "images"}]:
        return known[0]
    raise InputError(f"several arrays can be pictures: name one of {', '.join(stacks)} with --column")


def is_label(shape: Sequence[int], dtype: np.dtype[Any], count: int) -> bool:
    """Whether an array beside `count` pictures is a column: one text or number for each."""
    return tuple(shape) == (count,) and dtype.kind in "iufbSUO"


def _plain(value: Any) -> object:
    value = value.item() if isinstance(value, np.generic) else value
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value
