"""The manifest of a dump: one entry for each input, as CSV or parquet."""

import csv
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, overload

import numpy as np
import numpy.typing as npt

from vggfeat import files
from vggfeat.dumps.errors import StoreError
from vggfeat.dumps.sources import import_parquet, printable
from vggfeat.errors import InputError

ManifestFormat = Literal["csv", "parquet"]
_T = TypeVar("_T")
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

# A manifest is read in blocks of this many entries, which fit into the cache of a processor.
_BLOCK = 256


@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """The result for one input.

    `sha256` and `size` (in bytes) describe the input file. `status` is `ok` or `failed`, and `error` is the reason for
    a failure. The features are row `offset` of the shard's arrays; a shard has one array for each `height` x `width`
    of the images as the network received them. `offset` is -1 if the input failed. `columns` are the labels and further
    columns of the source, {name: text}, without empty ones.
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
    columns: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)

    @property
    def ok(self) -> bool:
        """Whether the dump holds features of this input."""
        return self.status == "ok"


class Manifest(Sequence[ManifestEntry]):
    """The entries of a manifest, kept by column, so that a million of them fits into memory.

    An entry is built when it is indexed; a slice is a tuple of entries. `numbers` are the columns of integers, and `ok`
    is true of the inputs that the dump holds features of: arrays (N,). `columns` are the names of the source's columns.

    >>> entry = ManifestEntry("a", "a.png", "", 0, "ok", "", shard=0, offset=0, height=32, width=48)
    >>> found = Manifest.of([entry])
    >>> found[0] == entry, found.texts("id"), found.numbers["width"].tolist()
    (True, ['a'], [48])
    """

    def __init__(self, blocks: Iterable[Sequence[Sequence[Any]]], columns: Sequence[str] = ()) -> None:
        """`blocks`: the `COLUMNS` and further `columns` of `_BLOCK` entries each, and the rest in the last one."""
        self.columns = tuple(columns)
        kinds = {**COLUMNS, **dict.fromkeys(columns, str)}
        stored = [_Integers() if kind is int else _Texts() for kind in kinds.values()]
        good: list[npt.NDArray[np.bool_]] = []
        status = list(COLUMNS).index("status")
        for block in blocks:
            for column, values in zip(stored, block, strict=True):
                column.extend(values)
            good.append(np.fromiter(map("ok".__eq__, block[status]), np.bool_, len(block[status])))
        found = dict(zip(kinds, stored, strict=True))
        self._texts = {name: column for name, column in found.items() if isinstance(column, _Texts)}
        self.numbers: Mapping[str, npt.NDArray[np.int64]] = {
            name: column.array() for name, column in found.items() if isinstance(column, _Integers)
        }
        self.ok: npt.NDArray[np.bool_] = np.concatenate([np.empty(0, np.bool_), *good])

    @classmethod
    def of(cls, entries: Iterable[ManifestEntry]) -> "Manifest":
        """The manifest of `entries`."""
        entries = list(entries)
        columns = list(dict.fromkeys(name for entry in entries for name in entry.columns))
        return cls((_transposed(block, columns) for block in _blocks(entries)), columns)

    def texts(self, name: str) -> list[str]:
        """The whole column `name`: `id`, `path`, `sha256`, `status`, `error` or one of `columns`."""
        return list(self._texts[name])

    def __len__(self) -> int:
        return len(self.ok)

    @overload
    def __getitem__(self, index: int) -> ManifestEntry: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[ManifestEntry, ...]: ...
    def __getitem__(self, index: int | slice) -> ManifestEntry | tuple[ManifestEntry, ...]:
        places = range(len(self))[index]
        return self._entry(places) if isinstance(places, int) else tuple(map(self._entry, places))

    def __iter__(self) -> Iterator[ManifestEntry]:
        columns = [self._texts[name] if kind is str else map(int, self.numbers[name]) for name, kind in COLUMNS.items()]
        columns += [self._texts[name] for name in self.columns]
        return map(self._made, zip(*columns, strict=True))

    def __eq__(self, other: object) -> bool:
        return tuple(self) == tuple(other) if isinstance(other, Manifest) else NotImplemented

    __hash__ = None  # pyright: ignore[reportAssignmentType] (a list of entries is not hashable)

    def _entry(self, place: int) -> ManifestEntry:
        values: list[Any] = [
            self._texts[name][place] if kind is str else int(self.numbers[name][place])
            for name, kind in COLUMNS.items()
        ]
        return self._made([*values, *(self._texts[name][place] for name in self.columns)])

    def _made(self, values: Sequence[Any]) -> ManifestEntry:
        further = zip(self.columns, values[len(COLUMNS) :], strict=True)
        own: dict[str, Any] = dict(zip(COLUMNS, values, strict=False))
        return ManifestEntry(**own, columns={name: text for name, text in further if text})


class _Integers:
    """A column of integers."""

    def __init__(self) -> None:
        self._blocks: list[npt.NDArray[np.int64]] = [np.empty(0, np.int64)]

    def extend(self, values: Sequence[Any]) -> None:
        self._blocks.append(np.fromiter(map(int, values), np.int64, len(values)))

    def array(self) -> npt.NDArray[np.int64]:
        return np.concatenate(self._blocks)


class _Texts:
    """A column of texts: each block of `_BLOCK` texts is one string, and the ends of the texts in it."""

    def __init__(self) -> None:
        self._blocks: list[tuple[str, npt.NDArray[np.int64]]] = []

    def extend(self, values: Sequence[Any]) -> None:
        ends = np.zeros(len(values) + 1, np.int64)
        np.cumsum(np.fromiter(map(len, values), np.int64, len(values)), out=ends[1:])
        self._blocks.append(("".join(values), ends))

    def __getitem__(self, place: int) -> str:
        text, ends = self._blocks[place // _BLOCK]
        return text[ends[place % _BLOCK] : ends[place % _BLOCK + 1]]

    def __iter__(self) -> Iterator[str]:
        for text, ends in self._blocks:
            places = ends.tolist()
            yield from (text[start:end] for start, end in pairwise(places))


def _blocks(items: Iterable[_T]) -> Iterator[list[_T]]:
    remaining = iter(items)
    while block := list(islice(remaining, _BLOCK)):
        yield block


def _transposed(entries: Sequence[ManifestEntry], columns: Sequence[str]) -> list[list[Any]]:
    """The values of entries, by column."""
    own = [[getattr(entry, name) for entry in entries] for name in COLUMNS]
    return own + [[entry.columns.get(name, "") for entry in entries] for name in columns]


def write_manifest(
    path: Path, form: ManifestFormat, entries: Iterable[ManifestEntry], columns: Sequence[str] = ()
) -> None:
    """Write `entries` and their `columns` to the new file `path`, holding few of them in memory at a time."""
    (_write_csv if form == "csv" else _write_parquet)(path, entries, columns)


def read_manifest(folder: Path) -> Manifest | None:
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


def _write_csv(path: Path, entries: Iterable[ManifestEntry], columns: Sequence[str]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = files.CsvWriter(file)
        table.writerow([*COLUMNS, *columns])
        for entry in entries:
            further = [entry.columns.get(name, "") for name in columns]
            table.writerow([*(getattr(entry, name) for name in COLUMNS), *further])


def _write_parquet(path: Path, entries: Iterable[ManifestEntry], columns: Sequence[str]) -> None:
    parquet = import_parquet("a manifest in parquet")
    arrow: Any = import_module("pyarrow")
    kinds = {str: arrow.string(), int: arrow.int64()}
    every = {**COLUMNS, **dict.fromkeys(columns, str)}
    schema = arrow.schema([(name, kinds[kind]) for name, kind in every.items()])
    remaining = iter(entries)
    with parquet.ParquetWriter(path, schema) as writer:
        while group := list(islice(remaining, _GROUP)):
            values = dict(zip(every, _transposed(group, columns), strict=True))
            writer.write_table(arrow.table(values, schema=schema))


def _read_csv(path: Path) -> Manifest:
    with path.open(encoding="utf-8", newline="") as file:
        lines = csv.reader(file)
        names = next(lines, [])
        places = _places(names)
        blocks = (_columns(block, places) for block in _blocks(filter(None, lines)))
        return Manifest(blocks, [names[place] for place in places[len(COLUMNS) :]])


def _columns(lines: Sequence[Sequence[str]], places: Sequence[int]) -> list[Sequence[str]]:
    try:
        columns = list(zip(*lines, strict=True))
        return [columns[place] for place in places]
    except (ValueError, IndexError) as error:
        raise ValueError("a line has more or fewer fields than others") from error


def _read_parquet(path: Path) -> Manifest:
    table = import_parquet(f"reading '{printable(path)}'").read_table(path)
    places = _places(table.column_names)
    parts = (table.slice(start, _BLOCK) for start in range(0, table.num_rows, _BLOCK))
    blocks = ([part.column(place).to_pylist() for place in places] for part in parts)
    return Manifest(blocks, [table.column_names[place] for place in places[len(COLUMNS) :]])


def _places(names: Sequence[str]) -> list[int]:
    """Where each of `COLUMNS` stands among the columns of a file, and then each further column."""
    if missing := [name for name in COLUMNS if name not in names]:
        raise ValueError(f"it has no column {missing[0]}")
    return [*map(names.index, COLUMNS), *(place for place, name in enumerate(names) if name not in COLUMNS)]
