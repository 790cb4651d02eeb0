"""Open a dump: arrays that stay on the disk until they are asked for, with the ids of their rows."""

import os
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast, overload

import numpy as np
import numpy.typing as npt

from vggfeat.dumps.recipe import DumpRecipe
from vggfeat.dumps.sources import printable
from vggfeat.dumps.statistics import LayerStatistics, combine, correlation_distances, linear_cka
from vggfeat.dumps.store import (
    Receipt,
    Row,
    Store,
    StoreError,
    damaged_manifest,
    payload_name,
    read_manifest,
    shard_name,
)
from vggfeat.errors import InputError, near

if TYPE_CHECKING:
    from torch import Tensor
    from torch.utils.data import Dataset

    from vggfeat.dumps.export import Format

Array = npt.NDArray[Any]

_OPEN_FILES = 64


def open_dump(out: str | os.PathLike[str], *, partial: bool = False) -> "Dump":
    """Open the dump in the folder `out`. `partial` admits one that is not complete, as far as it got.

    Raises `StoreError`, a `VggfeatError`, where there is no dump, or one that is incomplete or damaged.
    """
    store = Store(out)
    run = store.run()
    if run is None:
        raise StoreError(f"'{printable(store.path)}' is no dump: it has no run.json")
    rows = read_manifest(store.path)
    if rows is None:
        receipts = store.receipts()
        if not partial:
            shards = run["shards"]
            raise StoreError(
                f"'{printable(store.path)}' is incomplete: {len(receipts)} of {shards} shards are done; "
                "the command that began it goes on"
            )
        rows = tuple(row for number in sorted(receipts) for row in receipts[number].rows)
    elif len(rows) != (count := run["fingerprint"]["inputs"]["count"]):
        raise damaged_manifest(store.path, "manifest", f"it has {len(rows)} rows of {count}")
    return Dump(store.path, run, rows)


