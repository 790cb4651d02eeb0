"""Arrays of pictures in HDF5 files."""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from vggfeat.dumps.sources.filtering import SourceFilter
from vggfeat.dumps.sources.item import Item, printable, unreadable
from vggfeat.dumps.sources.stacks import Array, Stack, chosen_stack, is_label, stacks_of
from vggfeat.errors import ImageError, InputError, imported


class Hdf5Source:
    """The pictures of one data set of an HDF5 file, as an array or as encoded files of any length.

    Data sets beside it with one value for each picture are labels.
    """

    def __init__(self, path: Path, selection: SourceFilter) -> None:
        self._path = path
        self._asked = selection.column

    def items(self) -> Iterator[Item]:
        """The pictures. Raises `InputError` if the file cannot be read, or holds no data set of pictures."""
        h5py = _import(self._path)
        try:
            with h5py.File(self._path, "r") as file:
                return iter(list(self._found(h5py, file)))
        except InputError as error:
            raise InputError(f"'{printable(self._path)}': {error}") from error
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            raise unreadable(self._path, error) from error

    def _found(self, h5py: Any, file: Any) -> Iterator[Item]:
        sets: dict[str, Any] = {}

        def visit(name: str, found: Any) -> None:
            if isinstance(found, h5py.Dataset):
                sets[name] = found

        file.visititems(visit)
        stacks, reasons = stacks_of(sets)
        encoded = {name: Stack(found.shape[0]) for name, found in sets.items() if _is_encoded(h5py, found)}
        asked = None if self._asked is None else self._asked.strip("/")
        stacks |= encoded
        name = chosen_stack(stacks, {key: reason for key, reason in reasons.items() if key not in encoded}, asked)
        stack, group = stacks[name], name.rpartition("/")[0]
        beside = {key.rpartition("/")[2]: key for key in sets if key.rpartition("/")[0] == group and key not in encoded}
        labels = {
            last: sets[key][()]
            for last, key in beside.items()
            if is_label(sets[key].shape, sets[key].dtype, stack.count)
        }
        return stack.items(self._path, name, labels)


def read_hdf5_row(path: str, member: str, stamp: tuple[int, int]) -> Array | bytes:
    """The picture of the row `name/12`, or its bytes. `stamp` tells versions of the file apart.

    Raises `ImageError`, OSError or ValueError.
    """
    name, _, row = member.rpartition("/")
    try:
        stack, found = _data_set(path, name, stamp)
        if int(row) >= stack.count:
            raise ImageError(f"the file has no row {row}")
        return bytes(found[int(row)]) if found.ndim == 1 else stack.picture(found, int(row))
    except (KeyError, RuntimeError) as error:
        raise ImageError(f"the file is damaged or has changed ({str(error).lower()})") from error


@lru_cache(maxsize=1)
def _data_set(path: str, name: str, _stamp: tuple[int, int]) -> tuple[Stack, Any]:
    h5py = _import(Path(path))
    found = h5py.File(path, "r")[name]
    return Stack(found.shape[0]) if _is_encoded(h5py, found) else Stack.of(found.shape, found.dtype), found


def _is_encoded(h5py: Any, found: Any) -> bool:
    kind = h5py.check_vlen_dtype(found.dtype)
    return found.ndim == 1 and kind is not None and kind == np.uint8


def _import(path: Path) -> Any:
    return imported("h5py", f"reading '{printable(path)}' needs h5py", "export", kind=InputError)
