"""The folder of a dump: what is in it, and how it is written so that a kill at any moment leaves it whole.

    OUT/run.json                        what is computed, of which inputs, in which batches
    OUT/relu3_3.mean/000012.npy         shard 12 of one layer and reduction; 000012-240x320.npy where sizes differ
    OUT/receipts/000012.json            a row for each of its inputs, and the hashes of its files; written last
    OUT/receipts/000012.npz             its part of the statistics
    OUT/manifest.csv                    the rows of all receipts, once they are all there

A shard without a receipt never happened. Every file is written beside its place, flushed to the disk and renamed.
"""

import csv
import errno
import filecmp
import hashlib
import io
import json
import os
import secrets
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, cast, get_args

import numpy as np
import numpy.typing as npt

from vggfeat import files
from vggfeat.dumps.sources import import_parquet, printable
from vggfeat.errors import InputError, VggfeatError

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None

FORMAT = 1
ManifestFormat = Literal["csv", "parquet"]

_TEMPORARY = ".tmp"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

COLUMNS: Mapping[str, type] = {
    "id": str,
    "path": str,
    "sha256": str,
    "size": int,
    "status": str,
    "error": str,
    "shard": int,
    "offset": int,
    "height": int,
    "width": int,
}


class StoreError(VggfeatError):
    """A dump that cannot be written or read, or is not what it should be."""