class Dump:
    """A dump on the disk.

    `manifest`: a `Row` for every input, in the order of the sources. `ids`: those of the inputs that have features,
    which are the rows of every array. `dump["relu3_3", "mean"]`, `dump["relu3_3.mean"]` or, where only one reduction
    of it is stored, `dump["relu3_3"]` is a `FeatureArray`.
    """

    def __init__(self, path: Path, run: Mapping[str, Any], rows: tuple[Row, ...]) -> None:
        self.path = path
        self.run = run
        self.fingerprint: Mapping[str, Any] = run["fingerprint"]
        self.shards: int = run["shards"]
        self.manifest = rows
        self._good = tuple(row for row in rows if row.ok)

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers, in the order of the network."""
        return tuple(self.fingerprint["layers"])

    @property
    def outputs(self) -> tuple[tuple[str, str], ...]:
        """Each (layer, reduction) that is stored."""
        reductions: Mapping[str, list[str]] = self.fingerprint["reductions"]
        return tuple((layer, reduction) for layer in self.layers for reduction in reductions[layer])

    @cached_property
    def recipe(self) -> DumpRecipe:
        """What was computed of every picture."""
        try:
            return DumpRecipe.from_dict(self.fingerprint, self.run["weights"])
        except (LookupError, TypeError, AttributeError) as error:
            raise StoreError(f"'{printable(self.path / 'run.json')}' is damaged: {error}") from error

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """The ids of the rows of every array."""
        return tuple(row.id for row in self._good)

    @cached_property
    def failed(self) -> tuple[Row, ...]:
        """The rows of the inputs that have no features, each with its reason."""
        return tuple(row for row in self.manifest if not row.ok)

    def __len__(self) -> int:
        return len(self._good)

    def __iter__(self) -> NoReturn:
        raise TypeError("a dump is not iterable: iterate over its outputs, its ids or its manifest")

    def __contains__(self, key: object) -> bool:
        """Whether `dump[key]` is an array."""
        try:
            self[cast("str", key)]
        except (KeyError, TypeError):
            return False
        return True

    def __getitem__(self, key: str | tuple[str, str]) -> "FeatureArray":
        names = {".".join(output): output for output in self.outputs}
        word = key if isinstance(key, str) else ".".join(key)
        alone = [output for output in self.outputs if output[0] == word]
        if word not in names and len(alone) != 1:
            raise KeyError(f"no array '{word}' in the dump: {near(word, names)}")
        return FeatureArray(self, names[word] if word in names else alone[0], self._good)

    def __repr__(self) -> str:
        arrays = ", ".join(".".join(output) for output in self.outputs)
        return f"Dump('{printable(self.path)}', {len(self)} of {len(self.manifest)} pictures, {arrays})"

    def export(self, target: str | os.PathLike[str], to: "Format", **options: Iterable[str]) -> Path:
        """Write it as zarr, h5, mat, csv, parquet or safetensors: see `vggfeat.dumps.export.export`."""
        from vggfeat.dumps.export import export

        return export(self, target, to, **options)

    def receipts(self) -> dict[int, Receipt]:
        """The receipts of the shards, with the hashes of their files."""
        return Store(self.path).receipts()

    def clipped(self) -> dict[str, int]:
        """How many values of each array lay beyond float16's range, and were clipped to it."""
        return self._total(lambda receipt: receipt.clipped)

    def not_finite(self) -> dict[str, int]:
        """How many values of each array were infinite or no number, as the network computed them."""
        return self._total(lambda receipt: receipt.not_finite)

    def _total(self, counts: Callable[[Receipt], Mapping[str, int]]) -> dict[str, int]:
        total: Counter[str] = Counter()
        for receipt in Store(self.path).each_receipt():
            total.update(counts(receipt))
        return dict(total)

    def statistics(self) -> dict[str, LayerStatistics]:
        """What `statistics=True` measured, by layer. Raises `StoreError` where nothing was."""
        topk = self.fingerprint["statistics"]
        if not topk:
            raise StoreError(f"'{printable(self.path)}' has no statistics: dump with statistics=True (--statistics)")
        ids: dict[int, list[str]] = {}
        for row in self.manifest:
            ids.setdefault(row.shard, []).append(row.id)
        return combine(self.layers, ((self._partial(shard), names) for shard, names in sorted(ids.items())), topk)

    def cka(self) -> tuple[list[str], npt.NDArray[np.float64]]:
        """The layers, and linear CKA between each two on their channel means, (L, L): over all pictures."""
        if not self.fingerprint["cka"]:
            raise StoreError(f"'{printable(self.path)}' has no CKA: dump with cka=True (--cka)")
        shards = self._shards()
        if not shards:
            raise StoreError(f"'{printable(self.path)}' has no CKA: no picture could be read")
        return linear_cka({layer: _Means(self, layer, shards) for layer in self.layers})

    def rdm(self, layer: str, reduction: str | None = None) -> tuple[tuple[str, ...], npt.NDArray[np.float32]]:
        """The ids of pictures, and 1 - the correlation of each two of them, (N, N).

        Of the channel means, of as many pictures as the dump was asked for; or of all values of a `reduction` that is
        stored, of all pictures, exactly, which reads every value once.
        """
        if layer not in self.layers:
            raise InputError(f"unknown layer '{layer}' of the dump: {near(layer, self.layers)}")
        if not self._good:
            raise StoreError(f"'{printable(self.path)}' has no RDM: no picture could be read")
        if reduction is not None:
            array = self[layer, reduction]
            return self.ids, correlation_distances(cast("Array", array))
        if not self.fingerprint["rdm"]:
            raise StoreError(f"'{printable(self.path)}' has no RDM: dump with rdm=N (--rdm N), or name a reduction")
        most: int = self.fingerprint["rdm"]
        rows: list[Array] = []
        count = 0
        for shard in self._shards():
            if count >= most:
                break
            rows.append(self.means_of(layer, shard))
            count += len(rows[-1])
        means = np.concatenate(rows)[:most]
        return self.ids[:most], correlation_distances(means)

    def _shards(self) -> list[int]:
        """Those that have a good picture."""
        return sorted({row.shard for row in self._good})

    def _partial(self, shard: int) -> Mapping[str, Array]:
        path = self.path / f"receipts/{shard_name(shard)}.npz"
        try:
            return cast("Mapping[str, Array]", np.load(path, allow_pickle=False))
        except (OSError, ValueError) as error:
            raise StoreError(f"cannot read '{printable(path)}': {error}") from error

    def means_of(self, layer: str, shard: int) -> Array:
        """The channel means of a shard's good pictures, (N, C), where they are kept."""
        return self._partial(shard)[f"{layer}/means"]


