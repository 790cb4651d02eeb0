"""Runs a dump: finds the missing shards, lets an engine compute them, writes the manifest."""

import os
import time
import warnings
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Literal, Required, Unpack

from vggfeat.dumps.appending import Appending
from vggfeat.dumps.decoding import Decoders
from vggfeat.dumps.engine import Engine
from vggfeat.dumps.engines import EngineName, named_engine
from vggfeat.dumps.errors import StoreError
from vggfeat.dumps.estimate import Estimate, estimate, estimate_bytes
from vggfeat.dumps.manifest import ManifestFormat
from vggfeat.dumps.network import DumpNetwork
from vggfeat.dumps.pipeline import decoding_workers
from vggfeat.dumps.prepare import Preparation
from vggfeat.dumps.reading import Dump, open_dump
from vggfeat.dumps.receipts import Receipt
from vggfeat.dumps.recipe import Dtype, DumpRecipe, Interpolation, Precision, Resize, default_crop, parse_reductions
from vggfeat.dumps.request import DumpRequest, Run
from vggfeat.dumps.run_file import FORMAT
from vggfeat.dumps.sources import Item, PathLike, SourceFilter, find, import_parquet
from vggfeat.dumps.store import Store
from vggfeat.errors import RecipeError, users_line
from vggfeat.features.device import choose_device, choose_precision
from vggfeat.networks import arch
from vggfeat.networks import weights as weights_table


@dataclass(frozen=True, slots=True)
class DumpProgress:
    """The state of a run after a shard, including the shards of earlier runs.

    `done` of `pictures` are processed, and `failed` of these could not be read. `seconds` is the time of this run.
    """

    done: int
    pictures: int
    failed: int
    shards_done: int
    shards: int
    seconds: float


