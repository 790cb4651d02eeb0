"""The arrays of a dump, read from disk when they are indexed."""

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from vggfeat.dumps.errors import StoreError
from vggfeat.dumps.mapped import MappedFiles
from vggfeat.dumps.protocols import DumpLike
from vggfeat.dumps.rows import ShardRows
from vggfeat.errors import check_number

if TYPE_CHECKING:
    from torch import Tensor
    from torch.utils.data import Dataset

Array = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]


class StoredDump(DumpLike, Protocol):
    """A dump whose arrays can be read."""

    files: MappedFiles

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the rows of every array."""
        ...

    def __len__(self) -> int: ...


class FeatureArray:
    """The features of one layer and reduction: an array (N, ...) that is read from disk when it is indexed.

    Indexing follows numpy and returns numpy arrays. An integer, or a slice within one shard, returns a read-only view
    of the file; everything else returns a copy. `numpy.asarray` reads the whole array. If pictures differ in size and
    the reduction keeps the size, only single rows can be read: `of_size` returns the array of one size.

    >>> import tempfile, torch, vggfeat
    >>> from pathlib import Path
    >>> folder = Path(tempfile.mkdtemp())
    >>> for number in range(4):
    ...     vggfeat.write_picture(folder / f"{number}.png", torch.rand(1, 3, 32, 32 if number else 48))
    >>> options = {"layers": "relu1_1", "network": "vgg11", "weights": None, "resize": None, "workers": 0}
    >>> array = vggfeat.dump(folder, folder / "out", **options)["relu1_1"]
    >>> array, array.one_shape, array.sizes
    (FeatureArray(relu1_1.full, 4 of 2 sizes, float32), False, ((32, 48), (32, 32)))
    >>> square = array.of_size(32, 32)
    >>> square.shape, square.ndim, square.dtype, square.ids
    ((3, 64, 32, 32), 4, dtype('float32'), ('1.png', '2.png', '3.png'))
    >>> square[0].shape, square[[2, 0], :8].shape, square.to_numpy().shape, torch.as_tensor(square).shape
    ((64, 32, 32), (2, 8, 32, 32), (3, 64, 32, 32), torch.Size([3, 64, 32, 32]))
    >>> square.reshape(3, -1)[:, :100].shape
    (3, 100)
    >>> [(ids, features.shape) for ids, features in square.batches(2)]
    [(('1.png', '2.png'), (2, 64, 32, 32)), (('3.png',), (1, 64, 32, 32))]
    >>> features, name = square.dataset()[0]
    >>> features.shape, name
    (torch.Size([64, 32, 32]), '1.png')
    """

    def __init__(self, dump: StoredDump, output: tuple[str, str], entries: Integers) -> None:
        """`entries`: the place in the manifest of each row."""
        self._dump = dump
        self.layer, self.reduction = output
        self._entries = entries

    @cached_property
    def _rows(self) -> ShardRows:
        numbers = self._dump.manifest.numbers
        columns = {name: numbers[name][self._entries] for name in ("shard", "offset", "height", "width")}
        one_size = self._dump.recipe.fixed_side is not None
        return ShardRows(self._dump.files, (self.layer, self.reduction), columns, one_size=one_size)

    @property
    def ids(self) -> tuple[str, ...]:
        """The id of each row."""
        if len(self) == len(self._dump):
            return self._dump.ids
        return tuple(map(self._dump.manifest.texts("id").__getitem__, self._entries.tolist()))

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """The different (height, width) of the images that the network received."""
        return self._rows.sizes

    def of_size(self, height: int, width: int) -> "FeatureArray":
        """The array of the pictures of one size. Raises `StoreError` if there are none."""
        columns = self._rows.columns
        entries = self._entries[(columns["height"] == height) & (columns["width"] == width)]
        if not len(entries):
            known = ", ".join(f"{a}x{b}" for a, b in self.sizes[:8])
            raise StoreError(f"no picture is {height}x{width}: there are {known}")
        return FeatureArray(self._dump, (self.layer, self.reduction), entries)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the values."""
        return np.dtype(self._dump.fingerprint["dtype"])

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, ...), or (0,) if no picture could be read. Raises `StoreError` if rows differ in shape."""
        self._rows.require_one_shape()
        return (len(self._entries), *next(iter(self._rows.shapes), ()))

    @property
    def one_shape(self) -> bool:
        """Whether all rows have the same shape."""
        return len(self._rows.shapes) < 2

    @property
    def ndim(self) -> int:
        """The number of axes, including the rows."""
        return len(self.shape)

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Array]:
        return (self._rows.row(row) for row in range(len(self)))

    def __getitem__(self, index: Any) -> Array:
        if isinstance(index, int | np.integer) and not isinstance(index, bool):
            return self._rows.row(cast("int", index))  # without an array of all rows
        first, rest = (index[0], index[1:]) if isinstance(index, tuple) and index else (index, ())
        first, rest = cast("Any", first), cast("tuple[Any, ...]", rest)
        mask = isinstance(first, bool | np.bool_) or (np.ndim(first) > 1 and np.asarray(first).dtype == bool)
        if first is Ellipsis or first is None or mask:
            return self.to_numpy()[index]
        places: Any = np.arange(len(self))[first]
        simple = all(part is None or part is Ellipsis or _is_plain(part) for part in rest)
        if np.ndim(places) > 1 or not simple:
            # Gather the rows, then let numpy combine the indices.
            rows = self._gather(np.asarray(places).reshape(-1))
            if isinstance(first, slice):
                return rows[(slice(None), *rest)]
            return rows[(np.arange(len(rows)).reshape(np.shape(places))[()], *rest)]
        if np.ndim(places) == 0:
            return self._rows.row(int(places))[rest]
        return self._gather(np.asarray(places), rest)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError("reading a dump from disk makes a copy: copy=False is impossible")
        found = self.to_numpy()
        return found if dtype is None else found.astype(dtype, copy=False)

    def __dlpack__(self, **options: Any) -> object:
        return self.to_numpy().__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return np.empty(0).__dlpack_device__()

    def to_numpy(self) -> Array:
        """Read the whole array into memory. The result is writeable."""
        found = np.asarray(self[:])
        return found if found.flags.owndata and found.flags.writeable else np.array(found)

    def reshape(self, *shape: int) -> "FlatRows":
        """The rows flattened, still on disk. `shape` must be (N, -1)."""
        if shape != (len(self), -1):
            raise StoreError(f"an array on disk can only be reshaped to ({len(self)}, -1): use to_numpy() first")
        return FlatRows(self)

    def batches(self, size: int) -> Iterator[tuple[tuple[str, ...], Array]]:
        """Yield the ids and features of `size` rows at a time, in order. Raises `InputError` if `size` is below 1."""
        check_number("size", size, 1)
        ids = self.ids
        parts = (slice(start, start + size) for start in range(0, len(self), size))
        return ((ids[part], self[part]) for part in parts)

    def dataset(self) -> "Dataset[tuple[Tensor, str]]":
        """A torch `Dataset` of (features, id). It reads rows when they are indexed, also in worker processes."""
        from vggfeat.dumps.datasets import FeatureDataset

        return FeatureDataset(self)

    def _gather(self, rows: Integers, rest: tuple[Any, ...] = ()) -> Array:
        if not len(rows):
            return np.empty((0, *self.shape[1:]), self.dtype)[(slice(None), *rest)]
        return self._rows.gather(rows, rest)

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.shape)) if len(self.sizes) < 2 else f"{len(self)} of {len(self.sizes)} sizes"
        return f"FeatureArray({self.layer}.{self.reduction}, {shape}, {self.dtype})"


def _is_plain(part: object) -> bool:
    return isinstance(part, slice | int | np.integer) and not isinstance(part, bool)


class FlatRows:
    """The rows of a `FeatureArray`, flattened to (N, D). `array[rows, columns]` reads a part of each row."""

    def __init__(self, array: FeatureArray) -> None:
        self._array = array
        self.shape = (len(array), int(np.prod(array.shape[1:])))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: tuple[slice, slice]) -> Array:
        rows, columns = index
        return np.stack([self._array[int(place)].reshape(-1)[columns] for place in np.arange(len(self))[rows]])
