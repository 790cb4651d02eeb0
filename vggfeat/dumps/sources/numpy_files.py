"""Arrays of pictures in numpy's files."""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any
from zipfile import BadZipFile
from zlib import error as ZlibError

import numpy as np

from vggfeat.dumps.sources.filtering import SourceFilter
from vggfeat.dumps.sources.item import Item, printable, unreadable
from vggfeat.dumps.sources.stacks import Array, Stack, chosen_stack, is_label, stacks_of
from vggfeat.errors import ImageError, InputError


class NumpySource:
    """The pictures of a `.npy` file, or of one array of a `.npz` file. Arrays of one value per picture are labels.

    A `.npy` file is memory-mapped. Each decoding process reads a `.npz` file into memory.
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


def read_numpy_row(path: str, member: str, stamp: tuple[int, int]) -> Array:
    """The picture in row `member`: `12` of a `.npy` file, `name/12` of a `.npz` file. `stamp` identifies the version.

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