class Dumping:
    """A run in progress. Iterate over it for `DumpProgress` after each shard; `result()` completes it.

    The arguments are those of `dump`. Nothing is written before the first iteration. `notes` are warnings of a run
    that succeeded. `moved` says where the sources were when the dump was begun, and are now. `skipped` says which files
    of the sources are left out, such as `3 hidden, 1 not a picture`.
    """

    def __init__(
        self,
        source: PathLike | Sequence[PathLike],
        out: PathLike,
        *,
        layers: str | Iterable[str],
        network: str = "vgg16",
        reduce: str | Iterable[str] = "full",
        weights: PathLike | None = "default",
        pooling: arch.Pooling = "max",
        seed: int = 0,
        resize: Resize = 224,
        crop: int | Literal["auto"] | None = "auto",
        dtype: Dtype = "float32",
        precision: Precision = "float32",
        statistics: bool = False,
        cka: bool = False,
        rdm: int = 0,
        batch_size: int | None = None,
        shard_size: int | None = None,
        workers: int | None = None,
        device: str = "auto",
        retry_failed: bool = False,
        manifest: ManifestFormat = "csv",
        engine: Engine | EngineName | None = None,
        include: str | Iterable[str] = (),
        exclude: str | Iterable[str] = (),
        column: str | None = None,
        follow_links: bool = False,
        interpolation: Interpolation = "bilinear",
        root: PathLike | None = None,
        append: bool = False,
        **preprocessing: Unpack[weights_table.Preprocessing],
    ) -> None:
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("shard_size", shard_size, 1),
            ("workers", workers, 0),
        ):
            if value is not None and value < least:
                raise RecipeError(f"{name} is {value}: it must be at least {least}")
        if manifest == "parquet":
            import_parquet("a manifest in parquet")
        device_here = choose_device(device)
        recipe = DumpRecipe(
            network=network,
            reductions=parse_reductions(network, layers, reduce, pooling=pooling),
            weights=_from_anywhere(weights),
            pooling=pooling,
            seed=seed,
            resize=resize,
            crop=default_crop(resize) if crop == "auto" else crop,
            dtype=dtype,
            precision=precision,
            statistics=statistics,
            cka=cka,
            rdm=rdm,
            interpolation=interpolation,
            **preprocessing,
        )
        selection = SourceFilter(include, exclude, column, follow_links=follow_links)
        # The fingerprint holds what `auto` means on this machine.
        request = DumpRequest(
            recipe=replace(recipe, precision=choose_precision(precision, device_here)),
            items=find(source, selection),
            device=device_here,
            batch_size=batch_size,
            shard_size=shard_size,
        )
        self._store = Store(out)
        if append and (retry_failed or root is not None):
            raise RecipeError("append goes with neither retry_failed nor root: run that first, without append")
        self._appending = append and self._joins(request)
        self._asked = request
        if self._appending:
            request = Appending(self._store, request).request
        else:
            request = request.located(None if root is None else os.fspath(root), self._store)
        self._request = request
        self._workers = workers
        self._retry_failed = retry_failed
        self._form: ManifestFormat = manifest
        self._engine = named_engine(engine or "local", workers) if isinstance(engine, str | None) else engine
        self.notes: list[str] = []
        self.skipped = selection.summary()
        self.moved = self._request.moved
        self._progress = self._run()

    @property
    def recipe(self) -> DumpRecipe:
        """The computation for each picture."""
        return self._request.recipe

    @property
    def items(self) -> tuple[Item, ...]:
        """The inputs, in order."""
        return self._request.items

    def __iter__(self) -> Generator[DumpProgress]:
        return self._progress

    def result(self) -> Dump:
        """Run to the end. Returns the dump."""
        for _ in self._progress:
            pass
        return open_dump(self._store.path)

    def bytes_left(self) -> int:
        """Bytes still to be written: exact if images are resized to one size, otherwise extrapolated from headers."""
        return estimate_bytes(self.recipe, self._items_left(self._agreed()))

    def estimate(self) -> Estimate:
        """Predict what the remaining work takes. Times a few pictures; writes nothing."""
        run = self._agreed()
        left = self._items_left(run)
        job = self._request.job(run, self._store)
        network = DumpNetwork(job.recipe, digest=job.digest, device=job.device)
        workers = self._decoders(len(left))
        return estimate(network, left, pictures=len(self.items), batch_size=job.batch_size, workers=workers)

    def _items_left(self, run: Run) -> list[Item]:
        if self._appending:
            whole, further, last = Appending(self._store, self._asked).tasks()
            items = (item for task in (*whole, *further, *last) for item in task.items if not item.error)
            return list(items if self.moved is None else map(self.moved.found, items))
        done = {receipt.shard for receipt in self._present(run)}
        items = (item for task in self._request.tasks(run, done) for item in task.items)
        return list(items if self.moved is None else map(self.moved.found, items))

    def _joins(self, request: DumpRequest) -> bool:
        """Whether `request` appends to the dump in the folder, rather than begin or continue one."""
        if self._store.run() is None or self._store.appends:
            return self._store.appends
        try:
            request.agree(self._store)
        except StoreError:
            return True
        return False

    def _agreed(self) -> Run:
        return Appending(self._store, self._asked).run if self._appending else self._request.agree(self._store)

    def _present(self, run: Run) -> Iterator[Receipt]:
        """The receipts of this run's complete shards. A dropped append may have left further or longer shards."""
        size, count = run["fingerprint"]["shard_size"], run["fingerprint"]["inputs"]["count"]
        for receipt in self._store.each_receipt():
            if len(receipt.entries) == min(size, max(0, count - receipt.shard * size)):
                yield receipt

    def _run(self) -> Generator[DumpProgress]:
        if self._appending:
            yield from self._append()
            return
        began = time.monotonic()
        store, request = self._store, self._request
        request.agree(store)  # before the folder is created
        store.create()
        with store.locked():
            run = request.agree(store)
            if store.run() != {"format": FORMAT, **run}:
                store.write_run(run)
            counts = {receipt.shard: (len(receipt.entries), receipt.failed) for receipt in self._present(run)}
            present = list(counts)
            redo = self._redo(run) if self._retry_failed else {}
            for number in redo:
                del counts[number]
            tasks = [replace(task, before=redo.get(task.number)) for task in request.tasks(run, counts)]
            if tasks:
                store.invalidate()
            store.drop_append()
            store.sweep(present)  # a shard that is recomputed stays until its new files are complete
            if counts:
                yield self._progress_of(counts, run, began)
            if tasks:
                with closing(self._engine.run(request.job(run, store), tasks)) as receipts:
                    for receipt in receipts:
                        counts[receipt.shard] = len(receipt.entries), receipt.failed
                        if receipt.kept:
                            self.notes.append(f"shard {receipt.shard} is left as it was, for {receipt.kept}")
                        yield self._progress_of(counts, run, began)
                store.sweep(counts)  # files of workers that died
            store.write_manifest(run["shards"], self._form, self._columns)

    def _append(self) -> Generator[DumpProgress]:
        """See `appending` for the order of the steps."""
        began, store = time.monotonic(), self._store
        with store.locked():
            plan = Appending(store, self._asked)
            run, job = plan.run, plan.request.job(plan.run, store)
            whole, further, last = plan.tasks()
            if not plan.resumed and not (whole or further or last):
                return  # nothing is new
            self._check_unchanged(plan)
            keep = plan.kept()
            plan.begin()
            store.sweep(keep)
            waiting = {task.number for task in (*whole, *further, *last)}
            counts = {
                receipt.shard: (len(receipt.entries), receipt.failed)
                for receipt in store.each_receipt()
                if receipt.shard not in waiting
            }
            if counts:
                yield self._progress_of(counts, run, began)
            for part, tasks in ((job, whole), (plan.further_job(job) if further else job, further), (job, last)):
                if tasks is last:
                    store.invalidate()
                    store.write_run(run)
                if not tasks:
                    continue
                with closing(self._engine.run(part, tasks)) as receipts:
                    for receipt in receipts:
                        if receipt.kept:
                            raise StoreError(f"shard {receipt.shard} cannot be filled, for {receipt.kept}")
                        counts[receipt.shard] = len(receipt.entries), receipt.failed
                        yield self._progress_of(counts, run, began)
            store.sweep(range(run["shards"]))
            store.write_manifest(run["shards"], self._form, self._columns)
            store.drop_append()

    def _check_unchanged(self, plan: Appending) -> None:
        """Raise `StoreError` if a picture of the partly filled shard, which is computed again, has changed."""
        held = plan.unchanged_before()
        workers = self._decoders(len(held))
        with Decoders(Preparation.of(self.recipe, self.moved), workers) as decoders:
            prepared = decoders.map((item for item, _ in held), ahead=2 * workers)
            for (_, entry), now in zip(held, prepared, strict=True):
                if now.pixels is None or now.sha256 != entry.sha256:
                    reason = now.error or "its file has changed since it was dumped"
                    raise StoreError(f"cannot fill the last shard, which holds '{entry.id}': {reason}")

    def _progress_of(self, counts: Mapping[int, tuple[int, int]], run: Run, began: float) -> DumpProgress:
        done, failed = (sum(column) for column in zip(*counts.values(), strict=True))
        return DumpProgress(done, len(self.items), failed, len(counts), run["shards"], time.monotonic() - began)

    def _redo(self, run: Run) -> dict[int, Receipt]:
        """The receipts of shards with a failed input that may succeed now."""
        size: int = run["fingerprint"]["shard_size"]
        failed = [
            (receipt, entry, self.items[receipt.shard * size + index])
            for receipt in self._store.each_receipt()
            for index, entry in enumerate(receipt.entries)
            if not entry.ok
        ]
        workers = self._decoders(len(failed))
        found: dict[int, Receipt] = {}
        with Decoders(Preparation.of(self.recipe, self.moved), workers) as decoders:
            prepared = decoders.map((item for _, _, item in failed), ahead=2 * workers)
            for (receipt, entry, _), now in zip(failed, prepared, strict=True):
                # An input that failed in the network can be read, and is tried again.
                if now.pixels is not None or (now.sha256, now.error) != (entry.sha256, entry.error):
                    found[receipt.shard] = receipt
        return found

    @property
    def _columns(self) -> list[str]:
        """The names of the source's columns, in the order in which they appear."""
        return list(dict.fromkeys(name for item in self.items for name, _ in item.columns))

    def _decoders(self, pictures: int) -> int:
        return decoding_workers(self._workers, pictures, self._request.device.type)