class _Means(Sequence[Array]):
    """A layer's channel means, shard by shard, each read when it is asked for."""

    def __init__(self, dump: Dump, layer: str, shards: Sequence[int]) -> None:
        self._dump, self._layer = dump, layer
        self._shards = shards

    def __len__(self) -> int:
        return len(self._shards)

    @overload
    def __getitem__(self, index: int) -> Array: ...
    @overload
    def __getitem__(self, index: slice) -> list[Array]: ...
    def __getitem__(self, index: int | slice) -> Array | list[Array]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        return self._dump.means_of(self._layer, self._shards[index])


class FeatureArray:
    """One layer and reduction of a dump: as an array of (N, ...) that is read when it is asked for.

    Indexing gives numpy arrays: an integer or a slice within one shard a view of the file, which cannot be written
    to; what spans shards, a list or a mask a copy. `numpy.asarray` reads everything. Where pictures differ in size and
    the reduction keeps it, only single rows have a shape: `of_size` gives the array of those of one size.
    """

    def __init__(self, dump: Dump, output: tuple[str, str], rows: Sequence[Row]) -> None:
        self._dump = dump
        self.layer, self.reduction = output
        self._rows = rows
        self._maps: OrderedDict[str, Array] = OrderedDict()

    @property
    def ids(self) -> tuple[str, ...]:
        """The id of each row."""
        return self._dump.ids if len(self._rows) == len(self._dump) else tuple(row.id for row in self._rows)

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """The (height, width) that pictures had before the network, each once."""
        return self._sizes

    @cached_property
    def _sizes(self) -> tuple[tuple[int, int], ...]:
        return tuple(dict.fromkeys((row.height, row.width) for row in self._rows))

    def of_size(self, height: int, width: int) -> "FeatureArray":
        """The array of the pictures of one size."""
        rows = [row for row in self._rows if (row.height, row.width) == (height, width)]
        if not rows:
            known = ", ".join(f"{a}x{b}" for a, b in self.sizes[:8])
            raise StoreError(f"no picture is {height}x{width}: there are {known}")
        return FeatureArray(self._dump, (self.layer, self.reduction), rows)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the values."""
        return np.dtype(self._dump.fingerprint["dtype"])

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, ...); (0,) where no picture could be read. Raises `StoreError` where rows differ in shape."""
        if not self.alike:
            raise StoreError(
                f"the rows of {self.layer}.{self.reduction} differ in shape: take one size by of_size(height, width), "
                f"such as of_size{self.sizes[0]}, or single rows"
            )
        return (len(self._rows), *next(iter(self._shapes), ()))

    @cached_property
    def _shapes(self) -> set[tuple[int, ...]]:
        firsts = {(row.height, row.width): row for row in self._rows}
        return {self._file(row).shape[1:] for row in firsts.values()}

    @property
    def alike(self) -> bool:
        """Whether all rows have one shape."""
        return len(self._shapes) < 2

    @property
    def ndim(self) -> int:
        """The number of axes, that of the rows included."""
        return len(self.shape)

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Array]:
        return (self._row(row) for row in self._rows)

    def __getitem__(self, index: Any) -> Array:  # noqa: ANN401 (whatever numpy takes for an index)
        first, rest = (index[0], index[1:]) if isinstance(index, tuple) and index else (index, ())  # pyright: ignore[reportUnknownVariableType] (likewise)
        first, rest = cast("Any", first), cast("tuple[Any, ...]", rest)
        mask = isinstance(first, bool | np.bool_) or (np.ndim(first) > 1 and np.asarray(first).dtype == bool)
        if first is Ellipsis or first is None or mask:
            return self.to_numpy()[index]
        places: Any = np.arange(len(self))[first]
        simple = all(part is None or part is Ellipsis or _is_plain(part) for part in rest)
        if np.ndim(places) > 1 or not simple:
            # What lists do together is numpy's to say, of the rows that are meant.
            rows = self._gather(np.asarray(places).reshape(-1), ())
            if isinstance(first, slice):
                return rows[(slice(None), *rest)]
            return rows[(np.arange(len(rows)).reshape(np.shape(places))[()], *rest)]
        if np.ndim(places) == 0:
            return self._row(self._rows[int(places)])[rest]
        return self._gather(np.asarray(places), rest)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError("a dump is read from the disk, which is a copy")
        found = self.to_numpy()
        return found if dtype is None else found.astype(dtype, copy=False)

    def to_numpy(self) -> Array:
        """All of it, in memory, and the caller's own."""
        found = np.asarray(self[:])
        return found if found.flags.owndata and found.flags.writeable else np.array(found)

    def reshape(self, *shape: int) -> "FlatRows":
        """`reshape(N, -1)`: rows without their inner axes, still on the disk. Nothing else is offered."""
        if shape != (len(self), -1):
            raise StoreError(f"a dump can be reshaped to ({len(self)}, -1) alone: take to_numpy() first")
        return FlatRows(self)

    def batches(self, size: int) -> Iterator[tuple[tuple[str, ...], Array]]:
        """The ids and features of `size` rows at a time, in order."""
        if size < 1:
            raise InputError(f"a batch of {size} rows: it has at least 1")
        ids = self.ids
        parts = (slice(start, start + size) for start in range(0, len(self), size))
        return ((ids[part], self[part]) for part in parts)

    def dataset(self) -> "Dataset[tuple[Tensor, str]]":
        """A torch `Dataset` of (features, id), which reads rows as they are asked for, also in loader processes."""
        from vggfeat.dumps.datasets import FeatureDataset

        return FeatureDataset(self)

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.shape)) if len(self.sizes) < 2 else f"{len(self)} of {len(self.sizes)} sizes"
        return f"FeatureArray({self.layer}.{self.reduction}, {shape}, {self.dtype})"

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_maps": OrderedDict()}

    def _row(self, row: Row) -> Array:
        return self._file(row)[row.offset]

    def _file(self, row: Row) -> Array:
        side = None if self._dump.recipe.fixed_side else (row.height, row.width)
        name = payload_name((self.layer, self.reduction), row.shard, side)
        if name not in self._maps:
            path = self._dump.path / name
            try:
                self._maps[name] = np.load(path, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError) as error:
                raise StoreError(f"cannot read '{printable(path)}': {error}") from error
            if len(self._maps) > _OPEN_FILES:
                self._maps.popitem(last=False)
        self._maps.move_to_end(name)
        return self._maps[name]

    def _gather(self, places: npt.NDArray[np.int64], rest: tuple[Any, ...]) -> Array:
        if not len(places):
            return np.empty((0, *self.shape[1:]), self.dtype)[(slice(None), *rest)]
        rows = [self._rows[int(place)] for place in places.tolist()]
        runs = list(_runs(rows))
        if len(runs) == 1:
            start, stop = runs[0]
            first = rows[start].offset
            return self._file(rows[0])[(slice(first, first + stop - start), *rest)]
        self.shape  # noqa: B018 (refuses rows that differ in shape)
        parts = [
            self._file(rows[start])[(slice(rows[start].offset, rows[start].offset + stop - start), *rest)]
            for start, stop in runs
        ]
        return np.concatenate(parts)


def _is_plain(part: object) -> bool:
    return isinstance(part, slice | int | np.integer) and not isinstance(part, bool)


class FlatRows:
    """The rows of a `FeatureArray` as (N, D), of which columns are read at a time."""

    def __init__(self, array: FeatureArray) -> None:
        self._array = array
        self.shape = (len(array), int(np.prod(array.shape[1:])))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: tuple[slice, slice]) -> Array:
        rows, columns = index
        return np.stack([self._array[int(place)].reshape(-1)[columns] for place in np.arange(len(self))[rows]])


def _runs(rows: Sequence[Row]) -> Iterator[tuple[int, int]]:
    """Where rows follow each other in one file: (start, stop)."""
    start = 0
    for place in range(1, len(rows) + 1):
        if place < len(rows):
            a, b = rows[place - 1], rows[place]
            if (a.shard, a.height, a.width, a.offset + 1) == (b.shard, b.height, b.width, b.offset):
                continue
        yield start, place
        start = place