@dataclass(frozen=True, slots=True)
class Row:
    """What became of one input.

    `size` is that of its file in bytes, `sha256` that of its bytes. `status` is `ok` or `failed`, and `error` the
    reason. `offset` is the row in the shard's arrays, of which there is one for each `height` x `width` of pictures as
    the network saw them; -1 where there is none.
    """

    id: str
    path: str
    sha256: str
    size: int
    status: str
    error: str
    shard: int
    offset: int
    height: int
    width: int

    @property
    def ok(self) -> bool:
        """Whether the dump holds features of it."""
        return self.status == "ok"


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a shard came to. `files`: {name within the folder: sha256 and bytes}.

    `clipped` and `not_finite`: {output: values}, of those that were brought into float16's range and of those that are
    infinite or no number. `kept` is never written: why a shard that was to be made anew was left as it was.
    """

    shard: int
    rows: tuple[Row, ...]
    files: Mapping[str, Mapping[str, Any]]
    clipped: Mapping[str, int]
    not_finite: Mapping[str, int] = field(default_factory=dict[str, int])
    kept: str = ""

    @property
    def failed(self) -> int:
        """How many of its inputs are bad."""
        return sum(not row.ok for row in self.rows)

    def as_json(self) -> str:
        """The receipt as it is written."""
        rows = [[getattr(row, name) for name in COLUMNS if name != "shard"] for row in self.rows]
        content = {
            "shard": self.shard,
            "files": self.files,
            "clipped": self.clipped,
            "columns": [name for name in COLUMNS if name != "shard"],
            "rows": rows,
        }
        extra = {"not_finite": self.not_finite, "kept": self.kept}
        content |= {name: value for name, value in extra.items() if value}
        return json.dumps(content, indent=None, separators=(",", ":")) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Receipt":
        """Read what `as_json` wrote. Raises ValueError, LookupError, TypeError or AttributeError for anything else."""
        content: dict[str, Any] = json.loads(text)
        columns: list[str] = content["columns"]
        number: int = content["shard"]
        rows = tuple(Row(shard=number, **dict(zip(columns, row, strict=True))) for row in content["rows"])
        return cls(
            number,
            rows,
            dict(content["files"].items()),
            dict(content["clipped"].items()),
            dict(content.get("not_finite", {}).items()),
            content.get("kept", ""),
        )


class Store:
    """The folder `out`. Nothing is created before something is written."""

    def __init__(self, out: str | os.PathLike[str]) -> None:
        self.path = Path(out)

    def run(self) -> dict[str, Any] | None:
        """What run.json says; None where there is none. Raises `StoreError` for one that is damaged."""
        path = self.path / "run.json"
        try:
            found: dict[str, Any] = json.loads(path.read_text("utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            raise StoreError(f"cannot read '{printable(path)}': {error}") from error
        if isinstance(cast("object", found), dict) and found.get("format") != FORMAT:
            raise StoreError(f"'{printable(path)}' has the format {found.get('format')}, not {FORMAT}")
        if reason := _damage(found):
            raise StoreError(f"'{printable(path)}' is damaged: {reason}")
        return found

    def write_run(self, content: Mapping[str, Any]) -> None:
        """Write run.json."""
        self._replace("run.json", (json.dumps({"format": FORMAT, **content}, indent=2) + "\n").encode())

    def create(self) -> None:
        """Make the folder. Raises `StoreError` where something else is in its place."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot write '{printable(self.path)}': {files.reason(error)}") from error
        with _telling(self.path):
            others = [path.name for path in self.path.iterdir() if not _is_ours(path.name)]
        if self.run() is None and others:
            raise StoreError(f"'{printable(self.path)}' is not empty and no dump: it holds {printable(min(others))}")

    @contextmanager
    def locked(self) -> Generator[None]:
        """Keep every other run out of the folder. The lock of a killed run is void. Raises `StoreError`."""
        path = self.path / ".lock"
        handle = _lock(path)
        try:
            os.truncate(handle, 0)
            os.write(handle, f"{os.getpid()}\n".encode())
            yield
        finally:
            with suppress(OSError):
                path.unlink()
            os.close(handle)

    def receipts(self) -> dict[int, Receipt]:
        """The shards that are done, by their numbers: those whose receipt is whole and whose files are there."""
        return {receipt.shard: receipt for receipt in self.each_receipt()}

    def each_receipt(self) -> Iterator[Receipt]:
        """Those of `receipts`, by number, each read when it is its turn."""
        numbered = [(int(path.stem), path) for path in self.path.glob("receipts/*.json") if path.stem.isdecimal()]
        for number, path in sorted(numbered):
            try:
                receipt = Receipt.from_json(path.read_text("utf-8"))
                whole = all(
                    (self.path / name).stat().st_size == about["bytes"] for name, about in receipt.files.items()
                )
            except (OSError, ValueError, LookupError, TypeError, AttributeError):
                continue
            if whole and receipt.shard == number and path.stem == shard_name(number):
                yield receipt

    def sweep(self, keep: Iterable[int]) -> None:
        """Delete what killed runs left: temporary files, and the files of shards that are not among `keep`."""
        kept = {shard_name(number) for number in keep}
        with _telling(self.path):
            for path in [*self.path.glob(f".*{_TEMPORARY}"), *self.path.glob(f"*/.*{_TEMPORARY}")]:
                path.unlink(missing_ok=True)
            # Receipts first: a shard must not lose a file while its receipt stands.
            for pattern in ("receipts/*.json", "receipts/*.npz", "*/*.npy"):
                for path in self.path.glob(pattern):
                    if path.stem.partition("-")[0] not in kept:
                        path.unlink(missing_ok=True)

    def invalidate(self) -> None:
        """Take away the manifest, which is compiled from all shards: some are about to be made."""
        with _telling(self.path):
            for form in get_args(ManifestFormat):
                (self.path / f"manifest.{form}").unlink(missing_ok=True)

    def shard(self, number: int, before: Receipt | None = None) -> "ShardFiles":
        """The files of a shard, to be written; those of `before` stand until they are there, and go then."""
        return ShardFiles(self, number, before)

    def write_manifest(self, shards: int, form: ManifestFormat) -> Path:
        """Compile the manifest of all `shards`: a row for every input, in the order of the sources.

        One that says the same is left alone. Raises `StoreError` where a shard is missing.
        """
        target = self.path / f"manifest.{form}"
        temporary = temporary_path(target)
        found = 0

        def rows() -> Iterator[Row]:
            nonlocal found
            for receipt in self.each_receipt():
                found += 1
                yield from receipt.rows

        try:
            with _telling(self.path):
                (_write_csv if form == "csv" else _write_parquet)(temporary, rows())
                if found < shards:
                    raise StoreError(
                        f"{shards - found} of {shards} shards of '{printable(self.path)}' are missing: "
                        "the same command makes them"
                    )
                if not _same(temporary, target):
                    temporary.replace(target)
                for other in get_args(ManifestFormat):
                    if other != form:
                        (self.path / f"manifest.{other}").unlink(missing_ok=True)
                files.sync_folder(self.path)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        return target

    def _replace(self, name: str, data: bytes) -> None:
        target = self.path / name
        temporary = temporary_path(target)
        try:
            with _telling(self.path):
                write_through(temporary, data)
                temporary.replace(target)
                files.sync_folder(target.parent)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