class DumpOptions(weights_table.Preprocessing, total=False):
    """The keyword arguments of `dump` and `Dumping`."""

    layers: Required[str | Iterable[str]]
    network: str
    reduce: str | Iterable[str]
    weights: PathLike | None
    pooling: arch.Pooling
    seed: int
    resize: Resize
    crop: int | Literal["auto"] | None
    dtype: Dtype
    precision: Precision
    statistics: bool
    cka: bool
    rdm: int
    batch_size: int | None
    shard_size: int | None
    workers: int | None
    device: str
    retry_failed: bool
    manifest: ManifestFormat
    engine: Engine | EngineName | None
    include: str | Iterable[str]
    exclude: str | Iterable[str]
    column: str | None
    follow_links: bool
    interpolation: Interpolation
    root: PathLike | None
    append: bool


def dump(source: PathLike | Sequence[PathLike], out: PathLike, **options: Unpack[DumpOptions]) -> Dump:
    """Write the activations of pictures to the folder `out`, or continue a dump that was begun there.

    Args:
        source: one or several of: a picture; a folder; a list of paths (.txt, .lst, or `-` for standard input); a table
            with a column of paths and optionally `id` (.csv, .tsv, .jsonl, .parquet); a .parquet, .tar or .zip file of
            pictures; an array of pictures (.npy, .npz, .h5). Labels and further columns of the source become columns of
            the manifest.
        out: the folder. A killed run continues where it stopped. A dump with other options is refused.
        **options: keyword arguments:

            - `layers` (required): names, indices or globs.
            - `network`; `weights`: a name, a file or None for random weights; `pooling`; `seed`.
            - `mean`, `std`, `input_order`: of the weights, see `weights.Preprocessing`.
            - `reduce`: `full`, `mean`, `max`, `avg7`, `gram`, `center`, `projK` and `none`; for all layers, or for
              some as in `relu3_3:full`.
            - `resize`: pixels of the short side, (width, height) or None; `crop`: pixels, None, or `auto` for the
              short side.
            - `dtype`: `float32` or `float16` on disk. float16 clips values to its range and counts them.
            - `precision`: of the network; `auto` uses bfloat16 if it is fast on this device.
            - `statistics`, `cka`; `rdm`: the number of pictures in the RDM.
            - `batch_size`, `shard_size`, `device`; `workers`: the number of decoding processes.
            - `engine`: `local`, `ray` or an `Engine`.
            - `retry_failed`: recompute shards with failed pictures that have changed since. A shard that would lose
              another picture is kept, with a warning.
            - `manifest`: `csv` or `parquet`.
            - `include`, `exclude`: globs of names; `column`: the column, array or data set of the pictures or their
              paths; `follow_links`: read folders behind links, each once.
            - `interpolation`: `bilinear`, `bicubic` or `nearest`, of resizing.
            - `append`: add pictures that the dump does not hold, after those that it holds, and layers. The other
              options must be the same. See `vggfeat.dumps.appending`.
            - `root`: the folder in which sources are now that have moved since the dump was begun.

    Returns the dump, as `open_dump` does. A picture that cannot be read gets a failed entry in the manifest; the run
    continues. Raises `InputError`, `LayerError`, `RecipeError`, `WeightsError`, `StoreError`.

    >>> import tempfile, torch, vggfeat
    >>> from pathlib import Path
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ("a.png", "b.png"):
    ...     vggfeat.write_picture(folder / name, torch.rand(1, 3, 40, 40))
    >>> options = {"layers": "relu1_1,relu2_1", "network": "vgg11", "weights": None, "resize": 32, "workers": 0}
    >>> found = vggfeat.dump(folder, folder / "out", **options, reduce="mean,relu2_1:full")
    >>> found.ids, found["relu1_1"].shape, found["relu2_1", "full"].shape
    (('a.png', 'b.png'), (2, 64), (2, 128, 16, 16))
    """
    run = Dumping(source, out, **options)
    found = run.result()
    for note in run.notes:
        warnings.warn(note, stacklevel=users_line())
    return found


def _from_anywhere(weights: PathLike | None) -> str | None:
    """`weights` with an absolute path if it is a file, so that the dump can be verified from another folder."""
    if (path := weights_table.file_of(weights)) is not None:
        return str(path.absolute())
    return None if weights is None else os.fspath(weights)
