"""The manifest of a dump: one entry for each input, as CSV or parquet."""

import csv
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TextIO, get_args

from vggfeat.dumps.errors import StoreError
from vggfeat.dumps.sources import import_parquet, printable
from vggfeat.errors import InputError

ManifestFormat = Literal["csv", "parquet"]
FORMATS: tuple[ManifestFormat, ...] = get_args(ManifestFormat)

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

# A parquet file is written in groups of this many entries, which are in memory together.
_GROUP = 65536


@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """The result for one input.

    `sha256` and `size` (in bytes) describe the input file. `status` is `ok` or `failed`, and `error` is the reason for
    a failure. The features are row `offset` of the shard's arrays; a shard has one array for each `height` x `width`
    of the images as the network received them. `offset` is -1 if the input failed.
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
        """Whether the dump holds features of this input."""
        return self.status == "ok"


def write_manifest(path: Path, form: ManifestFormat, entries: Iterable[ManifestEntry]) -> None:
    """Write `entries` to the new file `path`, holding few of them in memory at a time."""
    (_write_csv if form == "csv" else _write_parquet)(path, entries)


def read_manifest(folder: Path) -> tuple[ManifestEntry, ...] | None:
    """The entries of a dump's manifest; None if it has no manifest. Raises `StoreError` if the file is damaged."""
    for form in FORMATS:
        path = folder / f"manifest.{form}"
        if not os.path.lexists(path):
            continue
        try:
            return _read_csv(path) if form == "csv" else _read_parquet(path)
        except InputError:  # pyarrow is missing
            raise
        except (OSError, ValueError, LookupError, TypeError, csv.Error) as error:
            raise damaged_manifest(folder, path.name, str(error)) from error
    return None


def damaged_manifest(folder: Path, name: str, reason: str) -> StoreError:
    """The error for a manifest that cannot be read or does not match the run."""
    return StoreError(
        f"the manifest '{printable(folder / name)}' is damaged ({' '.join(reason.split())}): "
        "the command that made the dump rewrites it from receipts/, which hold the same entries"
    )


class CsvWriter:
    r"""Writes CSV lines that end in `\n`.

    Up to Python 3.12, `csv.writer` quotes only the characters of its own line end, but `csv.reader` also splits at a
    bare `\r`. So the lines are formatted with `\r\n`, and the end is replaced.

    >>> import sys
    >>> CsvWriter(sys.stdout).writerow(["a", 'b"c', "d,e"])
    a,"b""c","d,e"
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._format = csv.writer(self)

    def writerow(self, values: Iterable[object]) -> None:
        """Write one line."""
        self._format.writerow(values)

    def write(self, line: str) -> None:
        """Receive a formatted line from `csv`."""
        self._file.write(line.removesuffix("\r\n") + "\n")


def _write_csv(path: Path, entries: Iterable[ManifestEntry]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = CsvWriter(file)
        table.writerow(COLUMNS)
        for entry in entries:
            table.writerow(getattr(entry, name) for name in COLUMNS)


def _write_parquet(path: Path, entries: Iterable[ManifestEntry]) -> None:
    parquet = import_parquet("a manifest in parquet")
    arrow: Any = import_module("pyarrow")
    kinds = {str: arrow.string(), int: arrow.int64()}
    schema = arrow.schema([(name, kinds[kind]) for name, kind in COLUMNS.items()])
    remaining = iter(entries)
    with parquet.ParquetWriter(path, schema) as writer:
        while group := list(islice(remaining, _GROUP)):
            columns = {name: [getattr(entry, name) for entry in group] for name in COLUMNS}
            writer.write_table(arrow.table(columns, schema=schema))


def _read_csv(path: Path) -> tuple[ManifestEntry, ...]:
    with path.open(encoding="utf-8", newline="") as file:
        return _entries(csv.DictReader(file))


def _read_parquet(path: Path) -> tuple[ManifestEntry, ...]:
    return _entries(import_parquet(f"reading '{printable(path)}'").read_table(path).to_pylist())


def _entries(records: Iterable[Mapping[str, Any]]) -> tuple[ManifestEntry, ...]:
    convert: Mapping[str, Callable[[Any], Any]] = COLUMNS
    return tuple(ManifestEntry(**{name: convert[name](record[name]) for name in COLUMNS}) for record in records)