_DIGITS = 6


class ShardFiles:
    """The arrays of a shard while they are written, under temporary names until `finish`.

    What cannot be written raises `StoreError`; then all must be given up, by `discard`.
    """

    def __init__(self, store: Store, number: int, before: Receipt | None = None) -> None:
        self._store = store
        self._before = before
        self.number = number
        self._open: dict[str, _Growing] = {}
        self._finished = False
        # A worker that was given up for dead may live, and write the same shard: into files of its own.
        self._token = secrets.token_hex(4)

    def append(self, name: str, rows: npt.NDArray[Any]) -> None:
        """Add rows (N, ...) to the array `name`."""
        with _telling(self._store.path):
            if name not in self._open:
                (self._store.path / name).parent.mkdir(exist_ok=True)
                self._open[name] = _Growing(self._temporary(name), rows)
                self._open[name].begin()
            self._open[name].append(rows)

    def finish(
        self,
        rows: Sequence[Row],
        clipped: Mapping[str, int],
        arrays: Mapping[str, npt.NDArray[Any]] | None = None,
        not_finite: Mapping[str, int] = MappingProxyType({}),
    ) -> Receipt:
        """Give every file its name, the receipt last."""
        with _telling(self._store.path):
            receipt = self._finish(rows, clipped, arrays, not_finite)
        self._finished = True
        return receipt

    def _finish(
        self,
        rows: Sequence[Row],
        clipped: Mapping[str, int],
        arrays: Mapping[str, npt.NDArray[Any]] | None,
        not_finite: Mapping[str, int],
    ) -> Receipt:
        written: dict[str, dict[str, Any]] = {}
        folder = self._store.path / "receipts"
        folder.mkdir(exist_ok=True)
        stem = f"receipts/{shard_name(self.number)}"
        for name, array in sorted(self._open.items()):
            written[name] = array.finish()
        if arrays is not None:
            data = npz_bytes(arrays)
            write_through(self._temporary(f"{stem}.npz"), data)
            written[f"{stem}.npz"] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        receipt = Receipt(self.number, tuple(rows), written, clipped, dict(not_finite))
        write_through(self._temporary(f"{stem}.json"), receipt.as_json().encode())
        if self._before is not None:
            # From here to the new receipt, which takes a moment, the shard has none.
            (self._store.path / f"{stem}.json").unlink(missing_ok=True)
            for name in set(self._before.files) - set(written):
                (self._store.path / name).unlink(missing_ok=True)
        for name in written:
            self._temporary(name).replace(self._store.path / name)
        for parent in {(self._store.path / name).parent for name in written}:
            files.sync_folder(parent)
        self._temporary(f"{stem}.json").replace(self._store.path / f"{stem}.json")
        files.sync_folder(folder)
        return receipt

    def discard(self) -> None:
        """Delete what was written and not finished, as far as that is possible."""
        if self._finished:
            return
        stem = f"receipts/{shard_name(self.number)}"
        for name in [*self._open, f"{stem}.npz", f"{stem}.json"]:
            with suppress(OSError):
                self._temporary(name).unlink(missing_ok=True)

    def _temporary(self, name: str) -> Path:
        return temporary_path(self._store.path / name, self._token)


