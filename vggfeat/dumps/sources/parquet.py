"""Parquet files, with paths or, as Hugging Face writes them, with the pictures themselves."""

from collections.abc import Iterator
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from vggfeat.dumps.sources.filtering import SourceFilter
from vggfeat.dumps.sources.item import Item, columns_of, joined, printable, unreadable
from vggfeat.dumps.sources.tables import PATHS, check_ids, chosen_column, table_items, text_of
from vggfeat.errors import ImageError, InputError, imported

_IMAGES = ("image", "img", "bytes", "jpg", "png")


class ParquetSource:
    """The pictures of a Parquet file: one a row.

    A column holds their paths, or their bytes: as binary values, or as structs {bytes, path}, as Hugging Face's data
    sets do. Where a struct has no bytes, its path counts.
    """

    def __init__(self, path: Path, selection: SourceFilter) -> None:
        self._path = path
        self._selection = selection

    def items(self) -> Iterator[Item]:
        """The pictures. Raises `InputError` if the file cannot be read, or has no column of pictures or paths."""
        path, parquet = self._path, import_parquet(f"reading '{printable(self._path)}'")
        try:
            schema = parquet.read_schema(path)
            if (column := self._embedded(schema)) is None:
                table = parquet.read_table(path, columns=self._scalars(schema, ""))
                return table_items(path, table.to_pylist(), self._selection)
            return self._rows(parquet, schema, column)
        except (OSError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise unreadable(path, error) from error

    def _embedded(self, schema: Any) -> str | None:
        """The column that holds pictures, if there is one."""
        embedded = [field.name for field in schema if _holds_bytes(field.type)]
        if (asked := self._selection.column) is not None:
            chosen_column(self._path, schema.names, asked, ())
            return asked if asked in embedded else None
        known = [name for name in _IMAGES if name in embedded]
        if not known and len(embedded) > 1:
            names = ", ".join(embedded)
            raise InputError(f"'{printable(self._path)}' has several columns of bytes: choose with --column: {names}")
        paths = [name for name in PATHS if name in schema.names]
        structs = [name for name in embedded if _is_struct(schema.field(name).type)]
        return next(iter(known or structs or ([] if paths else embedded)), None)

    def _scalars(self, schema: Any, column: str) -> list[str]:
        """The columns of texts and numbers, other than `column`."""
        types: Any = import_module("pyarrow").types
        found: list[str] = []
        for field in schema:
            if field.name == column:
                continue
            kind = field.type.value_type if types.is_dictionary(field.type) else field.type
            if types.is_nested(kind) or _holds_bytes(kind) or types.is_null(kind):
                self._selection.skip_column(field.name)
            else:
                found.append(field.name)
        return found

    def _rows(self, parquet: Any, schema: Any, column: str) -> Iterator[Item]:
        path, further = self._path, self._scalars(schema, column)
        named = _is_struct(schema.field(column).type) and "path" in {field.name for field in schema.field(column).type}
        file = parquet.ParquetFile(path)  # read_table would lift image.path out of its struct
        table = file.read(columns=[*further, *([f"{column}.path"] if named else [])])
        count = file.metadata.num_rows
        if not count:
            raise InputError(f"'{printable(path)}' holds no picture")
        rows: list[dict[str, Any]] = table.to_pylist() or [{} for _ in range(count)]
        check_ids(path, [row.get("id") for row in rows])
        return (
            Item(
                text_of(row.get("id")) or text_of((row.get(column) or {}).get("path")) or f"{number:06}",
                str(path),
                f"{column}/{number}",
                columns=columns_of({name: row[name] for name in further if name != "id"}),
            )
            for number, row in enumerate(rows)
        )


def read_parquet_row(path: str, member: str, stamp: tuple[int, int]) -> bytes:
    """The bytes of the picture in row `column/12`. `stamp` tells versions of the file apart.

    Raises `ImageError`, OSError or ValueError.
    """
    column, _, row = member.rpartition("/")
    _, starts = _opened(path, stamp)
    group = int(np.searchsorted(starts, int(row), "right")) - 1
    if not 0 <= group < len(starts) - 1:
        raise ImageError(f"the file has no row {row}")
    value = _group(path, stamp, column, group)[int(row) - int(starts[group])].as_py()
    data, name = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
    if data is None and name:
        return Path(joined(Path(path).parent, name)).read_bytes()
    if not isinstance(data, bytes):
        raise ImageError(f"row {row} holds no picture")
    return data


@lru_cache(maxsize=2)
def _opened(path: str, _stamp: tuple[int, int]) -> tuple[Any, Any]:
    """An open file, and the first row of each of its row groups and after them."""
    file = import_parquet(f"reading '{printable(path)}'").ParquetFile(path)
    about = file.metadata
    counts = [about.row_group(number).num_rows for number in range(about.num_row_groups)]
    return file, np.cumsum([0, *counts])


@lru_cache(maxsize=1)
def _group(path: str, stamp: tuple[int, int], column: str, number: int) -> Any:
    """A column of one row group. Rows are read in order, so that each group is read once."""
    file, _ = _opened(path, stamp)
    return file.read_row_group(number, columns=[column]).column(column).combine_chunks()


def _is_struct(kind: Any) -> bool:
    return bool(import_module("pyarrow").types.is_struct(kind))


def _holds_bytes(kind: Any) -> bool:
    types: Any = import_module("pyarrow").types
    if types.is_struct(kind):
        return any(field.name == "bytes" and _holds_bytes(field.type) for field in kind)
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def import_parquet(what: str) -> Any:
    """The parquet module of pyarrow. Raises `InputError` with the command to install it if it is missing."""
    return imported("pyarrow.parquet", f"{what} needs pyarrow", "parquet", kind=InputError)
