"""Opens a dump: its manifest, its arrays, and the statistics that were measured while it was made."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast, get_args

import numpy as np
import numpy.typing as npt

from vggfeat.dumps.arrays import FeatureArray
from vggfeat.dumps.errors import StoreError
from vggfeat.dumps.manifest import Manifest, ManifestEntry, damaged_manifest, read_manifest
from vggfeat.dumps.mapped import MappedFiles
from vggfeat.dumps.receipts import Receipt
from vggfeat.dumps.recipe import DumpRecipe
from vggfeat.dumps.shards import shard_name
from vggfeat.dumps.sources import Move, printable
from vggfeat.dumps.statistics import LayerStatistics, RdmDistance, combine, distances, linear_cka
from vggfeat.dumps.store import Store
from vggfeat.errors import InputError, near, one_of

if TYPE_CHECKING:
    from vggfeat.dumps.export import ExportFormat, ZarrFormat
    from vggfeat.dumps.neighbours import Metric
    from vggfeat.dumps.search import Query, SearchResult
    from vggfeat.dumps.sets import SetComparison, SetMeasure

Array = npt.NDArray[Any]


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

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the rows of every array."""
        return self._ids

    @cached_property
    def _ids(self) -> tuple[str, ...]:
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

    def __getitem__(self, key: str | tuple[str, str]) -> FeatureArray:
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
        to: "ExportFormat | None" = None,
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

    def named(self, array: str | tuple[str, str] | None = None) -> FeatureArray:
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
        self, layer: str, reduction: str | None = None, *, distance: RdmDistance = "correlation"
    ) -> tuple[tuple[str, ...], npt.NDArray[np.float32]]:
        """The ids of N pictures, and the dissimilarity of each pair, (N, N).

        `distance` is `correlation` (1 - Pearson's correlation), `euclidean` (the mean squared difference) or `cosine`.
        Without `reduction`, compares channel means, of as many pictures as the dump's `rdm` says. With a stored
        `reduction`, compares all its values for all pictures, and reads each value once.
        Raises `InputError` for an unknown layer, `StoreError` if the dump does not hold what is needed.
        """
        one_of("distance", distance, get_args(RdmDistance))
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


class _Means:
    """A layer's channel means, one array for each shard, read each time they are iterated over."""

    def __init__(self, dump: Dump, layer: str, shards: Sequence[int]) -> None:
        self._dump, self._layer, self._shards = dump, layer, shards

    def __iter__(self) -> Iterator[Array]:
        return (self._dump.means_of(self._layer, shard) for shard in self._shards)
