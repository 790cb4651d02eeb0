"""Finds the rows of an array in the files of its shards, and reads them.

A shard has one file of an array for each size of its images.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from vggfeat.dumps.errors import StoreError
from vggfeat.dumps.mapped import MappedFiles
from vggfeat.dumps.shards import payload_name
from vggfeat.dumps.sources import printable

Array = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]
Size = tuple[int, int]


class _Found(NamedTuple):
    """The number of each row's file; each file's name, and the least number of rows in it; a file of each size."""

    numbers: Integers
    names: list[str]
    least: list[int]
    examples: list[int]


class ShardRows:
    """The rows of the array `output`, (layer, reduction), in `files`.

    `columns` are the `shard`, `offset`, `height` and `width` of each row, as in the manifest. With `one_size`, all
    images have one size, and the names of files do not contain it.
    """

    def __init__(
        self, files: MappedFiles, output: tuple[str, str], columns: Mapping[str, Integers], *, one_size: bool
    ) -> None:
        self._files, self._output, self._one_size = files, output, one_size
        self.columns = columns

    @cached_property
    def _found(self) -> "_Found":
        """Where the rows are. Sorting them is left until one is read."""
        shards, heights, widths, offsets = (self.columns[name] for name in ("shard", "height", "width", "offset"))
        order = np.lexsort((widths, heights, shards))
        first = np.ones(len(order), np.bool_)
        first[1:] = np.any([np.diff(column[order]) != 0 for column in (shards, heights, widths)], axis=0)
        starts = np.flatnonzero(first)
        numbers = np.empty(len(order), np.int64)
        numbers[order] = np.cumsum(first) - 1
        sides: list[Size] = list(zip(heights[order][starts].tolist(), widths[order][starts].tolist(), strict=True))
        names = [
            payload_name(self._output, shard, None if self._one_size else side)
            for shard, side in zip(shards[order][starts].tolist(), sides, strict=True)
        ]
        least = (np.maximum.reduceat(offsets[order], starts) + 1).tolist() if len(starts) else []
        return _Found(numbers, names, least, list({side: number for number, side in enumerate(sides)}.values()))

    @cached_property
    def sizes(self) -> tuple[Size, ...]:
        """The different (height, width) of the images, in the order of the rows."""
        heights, widths = (self.columns[name].tolist() for name in ("height", "width"))
        return tuple(dict.fromkeys(zip(heights, widths, strict=True)))

    @cached_property
    def shapes(self) -> set[tuple[int, ...]]:
        """The different shapes of rows."""
        return {self._file(number).shape[1:] for number in self._found.examples}

    def require_one_shape(self) -> None:
        """Raise `StoreError` if rows differ in shape."""
        if len(self.shapes) > 1:
            raise StoreError(
                f"the rows of {'.'.join(self._output)} differ in shape: "
                f"take one size with of_size(height, width), such as of_size{self.sizes[0]}, or single rows"
            )

    def row(self, row: int) -> Array:
        """One row: a view of its file."""
        return self._file(self._found.numbers[row])[self.columns["offset"][row]]

    def gather(self, rows: Integers, rest: tuple[Any, ...]) -> Array:
        """Read rows (at least one) file by file, and index each by `rest`.

        Consecutive rows of one file are returned as a view of it.
        """
        numbers, offsets = self._found.numbers[rows], self.columns["offset"][rows]
        order = np.argsort(numbers, kind="stable")
        starts = np.flatnonzero(np.diff(numbers[order], prepend=-1))
        if len(starts) == 1:
            return self._part(int(numbers[0]), offsets, rest)
        self.require_one_shape()
        found: Array | None = None
        for group in np.split(order, starts[1:]):
            part = self._part(int(numbers[group[0]]), offsets[group], rest)
            found = np.empty((len(rows), *part.shape[1:]), part.dtype) if found is None else found
            found[group] = part
        return cast("Array", found)

    def _part(self, number: int, offsets: Integers, rest: tuple[Any, ...]) -> Array:
        first, last = int(offsets[0]), int(offsets[-1])
        if last - first == len(offsets) - 1 and (np.diff(offsets) == 1).all():
            return self._file(number)[(slice(first, last + 1), *rest)]
        return self._file(number)[(offsets, *rest)]

    def _file(self, number: int) -> Array:
        name = self._found.names[number]
        found = self._files[name]
        if len(found) < self._found.least[number]:
            raise StoreError(f"'{printable(self._files.folder / name)}' has fewer rows than the manifest says")
        return found
