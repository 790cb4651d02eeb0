"""Reads what an item names: the bytes of a picture file, or an array."""

import os
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any

import numpy.typing as npt

from vggfeat import files
from vggfeat.dumps.sources.hdf5 import read_hdf5_row
from vggfeat.dumps.sources.item import Item
from vggfeat.dumps.sources.numpy_files import read_numpy_row
from vggfeat.dumps.sources.parquet import read_parquet_row
from vggfeat.dumps.sources.zips import read_zip_member
from vggfeat.errors import ImageError, VggfeatError

Row = bytes | npt.NDArray[Any]

ROWS: Mapping[str, Callable[[str, str, tuple[int, int]], Row]] = {
    ".parquet": read_parquet_row,
    ".npy": read_numpy_row,
    ".npz": read_numpy_row,
    ".h5": read_hdf5_row,
    ".hdf5": read_hdf5_row,
    ".hdf": read_hdf5_row,
}
"""Readers of the files whose members are rows, by ending."""


def read_member(item: Item) -> Row:
    """The bytes of a picture file, or an array (H, W) or (H, W, C), that `item.member` names.

    Raises `ImageError`, which names the place.
    """
    try:
        return _read(item)
    except (OSError, ValueError, VggfeatError) as error:
        reason = files.reason(error) if isinstance(error, OSError) else " ".join(str(error).split())
        raise ImageError(f"cannot read '{item.place}': {reason}") from error


def _read(item: Item) -> Row:
    ending = PurePath(item.path).suffix.lower()
    if ending in ROWS or ending == ".zip":
        about = os.stat(item.path)  # noqa: PTH116 (Path would normalise the path)
        stamp = about.st_mtime_ns, about.st_size
        if ending == ".zip":
            return read_zip_member(item.path, item.offset, stamp)
        return ROWS[ending](item.path, item.member, stamp)
    with open(item.path, "rb") as archive:  # noqa: PTH123 (Path would normalise the path)
        archive.seek(item.offset)
        data = archive.read(item.length)
    if len(data) < item.length:
        raise ImageError("the tar file ends within it")
    return data