class _Growing:
    """A `.npy` file that rows are added to: numpy pads the header, so that the number of rows can be set at the end."""

    def __init__(self, path: Path, like: npt.NDArray[Any]) -> None:
        self._path = path
        self._shape = like.shape[1:]
        self._dtype = like.dtype
        self._count = 0

    def begin(self) -> None:
        self._path.write_bytes(self._header())

    def append(self, rows: npt.NDArray[Any]) -> None:
        # Opened each time: with pictures of many sizes there are more files than a process may have open.
        with self._path.open("ab") as file:
            file.write(np.ascontiguousarray(rows).data)
        self._count += len(rows)

    def finish(self) -> dict[str, Any]:
        with self._path.open("r+b") as file:
            file.write(self._header())
            file.flush()
            os.fsync(file.fileno())
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return {"sha256": digest, "bytes": file.seek(0, os.SEEK_END)}

    def _header(self) -> bytes:
        buffer = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            buffer,
            {
                "descr": np.lib.format.dtype_to_descr(self._dtype),
                "fortran_order": False,
                "shape": (self._count, *self._shape),
            },
        )
        return buffer.getvalue()


def shard_name(number: int) -> str:
    """What a shard's files begin with."""
    return f"{number:0{_DIGITS}d}"


def payload_name(output: tuple[str, str], shard: int, side: tuple[int, int] | None) -> str:
    """The file of a shard for (layer, reduction); `side` is (height, width) of the pictures where they differ."""
    layer, reduction = output
    size = f"-{side[0]}x{side[1]}" if side else ""
    return f"{layer}.{reduction}/{shard_name(shard)}{size}.npy"


def temporary_path(target: Path, token: str = "") -> Path:
    """Where a file is written before it has its name; with a `token`, by one writer of several."""
    return target.with_name(f".{target.name}{token and '.'}{token}{_TEMPORARY}")


def write_through(path: Path, data: bytes) -> None:
    """Write `data` and wait until the disk has it."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def npz_bytes(arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """The bytes of a `.npz` file, which numpy dates 1980 whatever the day."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **cast("Any", dict(arrays)))
    return buffer.getvalue()


def full(path: Path, error: OSError) -> StoreError:
    """The error for a disk that has no room."""
    return StoreError(
        f"cannot write into '{printable(path)}': {files.reason(error)}; what is written is intact, "
        "and the same command goes on once there is room"
    )


