"""Lists of paths: text, CSV and parquet."""

import csv
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from vggfeat.dumps.sources.item import Item, printable, unreadable
from vggfeat.errors import InputError


def line_items(path: Path) -> Iterator[Item]:
    """The pictures of a list, one path a line."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise unreadable(path, error) from error
    names = [os.fsdecode(line.removeprefix(b"\xef\xbb\xbf")).strip() for line in lines]
    return _listed(path, [(name, "") for name in names if name])


def read_csv(path: Path) -> list[dict[str, Any]]:
    """The lines of a table by column."""
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            return list(csv.DictReader(file, delimiter=delimiter))
    except (OSError, csv.Error) as error:
        raise unreadable(path, error) from error


def read_parquet(path: Path) -> list[dict[str, Any]]:
    """The columns `path` and `id` of a table."""
    parquet: Any = import_parquet(f"reading '{printable(path)}'")
    try:
        names: list[str] = parquet.read_schema(path).names
        table = parquet.read_table(path, columns=[name for name in ("path", "id") if name in names])
        return cast("list[dict[str, Any]]", table.to_pylist())
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error


def import_parquet(what: str) -> Any:
    """The parquet module of pyarrow. Raises `InputError` with the command to install it if it is missing."""
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise InputError(f'{what} needs pyarrow: pip install "vggfeat[parquet]"') from error
    return cast("Any", parquet)


def table_items(path: Path, rows: list[dict[str, Any]]) -> Iterator[Item]:
    """The pictures of a table with a column `path`."""
    if rows and "path" not in rows[0]:
        columns = ", ".join(str(name) for name in rows[0])
        raise InputError(f"'{printable(path)}' has no column 'path': it has {columns}")
    ids = [str(row["id"]) for row in rows if row.get("id") not in (None, "")]
    if ids and len(ids) < len(rows):
        raise InputError(f"'{printable(path)}' has an id in {len(ids)} of {len(rows)} rows: give all, or none")
    if twice := [name for name, count in Counter(ids).items() if count > 1]:
        raise InputError(f"'{printable(path)}' has the id '{printable(twice[0])}' more than once")
    return _listed(path, [(str(row["path"] or ""), str(row.get("id") or "")) for row in rows])


def _listed(path: Path, names: list[tuple[str, str]]) -> Iterator[Item]:
    if not names:
        raise InputError(f"'{printable(path)}' lists no picture")
    return (Item(printable(identity or name), os.path.join(path.parent, name)) for name, identity in names)  # noqa: PTH118 (Path would normalise it)
