"""The manifest of a dump: one entry for each input, as CSV or parquet."""

import csv
import io
import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from itertools import accumulate, chain, islice, pairwise
from pathlib import Path
from typing import Any, BinaryIO, Literal, get_args, overload

import numpy as np
import numpy.typing as npt

from vggfeat import files
from vggfeat.dumps.errors import StoreError
from vggfeat.dumps.sources import import_parquet, printable
from vggfeat.errors import InputError

ManifestFormat = Literal["csv", "parquet"]
Integers = npt.NDArray[np.int64]
Places = npt.NDArray[np.int32]
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

# Columns of integers; the others are texts.
_NUMBERS = tuple(name for name, kind in COLUMNS.items() if kind is int)

# A manifest is read in blocks of this many entries or bytes, which fit into the cache of a processor.
_BLOCK = 4096
_BLOCK_BYTES = 2**19

_DIGITS = 18
"""Integers with at most this many digits fit into 64 bits."""


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

    def __init__(self, blocks: Iterable["_Block"], columns: Sequence[str] = ()) -> None:
        """`blocks`: the `COLUMNS` and further `columns` of consecutive entries."""
        self.columns = tuple(columns)
        parts: dict[str, list[Integers]] = {name: [np.empty(0, np.int64)] for name in _NUMBERS}
        self._texts: list[Mapping[str, _Texts]] = []
        for block in blocks:
            self._texts.append(block.texts)
            for name, numbers in block.numbers.items():
                parts[name].append(numbers)
        self._starts = [0, *accumulate(len(texts["id"].starts) for texts in self._texts)]
        self.numbers: Mapping[str, Integers] = {name: np.concatenate(parts.pop(name)) for name in _NUMBERS}
        ok = [texts["status"].equal(b"ok") for texts in self._texts]
        self.ok: npt.NDArray[np.bool_] = np.concatenate([np.empty(0, np.bool_), *ok])

    @classmethod
    def of(cls, entries: Iterable[ManifestEntry]) -> "Manifest":
        """The manifest of `entries`."""
        entries = list(entries)
        columns = list(dict.fromkeys(name for entry in entries for name in entry.columns))
        parts = (entries[start : start + _BLOCK] for start in range(0, len(entries), _BLOCK))
        return cls((_block_of(_transposed(part, columns), columns) for part in parts), columns)

    def texts(self, name: str) -> list[str]:
        """The whole column `name`: `id`, `path`, `sha256`, `status`, `error` or one of `columns`."""
        return [text for texts in self._texts for text in texts[name]]

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
        for texts, (start, end) in zip(self._texts, pairwise(self._starts), strict=True):
            values = [
                self.numbers[name][start:end].tolist() if name in _NUMBERS else texts[name]
                for name in (*COLUMNS, *self.columns)
            ]
            yield from map(self._made, zip(*values, strict=True))

    def __eq__(self, other: object) -> bool:
        return tuple(self) == tuple(other) if isinstance(other, Manifest) else NotImplemented

    __hash__ = None  # pyright: ignore[reportAssignmentType] (a list of entries is not hashable)

    def _entry(self, place: int) -> ManifestEntry:
        number = bisect_right(self._starts, place) - 1
        texts, inside = self._texts[number], place - self._starts[number]
        return self._made([
            int(self.numbers[name][place]) if name in _NUMBERS else texts[name][inside]
            for name in (*COLUMNS, *self.columns)
        ])  # fmt: skip

    def _made(self, values: Sequence[Any]) -> ManifestEntry:
        further = zip(self.columns, values[len(COLUMNS) :], strict=True)
        own: dict[str, Any] = dict(zip(COLUMNS, values, strict=False))
        return ManifestEntry(**own, columns={name: text for name, text in further if text})


@dataclass(frozen=True, slots=True)
class _Texts:
    """A column of texts in UTF-8: text number n is `data[starts[n] : ends[n]]`."""

    data: bytes
    starts: Places
    ends: Places

    @classmethod
    def of(cls, values: Sequence[str]) -> "_Texts":
        encoded = [text.encode("utf-8", "surrogatepass") for text in values]
        edges = np.zeros(len(values) + 1, np.int32)
        np.cumsum(np.fromiter(map(len, encoded), np.int32, len(values)), out=edges[1:])
        return cls(b"".join(encoded), edges[:-1], edges[1:])

    def equal(self, text: bytes) -> npt.NDArray[np.bool_]:
        """Which texts are `text`."""
        found = self.ends - self.starts == len(text)
        data, starts = np.frombuffer(self.data, np.uint8), self.starts[found]
        same = [data[starts + place] == value for place, value in enumerate(text)]
        found[found] = np.logical_and.reduce(same)
        return found

    def __getitem__(self, place: int) -> str:
        return self.data[self.starts[place] : self.ends[place]].decode("utf-8", "surrogatepass")

    def __iter__(self) -> Iterator[str]:
        edges = zip(self.starts.tolist(), self.ends.tolist(), strict=True)
        if self.data.isascii():  # slicing one text is faster than decoding many
            text = self.data.decode("ascii")
            return (text[start:end] for start, end in edges)
        return (self.data[start:end].decode("utf-8", "surrogatepass") for start, end in edges)


@dataclass(frozen=True, slots=True)
class _Block:
    """Consecutive entries, by column."""

    texts: Mapping[str, _Texts]
    numbers: Mapping[str, Integers]


