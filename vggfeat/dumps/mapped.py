"""Maps the `.npy` files of a dump into memory."""

import io
import mmap
import sys
import threading
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vggfeat import files
from vggfeat.dumps.errors import StoreError
from vggfeat.dumps.sources import printable

Array = npt.NDArray[Any]


class MappedFiles:
    """The `.npy` files of a folder, {name: read-only array}, mapped when they are first used.

    The `most` files that were mapped last stay open: by default a quarter of what the process may open, at least 64.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.most = _most_open()
        self._reset()

    def __getitem__(self, name: str) -> Array:
        found = self._arrays.get(name)
        if found is None:
            path = self.folder / name
            try:
                found = _map(path)
            except OSError as error:
                raise StoreError(f"cannot read '{printable(path)}': {files.reason(error)}") from error
            except ValueError as error:
                raise StoreError(f"cannot read '{printable(path)}': {error}") from error
            with self._guard:
                self._arrays[name] = found
                while len(self._arrays) > self.most:
                    del self._arrays[next(iter(self._arrays))]
        return found

    def _reset(self) -> None:
        self._arrays: dict[str, Array] = {}
        self._guard = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "most": self.most}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()


def _most_open() -> int:
    if sys.platform == "win32":
        return 64
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 4096 if soft == resource.RLIM_INFINITY else min(max(64, soft // 4), 4096)


def _map(path: Path) -> Array:
    """Map an array that a dump wrote. `numpy.load` takes five times as long, because it parses every header."""
    with path.open("rb", buffering=0) as file:
        start = file.read(10)
        start += file.read(int.from_bytes(start[8:], "little"))
        shape, dtype = _header(start)
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return np.frombuffer(content, dtype, prod(shape), len(start)).reshape(shape)


@lru_cache(maxsize=256)
def _header(data: bytes) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """The shape and type in the header of a `.npy` file of version 1.0."""
    file = io.BytesIO(data)
    if (version := np.lib.format.read_magic(file)) != (1, 0):
        raise ValueError(f"it has version {version} of numpy's format instead of (1, 0)")
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
    if fortran_order or dtype.hasobject:
        raise ValueError("it is not an array that a dump wrote")
    return shape, dtype
