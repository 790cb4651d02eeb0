"""Arrays of pictures in numpy's files."""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any
from zipfile import BadZipFile
from zlib import error as ZlibError

import numpy as np

from vggfeat.dumps.sources.filtering import SourceFilter
from vggfeat.dumps.sources.item import Item, printable, unreadable
from vggfeat.dumps.sources.stacks import Array, Stack, is_label
from vggfeat.errors import ImageError, InputError, near


class NumpySource:
    """The pictures of a `.npy` file, or of one array of a `.npz` file, whose other arrays can be labels.

    A `.npy` file is mapped into memory; a `.npz` file is read whole, by each decoding process.
    """

    def __init__(self, path: Path, selection: SourceFilter) -> None:
        self._path = path
        self._asked = selection.column

    def items(self) -> Iterator[Item]:
        """The pictures. Raises `InputError` if the file cannot be read, or holds no array of pictures."""
        try:
            arrays = _load(str(self._path))
            if isinstance(arrays, np.ndarray):
                return Stack.of(arrays.shape, arrays.dtype).items(self._path, "", {})
            stacks, reasons = stacks_of({name: arrays[name] for name in arrays})
            name = chosen_stack(stacks, reasons, self._asked)
            count = stacks[name].count
            labels = {key: arrays[key] for key in arrays if is_label(arrays[key].shape, arrays[key].dtype, count)}
            return stacks[name].items(self._path, name, labels)
        except InputError as error:
            raise InputError(f"'{printable(self._path)}': {error}") from error
        except (OSError, ValueError, EOFError, BadZipFile, ZlibError) as error:
            raise unreadable(self._path, error) from error


def stacks_of(arrays: Mapping[str, Any]) -> tuple[dict[str, Stack], dict[str, str]]:
    """The arrays that hold pictures, and why the others do not. Each has a `shape` and a `dtype`."""
    found: dict[str, Stack] = {}
    reasons: dict[str, str] = {}
    for name, array in arrays.items():
        try:
            found[name] = Stack.of(array.shape, array.dtype)
        except InputError as error:
            reasons[name] = str(error)
    return found, reasons


def chosen_stack(stacks: Mapping[str, Stack], reasons: Mapping[str, str], asked: str | None) -> str:
    """The array `asked` for, else the only one, else the one that is called so. Raises `InputError`."""
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


def read_numpy_row(path: str, member: str, stamp: tuple[int, int]) -> Array:
    """The picture of the row `12`, or `name/12` of a `.npz` file. `stamp` tells versions of the file apart.

    Raises `ImageError`, OSError or ValueError.
    """
    name, _, row = member.rpartition("/")
    try:
        stack, array = _stack(path, name, stamp)
    except (BadZipFile, ZlibError, EOFError, KeyError) as error:
        raise ImageError(f"the file is damaged ({str(error).lower()})") from error
    if int(row) >= stack.count:
        raise ImageError(f"the file has no row {row}")
    return stack.picture(array, int(row))


@lru_cache(maxsize=1)
def _stack(path: str, name: str, _stamp: tuple[int, int]) -> tuple[Stack, Array]:
    arrays = _load(path)
    array = arrays[name] if name else arrays
    return Stack.of(array.shape, array.dtype), array


def _load(path: str) -> Any:
    return np.load(path, mmap_mode="r" if path.lower().endswith(".npy") else None, allow_pickle=False)
