"""Opens a dump: arrays that are read from disk when they are indexed, and the ids of their rows."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast, get_args, overload

import numpy as np
import numpy.typing as npt

from vggfeat.dumps.errors import StoreError
from vggfeat.dumps.manifest import Manifest, ManifestEntry, damaged_manifest, read_manifest
from vggfeat.dumps.mapped import MappedFiles
from vggfeat.dumps.receipts import Receipt
from vggfeat.dumps.recipe import DumpRecipe
from vggfeat.dumps.shards import payload_name, shard_name
from vggfeat.dumps.sources import Move, printable
from vggfeat.dumps.statistics import Distance, LayerStatistics, combine, distances, linear_cka
from vggfeat.dumps.store import Store
from vggfeat.errors import InputError, near, one_of

if TYPE_CHECKING:
    from torch import Tensor
    from torch.utils.data import Dataset

    from vggfeat.dumps.export import Format, ZarrFormat
    from vggfeat.dumps.neighbours import Metric
    from vggfeat.dumps.search import Query, SearchResult
    from vggfeat.dumps.sets import SetComparison, SetMeasure

Array = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]


def open_dump(out: str | os.PathLike[str], *, partial: bool = False) -> "Dump":
    """Open the dump in the folder `out`. With `partial`, an incomplete dump is opened with the shards it has.

    Raises `StoreError`, a `VggfeatError`, if `out` is not a dump, or the dump is incomplete or damaged.

    >>> import tempfile, torch, vggfeat
    >>> folder = Path(tempfile.mkdtemp())
    >>> vggfeat.write_picture(folder / "a.png", torch.rand(1, 3, 40, 40))
    >>> options = {"layers": "relu1_1", "network": "vgg11", "weights": None, "resize": 32, "workers": 0}
    >>> _ = vggfeat.dump(folder, folder / "out", **options)
    >>> found = vggfeat.open_dump(folder / "out")
    >>> found.ids, found.outputs
    (('a.png',), (('relu1_1', 'full'),))
    """
    store = Store(out)
    run = store.run()
    if run is None:
        raise StoreError(f"'{printable(store.path)}' is not a dump: it has no run.json")
    entries = read_manifest(store.path)
    if entries is None:
        receipts = store.receipts()
        if not partial:
            raise StoreError(
                f"'{printable(store.path)}' is incomplete: {len(receipts)} of {run['shards']} shards are done; "
                "the command that began it continues it"
            )
        entries = Manifest.of(entry for receipt in receipts.values() for entry in receipt.entries)
    elif len(entries) != (count := run["fingerprint"]["inputs"]["count"]):
        raise damaged_manifest(store.path, "manifest", f"it has {len(entries)} entries instead of {count}")
    return Dump(store.path, run, entries)


class Dump:
    """A dump on disk. `open_dump` and `dump` return it.

    `manifest` has a `ManifestEntry` for each input, in the order of the sources. `ids` are those of the inputs that
    have features, which are the rows of every array. `dump["relu3_3", "mean"]` or `dump["relu3_3.mean"]` is a
    `FeatureArray`; `dump["relu3_3"]` too, if the dump holds only one reduction of that layer.

    >>> import tempfile, torch, vggfeat
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ("a.png", "b.png", "c.png"):
    ...     vggfeat.write_picture(folder / name, torch.rand(1, 3, 40, 40))
    >>> _ = (folder / "d.png").write_text("no picture")
    >>> options = {"layers": "relu1_1,relu2_1", "network": "vgg11", "weights": None, "resize": 32, "workers": 0}
    >>> options |= {"reduce": "mean,relu2_1:full", "statistics": True, "cka": True, "rdm": 3}
    >>> found = vggfeat.dump(folder, folder / "out", **options)
    >>> found
    Dump('...out', 3 of 4 pictures, relu1_1.mean, relu2_1.mean, relu2_1.full)
    >>> found.layers, len(found), found.ids
    (('relu1_1', 'relu2_1'), 3, ('a.png', 'b.png', 'c.png'))
    >>> "relu1_1" in found, "relu2_1" in found, found["relu2_1", "full"].shape
    (True, False, (3, 128, 16, 16))
    >>> [(entry.id, entry.error) for entry in found.failed]
    [('d.png', "cannot read '...d.png': it is not a picture Pillow can read")]
    >>> found.statistics()["relu1_1"].mean.shape, found.cka()[1].shape, found.rdm("relu1_1")[1].shape
    ((64,), (2, 2), (3, 3))
    >>> found.clipped(), found.not_finite(), len(found.receipts())
    ({}, {}, 1)
    >>> found.export(folder / "features.safetensors", reductions=["mean"]).name
    'features.safetensors'
    """

    def __init__(self, path: Path, run: Mapping[str, Any], manifest: Manifest) -> None:
        self.path = path
        self.run = run
        self.fingerprint: Mapping[str, Any] = run["fingerprint"]
        self.shards: int = run["shards"]
        self.manifest = manifest
        self.files = MappedFiles(path)
        self._good = np.flatnonzero(manifest.ok)

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers, in network order."""
        return tuple(self.fingerprint["layers"])

    @property
    def outputs(self) -> tuple[tuple[str, str], ...]:
        """The (layer, reduction) of each array."""
        reductions: Mapping[str, list[str]] = self.fingerprint["reductions"]
        return tuple((layer, reduction) for layer in self.layers for reduction in reductions[layer])

    @property
    def moved(self) -> Move | None:
        """Where the sources were when the dump was begun, and are now; None if they have not moved."""
        return Move.of(self.run)

    @property
    def recipe(self) -> DumpRecipe:
        """The recipe that the dump was computed with."""
        return self._recipe

    @cached_property
    def _recipe(self) -> DumpRecipe:
        try:
            return DumpRecipe.from_dict(self.fingerprint, self.run["weights"])
        except (LookupError, TypeError, AttributeError) as error:
            raise StoreError(f"'{printable(self.path / 'run.json')}' is damaged: {error}") from error

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """The ids of the rows of every array."""
        ids = self.manifest.texts("id")
        return tuple(ids if len(self) == len(ids) else map(ids.__getitem__, self._good.tolist()))

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the labels and further columns that came with the source."""
        return self.manifest.columns

    def column(self, name: str) -> tuple[str, ...]:
        """The text of a column of the source for each row of the arrays. Raises `InputError` if there is none."""
        if name not in self.columns:
            raise InputError(f"the dump has no column '{name}': {near(name, self.columns)}")
        return tuple(compress(self.manifest.texts(name), self.manifest.ok.tolist()))

    @cached_property
    def failed(self) -> tuple[ManifestEntry, ...]:
        """The entries of the inputs that have no features. Their `error` is the reason."""
        return tuple(self.manifest[place] for place in np.flatnonzero(~self.manifest.ok).tolist())

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
        of_layer = [output for output in self.outputs if output[0] == word]
        if word not in names and len(of_layer) != 1:
            raise KeyError(f"no array '{word}' in the dump: {near(word, names)}")
        return FeatureArray(self, names[word] if word in names else of_layer[0], self._good)

    def __repr__(self) -> str:
        arrays = ", ".join(".".join(output) for output in self.outputs)
        return f"Dump('{printable(self.path)}', {len(self)} of {len(self.manifest)} pictures, {arrays})"

    def export(
        self,
        target: str | os.PathLike[str],
        to: "Format | None" = None,
        *,
        layers: Iterable[str] = (),
        reductions: Iterable[str] = (),
        zarr_format: "ZarrFormat | None" = None,
    ) -> Path:
        """Export arrays to zarr, h5, mat, csv, parquet, safetensors or faiss. See `vggfeat.dumps.export.export`."""
        from vggfeat.dumps.export import export

        return export(self, target, to, layers=layers, reductions=reductions, zarr_format=zarr_format)

    def search(
        self,
        queries: "Query | Iterable[Query]",
        array: str | tuple[str, str] | None = None,
        *,
        top: int = 10,
        metric: "Metric" = "cosine",
        device: str = "auto",
    ) -> "SearchResult":
        """The `top` pictures nearest to each query, which is an id of the dump or a picture file.

        `array` names the features to compare, as in `dump[array]`; None is the only one. The search is exact. See
        `vggfeat.dumps.search.search`.

        >>> import tempfile, torch, vggfeat
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name, grey in (("a.png", 0.2), ("b.png", 0.25), ("c.png", 0.9)):
        ...     vggfeat.write_picture(folder / name, torch.full((1, 3, 32, 32), grey))
        >>> options = {"layers": "relu1_1", "network": "vgg11", "weights": None, "resize": 32, "workers": 0}
        >>> found = vggfeat.dump(folder, folder / "out", **options, reduce="mean")
        >>> found.search("a.png", metric="l2")[0].ids
        ('b.png', 'c.png')
        """
        from vggfeat.dumps.search import search

        return search(self, self.named(array), queries, top=top, metric=metric, device=device)

    def compare(
        self,
        other: "Dump",
        array: str | tuple[str, str] | None = None,
        *,
        measures: "Iterable[SetMeasure]" = ("frechet", "kid", "coverage"),
        k: int = 5,
        subsets: int = 100,
        subset_size: int | None = None,
        seed: int = 2020,
    ) -> "SetComparison":
        """Compare the features of this dump, the reference, with those of another as sets.

        `array` names the features, as in `dump[array]`; None is the only one. See `vggfeat.dumps.sets.compare_sets`.

        >>> import tempfile, torch, vggfeat
        >>> folder = Path(tempfile.mkdtemp())
        >>> options = {"layers": "relu1_1", "network": "vgg11", "weights": None, "resize": 32, "workers": 0}
        >>> dumps = []
        >>> for name, greys in (("a", (0.1, 0.2, 0.3, 0.4)), ("b", (0.15, 0.25, 0.35, 0.9))):
        ...     for number, grey in enumerate(greys):
        ...         (folder / name).mkdir(exist_ok=True)
        ...         vggfeat.write_picture(folder / name / f"{number}.png", torch.full((1, 3, 32, 32), grey))
        ...     dumps.append(vggfeat.dump(folder / name, folder / f"out-{name}", **options, reduce="mean"))
        >>> found = dumps[0].compare(dumps[1], k=1)
        >>> found.precision.value, found.frechet.low < found.frechet.value < found.frechet.high
        (0.75, True)
        """
        from vggfeat.dumps.sets import compare_sets

        return compare_sets(
            self,
            other,
            (self.named(array), other.named(array)),
            measures=measures,
            k=k,
            subsets=subsets,
            subset_size=subset_size,
            seed=seed,
        )

    def named(self, array: str | tuple[str, str] | None = None) -> "FeatureArray":
        """`dump[array]`, or the only array of the dump for None. Raises `InputError` if there is no such array."""
        if array is None and len(self.outputs) == 1:
            return self[self.outputs[0]]
        held = [".".join(output) for output in self.outputs]
        if array is None:
            raise InputError(f"name one array of the dump: it holds {', '.join(held) or 'only statistics'}")
        try:
            return self[array]
        except KeyError as error:
            raise InputError(str(error.args[0])) from error

    def receipts(self) -> dict[int, Receipt]:
        """The receipts of the complete shards, which hold the hashes of their files."""
        return {number: receipt for number, receipt in Store(self.path).receipts().items() if number < self.shards}

    def clipped(self) -> dict[str, int]:
        """The number of values of each array that were clipped to float16's range."""
        return self._total(lambda receipt: receipt.clipped)

    def not_finite(self) -> dict[str, int]:
        """The number of values of each array that the network computed as infinite or NaN."""
        return self._total(lambda receipt: receipt.not_finite)

    def _total(self, counts: Callable[[Receipt], Mapping[str, int]]) -> dict[str, int]:
        total: Counter[str] = Counter()
        names = {".".join(output) for output in self.outputs}
        for receipt in Store(self.path).each_receipt():
            if receipt.shard < self.shards:  # others are being appended
                total.update({name: count for name, count in counts(receipt).items() if name in names})
        return dict(total)

    def statistics(self) -> dict[str, LayerStatistics]:
        """The statistics of each layer, by name. Raises `StoreError` if the dump was made without `statistics=True`."""
        topk = self.fingerprint["statistics"]
        if not topk:
            raise StoreError(f"'{printable(self.path)}' has no statistics: dump with statistics=True (--statistics)")
        ids: dict[int, list[str]] = {}
        for shard, name in zip(self.manifest.numbers["shard"].tolist(), self.manifest.texts("id"), strict=True):
            ids.setdefault(shard, []).append(name)
        return combine(self.layers, ((self._partial(shard), names) for shard, names in sorted(ids.items())), topk)

    def cka(self, *, unbiased: bool = False) -> tuple[list[str], npt.NDArray[np.float64]]:
        """The layers, and the linear CKA of each pair, (L, L), computed on the channel means of all pictures.

        `unbiased` corrects for the number of pictures: with few, CKA is high between any layers with many channels.

        Raises `StoreError` if the dump was made without `cka=True`, or if no picture could be read.
        """
        if not self.fingerprint["cka"]:
            raise StoreError(f"'{printable(self.path)}' has no CKA: dump with cka=True (--cka)")
        shards = self._shards()
        if not shards:
            raise StoreError(f"'{printable(self.path)}' has no CKA: no picture could be read")
        return linear_cka({layer: _Means(self, layer, shards) for layer in self.layers}, unbiased=unbiased)

    def rdm(
        self, layer: str, reduction: str | None = None, *, distance: Distance = "correlation"
    ) -> tuple[tuple[str, ...], npt.NDArray[np.float32]]:
        """The ids of N pictures, and the dissimilarity of each pair, (N, N).

        `distance` is `correlation` (1 - Pearson's correlation), `euclidean` (the mean squared difference) or `cosine`.
        Without `reduction`, compares channel means, of as many pictures as the dump's `rdm` says. With a stored
        `reduction`, compares all its values for all pictures, and reads each value once.
        Raises `InputError` for an unknown layer, `StoreError` if the dump does not hold what is needed.
        """
        one_of("distance", distance, get_args(Distance))
        one_of("layer", layer, self.layers, of="the dump")
        if not len(self):
            raise StoreError(f"'{printable(self.path)}' has no RDM: no picture could be read")
        if reduction is not None:
            array = self[layer, reduction]
            return self.ids, distances(cast("Array", array), distance)
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
        return self.ids[:most], distances(means, distance)

    def _shards(self) -> list[int]:
        """The shards that hold features."""
        return np.unique(self.manifest.numbers["shard"][self._good]).tolist()

    def _partial(self, shard: int) -> Mapping[str, Array]:
        path = self.path / f"receipts/{shard_name(shard)}.npz"
        try:
            return cast("Mapping[str, Array]", np.load(path, allow_pickle=False))
        except (OSError, ValueError) as error:
            raise StoreError(f"cannot read '{printable(path)}': {error}") from error

    def means_of(self, layer: str, shard: int) -> Array:
        """The channel means of the pictures of a shard, (N, C), if the dump has them."""
        return self._partial(shard)[f"{layer}/means"]