@contextmanager
def _telling(path: Path) -> Generator[None]:
    """Raise what the system refuses of a dump as `StoreError`."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise full(path, error) from error
        where = printable(str(error.filename or path))
        raise StoreError(f"cannot write into '{printable(path)}': '{where}': {files.reason(error)}") from error


def _is_ours(name: str) -> bool:
    """Whether a file is a lock or a temporary one, which a killed run left or another one holds."""
    return name == ".lock" or (name.startswith(".") and name.endswith(_TEMPORARY))


def _same(one: Path, other: Path) -> bool:
    return other.is_file() and filecmp.cmp(one, other, shallow=False)


_FINGERPRINT: Mapping[str, tuple[type, ...]] = {
    "layers": (list,),
    "reductions": (dict,),
    "weights": (dict,),
    "inputs": (dict,),
    "batch_size": (int,),
    "shard_size": (int,),
    "resize": (int, list, type(None)),
    "crop": (int, type(None)),
    "dtype": (str,),
}


def _damage(found: object) -> str:
    """What is wrong with the content of run.json; nothing where all is well."""
    content = cast("dict[str, Any]", found if isinstance(found, dict) else {})
    about: Any = content.get("fingerprint")
    if not isinstance(about, dict) or not isinstance(content.get("shards"), int):
        return "it has no fingerprint or no number of shards"
    fields = cast("dict[str, Any]", about)
    if wrong := [name for name, kinds in _FINGERPRINT.items() if not isinstance(fields.get(name), kinds)]:
        return f"its fingerprint does not say what {wrong[0]} is"
    count, size = fields["inputs"].get("count"), fields["shard_size"]
    if not isinstance(count, int) or size < 1 or content["shards"] != -(-count // size):
        return f"{count} inputs by {size} a shard are not {content['shards']} shards"
    return ""


def _lock(path: Path) -> int:
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            if error.errno in _FULL:
                raise full(path.parent, error) from error
            raise StoreError(f"cannot write '{printable(path)}': {files.reason(error)}") from error
        if fcntl is None:
            return handle
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.read(handle, 32).decode("ascii", "replace").strip()
            os.close(handle)
            who = f" (process {owner})" if owner else ""
            raise StoreError(f"another run{who} is writing into '{printable(path.parent)}'") from error
        # A run that ended between the two calls has deleted the file that this is a lock of.
        with suppress(FileNotFoundError):
            if os.fstat(handle).st_ino == path.stat().st_ino:
                return handle
        os.close(handle)


def csv_line(values: Iterable[object]) -> str:
    """A line of CSV. The library's writer leaves a carriage return bare, which its reader takes for a line's end."""
    return ",".join(map(_quoted, values)) + "\n"


def _quoted(value: object) -> str:
    text = str(value)
    return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in ',"\r\n') else text


def _write_csv(path: Path, rows: Iterable[Row]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(csv_line(COLUMNS))
        file.writelines(csv_line(getattr(row, name) for name in COLUMNS) for row in rows)
        file.flush()
        os.fsync(file.fileno())


# Rows of a group of a parquet file, which are in memory at a time.
_ROWS_A_GROUP = 65536


def _write_parquet(path: Path, rows: Iterable[Row]) -> None:
    parquet = import_parquet("a manifest in parquet")
    arrow: Any = import_module("pyarrow")
    kinds = {str: arrow.string(), int: arrow.int64()}
    schema = arrow.schema([(name, kinds[kind]) for name, kind in COLUMNS.items()])
    left = iter(rows)
    with path.open("wb") as file:
        with parquet.ParquetWriter(file, schema) as writer:
            while group := list(islice(left, _ROWS_A_GROUP)):
                columns = {name: [getattr(row, name) for row in group] for name in COLUMNS}
                writer.write_table(arrow.table(columns, schema=schema))
        file.flush()
        os.fsync(file.fileno())


def read_manifest(folder: Path) -> tuple[Row, ...] | None:
    """The rows of a dump's manifest; None where there is none. Raises `StoreError` for one that is damaged."""
    for form in get_args(ManifestFormat):
        path = folder / f"manifest.{form}"
        if not os.path.lexists(path):
            continue
        try:
            return _read_csv(path) if form == "csv" else _read_parquet(path)
        except (OSError, ValueError, LookupError, TypeError, csv.Error) as error:
            if isinstance(error, InputError):
                raise
            raise damaged_manifest(folder, path.name, str(error)) from error
    return None


def damaged_manifest(folder: Path, name: str, reason: str) -> StoreError:
    """The error for a manifest that is not what was written."""
    return StoreError(
        f"the manifest '{printable(folder / name)}' is damaged ({' '.join(reason.split())}): "
        "the command that made the dump writes it anew from receipts/, which hold the same rows"
    )


def _read_csv(path: Path) -> tuple[Row, ...]:
    with path.open(encoding="utf-8", newline="") as file:
        return _rows(csv.DictReader(file))


def _read_parquet(path: Path) -> tuple[Row, ...]:
    return _rows(import_parquet(f"reading '{printable(path)}'").read_table(path).to_pylist())


def _rows(records: Iterable[Mapping[str, Any]]) -> tuple[Row, ...]:
    convert: Mapping[str, Callable[[Any], Any]] = COLUMNS
    return tuple(Row(**{name: convert[name](record[name]) for name in COLUMNS}) for record in records)
