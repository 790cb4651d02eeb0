"""Tables with a column of paths: CSV, TSV and JSON lines."""

import csv
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from vggfeat.dumps.sources.filtering import SourceFilter
from vggfeat.dumps.sources.item import Item, columns_of, is_scalar, joined, printable, unreadable, url_item
from vggfeat.errors import InputError, near

PATHS = ("path", "file_name", "image", "filename", "filepath", "image_path")
"""The columns of paths that are found by themselves: the first of these that a table has."""

Row = Mapping[str, Any]


class TableSource:
    """The pictures of a table: one a row, whose path stands in a column.

    Relative paths start at the table's folder. The column `id`, if there is one, holds the ids.
    """

    def __init__(self, path: Path, selection: SourceFilter) -> None:
        self._path = path
        self._selection = selection

    def items(self) -> Iterator[Item]:
        """The pictures. Raises `InputError` if the table cannot be read, or has no column of paths."""
        lines = self._path.suffix.lower() in {".jsonl", ".ndjson"}
        return table_items(self._path, _json_lines(self._path) if lines else _csv(self._path), self._selection)


def table_items(path: Path, rows: Sequence[Row], selection: SourceFilter) -> Iterator[Item]:
    """The pictures of the rows of a table: those with a path, and an item with an error for each without."""
    if not rows:
        raise InputError(f"'{printable(path)}' lists no picture")
    column = _column(path, dict.fromkeys(name for row in rows for name in row), selection.column)
    check_ids(path, [row.get("id") for row in rows])
    for name in {name: 1 for row in rows for name, value in row.items() if name != column and not is_scalar(value)}:
        selection.skip_column(name)
    found = False
    for number, row in enumerate(rows, 1):
        name = row.get(column)
        rest = {key: value for key, value in row.items() if key not in {column, "id"} and is_scalar(value)}
        identity, columns = text_of(row.get("id")), columns_of(rest)
        if not isinstance(name, str) or not name.strip():
            found = True
            error = f"row {number} of '{printable(path)}' has no {column}"
            yield Item(identity or f"row {number}", str(path), error=error, columns=columns)
        elif selection.lists(name):
            found = True
            file = Item(identity or printable(name), joined(path.parent, name), columns=columns)
            yield url_item(name, path, identity, columns) or file
    if not found:
        raise InputError(selection.nothing(f"'{printable(path)}'"))


def check_ids(path: Path, values: Iterable[object]) -> None:
    """Raise `InputError` if some rows have an id and others none, or an id occurs twice."""
    every = list(map(text_of, values))
    ids = [name for name in every if name]
    if ids and len(ids) < len(every):
        raise InputError(f"'{printable(path)}' has an id in {len(ids)} of {len(every)} rows: give all, or none")
    if twice := [name for name, count in Counter(ids).items() if count > 1]:
        raise InputError(f"'{printable(path)}' has the id '{twice[0]}' more than once")


def text_of(value: object) -> str:
    """The text of an id; empty if there is none."""
    return "" if value is None or not is_scalar(value) else printable(str(value))


def chosen_column(path: Path, names: Iterable[str], asked: str | None, known: Iterable[str]) -> str | None:
    """The column `asked` for, else the first of `known` that is there, else None. Raises `InputError`."""
    names = list(names)
    if asked is not None:
        if asked not in names:
            raise InputError(f"'{printable(path)}' has no column '{asked}': {near(asked, map(str, names))}")
        return asked
    return next((name for name in known if name in names), None)


def _column(path: Path, names: Iterable[str], asked: str | None) -> str:
    names = list(names)
    if (found := chosen_column(path, names, asked, PATHS)) is None:
        has = printable(", ".join(map(str, names)))
        raise InputError(f"'{printable(path)}' has no column 'path': it has {has}; name the one of paths with --column")
    return found


def _csv(path: Path) -> list[Row]:
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            first = file.readline()
            file.seek(0)
            # In many countries, spreadsheets separate the fields of CSV by semicolons.
            separators = "\t" if path.suffix.lower() == ".tsv" else ",;"
            delimiter = next((each for each in separators if each in first), separators[0])
            lines = csv.DictReader(file, delimiter=delimiter)
            rows: list[Row] = []
            for row in lines:
                if None in row:  # pyright: ignore[reportUnnecessaryContains] (the key of surplus fields)
                    raise InputError(f"line {lines.line_num} of '{printable(path)}' has more fields than the first")
                rows.append(row)
            return rows
    except (OSError, csv.Error) as error:
        raise unreadable(path, error) from error


def _json_lines(path: Path) -> list[Row]:
    try:
        lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    except OSError as error:
        raise unreadable(path, error) from error
    rows: list[Row] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row: object = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"line {number} of '{printable(path)}' is not JSON") from error
        if not isinstance(row, dict):
            raise InputError(f"line {number} of '{printable(path)}' is not a JSON object, such as {{\"path\": ...}}")
        rows.append(cast("Row", row))
    return rows