class _Means(Sequence[Array]):
    """A layer's channel means, one array for each shard, read when it is indexed."""

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
    """The features of one layer and reduction: an array (N, ...) that is read from disk when it is indexed.

    Indexing follows numpy and returns numpy arrays. An integer, or a slice within one shard, returns a read-only view
    of the file; everything else returns a copy. `numpy.asarray` reads the whole array. If pictures differ in size and
    the reduction keeps the size, only single rows can be read: `of_size` returns the array of one size.

    >>> import tempfile, torch, vggfeat
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

    def __init__(self, dump: Dump, output: tuple[str, str], entries: Integers) -> None:
        """`entries`: the place in the manifest of each row."""
        self._dump = dump
        self.layer, self.reduction = output
        self._entries = entries

    @property
    def ids(self) -> tuple[str, ...]:
        """The id of each row."""
        if len(self) == len(self._dump):
            return self._dump.ids
        return tuple(map(self._dump.manifest.texts("id").__getitem__, self._entries.tolist()))

    @cached_property
    def _columns(self) -> Mapping[str, Integers]:
        numbers = self._dump.manifest.numbers
        return {name: numbers[name][self._entries] for name in ("shard", "offset", "height", "width")}

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """The different (height, width) of the images that the network received."""
        return self._sizes

    @cached_property
    def _sizes(self) -> tuple[tuple[int, int], ...]:
        heights, widths = (self._columns[name].tolist() for name in ("height", "width"))
        return tuple(dict.fromkeys(zip(heights, widths, strict=True)))

    def of_size(self, height: int, width: int) -> "FeatureArray":
        """The array of the pictures of one size. Raises `StoreError` if there are none."""
        entries = self._entries[(self._columns["height"] == height) & (self._columns["width"] == width)]
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
        self._require_one_shape()
        return (len(self._entries), *next(iter(self._shapes), ()))

    def _require_one_shape(self) -> None:
        if not self.one_shape:
            raise StoreError(
                f"the rows of {self.layer}.{self.reduction} differ in shape: "
                f"take one size with of_size(height, width), such as of_size{self.sizes[0]}, or single rows"
            )

    @cached_property
    def _shapes(self) -> set[tuple[int, ...]]:
        examples = {side: number for number, side in enumerate(self._layout.sides)}
        return {self._file(number).shape[1:] for number in examples.values()}

    @property
    def one_shape(self) -> bool:
        """Whether all rows have the same shape."""
        return len(self._shapes) < 2

    @property
    def ndim(self) -> int:
        """The number of axes, including the rows."""
        return len(self.shape)

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Array]:
        return (self._row(row) for row in range(len(self)))

    def __getitem__(self, index: Any) -> Array:
        if isinstance(index, int | np.integer) and not isinstance(index, bool):
            return self._row(cast("int", index))  # without an array of all rows
        first, rest = (index[0], index[1:]) if isinstance(index, tuple) and index else (index, ())
        first, rest = cast("Any", first), cast("tuple[Any, ...]", rest)
        mask = isinstance(first, bool | np.bool_) or (np.ndim(first) > 1 and np.asarray(first).dtype == bool)
        if first is Ellipsis or first is None or mask:
            return self.to_numpy()[index]
        places: Any = np.arange(len(self))[first]
        simple = all(part is None or part is Ellipsis or _is_plain(part) for part in rest)
        if np.ndim(places) > 1 or not simple:
            # Gather the rows, then let numpy combine the indices.
            rows = self._gather(np.asarray(places).reshape(-1), ())
            if isinstance(first, slice):
                return rows[(slice(None), *rest)]
            return rows[(np.arange(len(rows)).reshape(np.shape(places))[()], *rest)]
        if np.ndim(places) == 0:
            return self._row(int(places))[rest]
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
        if size < 1:
            raise InputError(f"a batch of {size} rows: it must have at least 1")
        ids = self.ids
        parts = (slice(start, start + size) for start in range(0, len(self), size))
        return ((ids[part], self[part]) for part in parts)

    def dataset(self) -> "Dataset[tuple[Tensor, str]]":
        """A torch `Dataset` of (features, id). It reads rows when they are indexed, also in worker processes."""
        from vggfeat.dumps.datasets import FeatureDataset

        return FeatureDataset(self)

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.shape)) if len(self.sizes) < 2 else f"{len(self)} of {len(self.sizes)} sizes"
        return f"FeatureArray({self.layer}.{self.reduction}, {shape}, {self.dtype})"

    @cached_property
    def _layout(self) -> "_Layout":
        shards, heights, widths = (self._columns[name] for name in ("shard", "height", "width"))
        order = np.lexsort((widths, heights, shards))
        first = np.ones(len(order), np.bool_)
        first[1:] = np.any([np.diff(column[order]) != 0 for column in (shards, heights, widths)], axis=0)
        files = np.empty(len(order), np.int64)
        files[order] = np.cumsum(first) - 1
        starts = np.flatnonzero(first)
        sides = list(zip(heights[order][starts].tolist(), widths[order][starts].tolist(), strict=True))
        offsets = self._columns["offset"]
        return _Layout(
            files,
            offsets,
            names=[
                payload_name((self.layer, self.reduction), shard, None if self._dump.recipe.fixed_side else side)
                for shard, side in zip(shards[order][starts].tolist(), sides, strict=True)
            ],
            sides=sides,
            rows=(np.maximum.reduceat(offsets[order], starts) + 1).tolist() if len(starts) else [],
        )

    def _row(self, row: int) -> Array:
        layout = self._layout
        return self._file(layout.files[row])[layout.offsets[row]]

    def _file(self, number: int) -> Array:
        name = self._layout.names[number]
        found = self._dump.files[name]
        if len(found) < self._layout.rows[number]:
            raise StoreError(f"'{printable(self._dump.path / name)}' has fewer rows than the manifest says")
        return found

    def _gather(self, rows: Integers, rest: tuple[Any, ...]) -> Array:
        """Read rows file by file. Rows that follow each other in one file are a view of it."""
        if not len(rows):
            return np.empty((0, *self.shape[1:]), self.dtype)[(slice(None), *rest)]
        files, offsets = self._layout.files[rows], self._layout.offsets[rows]
        order = np.argsort(files, kind="stable")
        starts = np.flatnonzero(np.diff(files[order], prepend=-1))
        if len(starts) == 1:
            return self._part(int(files[0]), offsets, rest)
        self._require_one_shape()
        found: Array | None = None
        for group in np.split(order, starts[1:]):
            part = self._part(int(files[group[0]]), offsets[group], rest)
            found = np.empty((len(rows), *part.shape[1:]), part.dtype) if found is None else found
            found[group] = part
        return cast("Array", found)

    def _part(self, number: int, offsets: Integers, rest: tuple[Any, ...]) -> Array:
        first, last = int(offsets[0]), int(offsets[-1])
        if last - first == len(offsets) - 1 and (np.diff(offsets) == 1).all():
            return self._file(number)[(slice(first, last + 1), *rest)]
        return self._file(number)[(offsets, *rest)]


@dataclass(frozen=True, slots=True, eq=False)
class _Layout:
    """Where the rows of an array are: the number of the file of each row, and the row of that file.

    Of each file: its name, the (height, width) of its images, and how many rows it needs to have.
    """

    files: Integers
    offsets: Integers
    names: Sequence[str]
    sides: Sequence[tuple[int, int]]
    rows: Sequence[int]


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
