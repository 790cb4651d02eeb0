"""The files of one shard, written under temporary names until the shard is complete."""

import hashlib
import io
import os
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from vggfeat import files
from vggfeat.dumps.errors import store_errors
from vggfeat.dumps.manifest import ManifestEntry
from vggfeat.dumps.receipts import Receipt

TEMPORARY = ".tmp"

_DIGITS = 6


class ShardFiles:
    """Writes the arrays and the receipt of a shard to the dump in `folder`.

    If the shard exists, `before` is its receipt, and its files stay until `finish` replaces them. If `layers` is given,
    all layers of the dump in order, `finish` adds the new files to them instead. Methods raise `StoreError` if a file
    cannot be written; then call `discard`.

    This does not use `files.replacing`: the files of a shard are renamed together, and the receipt last.
    """

    def __init__(self, folder: Path, number: int, before: Receipt | None = None, layers: Sequence[str] = ()) -> None:
        self._folder = folder
        self._before = before
        self._joined = before if layers else None
        self._layers = layers
        self.number = number
        self._arrays: dict[str, _NpyFile] = {}
        self._finished = False
        # A worker that was believed dead may still be writing the same shard.
        self._token = secrets.token_hex(4)

    def append(self, name: str, rows: npt.NDArray[Any]) -> None:
        """Append rows (N, ...) to the array `name`."""
        with store_errors(self._folder):
            if name not in self._arrays:
                (self._folder / name).parent.mkdir(exist_ok=True)
                self._arrays[name] = _NpyFile(self._temporary(name), rows)
            self._arrays[name].append(rows)

    def finish(
        self,
        entries: Sequence[ManifestEntry],
        clipped: Mapping[str, int],
        partial: Mapping[str, npt.NDArray[Any]] | None = None,
        not_finite: Mapping[str, int] = MappingProxyType({}),
    ) -> Receipt:
        """Sync every file, rename it to its final name, and write the receipt last.

        `partial` is the shard's part of the statistics.
        """
        folder, stem = self._folder, f"receipts/{shard_name(self.number)}"
        with store_errors(folder):
            (folder / "receipts").mkdir(exist_ok=True)
            written = {name: array.finish() for name, array in sorted(self._arrays.items())}
            if self._joined is not None:
                clipped = dict(sorted({**self._joined.clipped, **clipped}.items()))
                not_finite = dict(sorted({**self._joined.not_finite, **not_finite}.items()))
                partial = None if partial is None else self._joined_partial(partial)
            if partial is not None:
                data = npz_bytes(partial)
                self._write(f"{stem}.npz", data)
                written[f"{stem}.npz"] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
            named = written if self._joined is None else _sorted({**self._joined.files, **written})
            receipt = Receipt(self.number, tuple(entries), named, clipped, dict(not_finite))
            self._write(f"{stem}.json", receipt.as_json().encode())
            if self._before is not None and self._joined is None:
                # The shard has no receipt until the new one is renamed, a moment later.
                (folder / f"{stem}.json").unlink(missing_ok=True)
                for name in set(self._before.files) - set(written):
                    (folder / name).unlink(missing_ok=True)
            for name in written:
                self._temporary(name).replace(folder / name)
            for parent in {(folder / name).parent for name in written}:
                files.sync_folder(parent)
            self._temporary(f"{stem}.json").replace(folder / f"{stem}.json")
            files.sync_folder(folder / "receipts")
        self._finished = True
        return receipt

    def discard(self) -> None:
        """Delete the temporary files of a shard that was not finished, as far as possible."""
        if self._finished:
            return
        stem = f"receipts/{shard_name(self.number)}"
        for name in [*self._arrays, f"{stem}.npz", f"{stem}.json"]:
            with suppress(OSError):
                self._temporary(name).unlink(missing_ok=True)

    def _joined_partial(self, partial: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """The shard's part of the statistics, extended by that of the new layers, as if measured together."""
        path = self._folder / f"receipts/{shard_name(self.number)}.npz"
        with np.load(path, allow_pickle=False) as found:
            known = {name: cast("npt.NDArray[Any]", found[name]) for name in found.files}
        both = {**partial, **known}
        names = {part: [name for name in both if name.partition("/")[0] == part] for part in ("index", *self._layers)}
        return {name: both[name] for part in names.values() for name in part}

    def _write(self, name: str, data: bytes) -> None:
        with self._temporary(name).open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def _temporary(self, name: str) -> Path:
        return temporary_path(self._folder / name, self._token)


class _NpyFile:
    """A `.npy` file that grows. numpy pads the header, so the number of rows can be filled in at the end."""

    def __init__(self, path: Path, like: npt.NDArray[Any]) -> None:
        self._path = path
        self._shape = like.shape[1:]
        self._dtype = like.dtype
        self._count = 0
        path.write_bytes(self._header())

    def append(self, rows: npt.NDArray[Any]) -> None:
        # Open the file each time: images of many sizes need more files than a process may have open.
        with self._path.open("ab") as file:
            file.write(np.ascontiguousarray(rows).data)
        self._count += len(rows)

    def finish(self) -> dict[str, Any]:
        """Fill in the header and sync the file. Returns its `sha256` and `bytes`."""
        with self._path.open("r+b") as file:
            file.write(self._header())
            file.flush()
            os.fsync(file.fileno())
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return {"sha256": digest, "bytes": file.seek(0, os.SEEK_END)}

    def _header(self) -> bytes:
        buffer = io.BytesIO()
        descr = np.lib.format.dtype_to_descr(self._dtype)
        header = {"descr": descr, "fortran_order": False, "shape": (self._count, *self._shape)}
        np.lib.format.write_array_header_1_0(buffer, header)
        return buffer.getvalue()


def _sorted(named: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Files as a shard lists them: arrays by name, statistics last."""
    return {name: named[name] for name in sorted(named, key=lambda name: (name.endswith(".npz"), name))}


def shard_name(number: int) -> str:
    """The start of the names of a shard's files.

    >>> shard_name(12)
    '000012'
    """
    return f"{number:0{_DIGITS}d}"


def payload_name(output: tuple[str, str], shard: int, side: tuple[int, int] | None) -> str:
    """The file of a shard for (layer, reduction); `side` is (height, width) if the images differ in size.

    >>> payload_name(("relu3_3", "full"), 12, (240, 320))
    'relu3_3.full/000012-240x320.npy'
    """
    layer, reduction = output
    size = f"-{side[0]}x{side[1]}" if side else ""
    return f"{layer}.{reduction}/{shard_name(shard)}{size}.npy"


def temporary_path(target: Path, token: str = "") -> Path:
    """The name of a file until it is complete. A `token` tells the files of several writers apart."""
    return target.with_name(f".{target.name}{token and '.'}{token}{TEMPORARY}")


def npz_bytes(arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """The content of a `.npz` file. The same arrays give the same bytes: numpy dates the members 1980."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **cast("Any", dict(arrays)))
    return buffer.getvalue()