def _block_of(values: Sequence[Sequence[Any]], columns: Sequence[str]) -> _Block:
    """The block with `values`, one sequence for each of `COLUMNS` and `columns`."""
    texts: dict[str, _Texts] = {}
    numbers: dict[str, Integers] = {}
    for name, column in zip((*COLUMNS, *columns), values, strict=True):
        if name in _NUMBERS:
            numbers[name] = np.fromiter(map(int, column), np.int64, len(column))
        else:
            texts[name] = _Texts.of(column)
    return _Block(texts, numbers)


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
        except (OSError, ValueError, LookupError, AttributeError, TypeError, OverflowError, csv.Error) as error:
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
    with path.open("rb") as file:
        blocks = _whole_lines(file)
        first = next(blocks, b"")
        end = _first_end(first)
        names = next(csv.reader(io.StringIO(first[:end].decode(), newline="")), [])
        places = _places(names)
        columns = [names[place] for place in places[len(COLUMNS) :]]
        parts = (data for data in chain([first[end:]], blocks) if data)
        return Manifest((_csv_block(data, places, columns) for data in parts), columns)


def _whole_lines(file: BinaryIO) -> Iterator[bytes]:
    """The bytes of a CSV file in blocks of whole lines, each with its end; a quoted field may hold ends of lines."""
    rest = b""
    while more := file.read(_BLOCK_BYTES):
        data = rest + more
        if end := _last_end(data):
            yield data[:end]
        rest = data[end:]
    if rest:
        yield rest if rest.endswith(b"\n") else rest + b"\n"


def _last_end(data: bytes) -> int:
    """The end of the last line of `data` that is whole: the ends of lines in quoted fields do not count."""
    end = data.rfind(b"\n") + 1
    inside = data.count(b'"', 0, end) % 2
    while inside:
        before = data.rfind(b"\n", 0, data.rindex(b'"', 0, end)) + 1
        inside = (inside + data.count(b'"', before, end)) % 2
        end = before
    return end


def _first_end(data: bytes) -> int:
    """The end of the first line of `data`."""
    end = data.find(b"\n") + 1
    while data.count(b'"', 0, end) % 2:
        end = data.find(b"\n", end) + 1
    return end


def _csv_block(data: bytes, places: Sequence[int], columns: Sequence[str]) -> _Block:
    """The entries in some lines of a CSV file. `places` are those of `COLUMNS` and `columns` in a line."""
    text = data.decode()  # raises ValueError if it is not UTF-8
    if (found := _plain_block(data, places, columns)) is not None:
        return found
    lines = list(filter(None, csv.reader(io.StringIO(text, newline=""))))
    try:
        every = list(zip(*lines, strict=True)) if lines else [()] * len(places)
        values = [every[place] for place in places]
    except (ValueError, IndexError) as error:
        raise ValueError("a line has more or fewer fields than others") from error
    return _block_of(values, columns)


def _plain_block(data: bytes, places: Sequence[int], columns: Sequence[str]) -> _Block | None:
    """What `_csv_block` does, by numpy and without copying texts; None if the lines are not plain, or damaged."""
    if b'"' in data or b"\r" in data:
        return None
    array = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero((array == ord(",")) | (array == ord("\n"))).astype(np.int32)
    if len(ends) % len(places):
        return None
    ends = ends.reshape(-1, len(places))
    kinds = array[ends]
    if (kinds[:, -1] != ord("\n")).any() or (kinds[:, :-1] != ord(",")).any():
        return None
    starts = np.concatenate(([0], ends.reshape(-1)[:-1] + 1), dtype=np.int32).reshape(ends.shape)
    texts: dict[str, _Texts] = {}
    numbers: dict[str, Integers] = {}
    for name, place in zip((*COLUMNS, *columns), places, strict=True):
        if name not in _NUMBERS:
            texts[name] = _Texts(data, starts[:, place], ends[:, place])
        elif (found := _integers(array, starts[:, place], ends[:, place])) is None:
            return None
        else:
            numbers[name] = found
    return _Block(texts, numbers)


def _integers(data: npt.NDArray[np.uint8], starts: Places, ends: Places) -> Integers | None:
    """The integers that stand in `data` as digits, maybe after a minus; None if a text is something else."""
    negative = data[starts] == ord("-")
    lengths = ends - starts - negative
    if lengths.min() < 1 or lengths.max() > _DIGITS:
        return None
    value = np.zeros(len(starts), np.int64)
    for place in range(int(lengths.max())):
        there = place < lengths
        digits = np.where(there, data[np.maximum(ends - 1 - place, starts)] - np.uint8(ord("0")), 0)
        if (digits > 9).any():
            return None
        value += digits.astype(np.int64) * 10**place
    return np.where(negative, -value, value)


def _read_parquet(path: Path) -> Manifest:
    table = import_parquet(f"reading '{printable(path)}'").read_table(path)
    places = _places(table.column_names)
    columns = [table.column_names[place] for place in places[len(COLUMNS) :]]
    parts = (table.slice(start, _BLOCK) for start in range(0, table.num_rows, _BLOCK))
    return Manifest(
        (_block_of([part.column(place).to_pylist() for place in places], columns) for part in parts), columns
    )


def _places(names: Sequence[str]) -> list[int]:
    """Where each of `COLUMNS` stands among the columns of a file, and then each further column."""
    if missing := [name for name in COLUMNS if name not in names]:
        raise ValueError(f"it has no column {missing[0]}")
    return [*map(names.index, COLUMNS), *(place for place, name in enumerate(names) if name not in COLUMNS)]
