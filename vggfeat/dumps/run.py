"""Run a dump: find out what is left to do, have it done, compile the manifest."""

import os
import platform
import time
import warnings
from collections.abc import Container, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from itertools import islice
from math import prod
from typing import Any, Literal, Required, TypedDict, Unpack

import numpy as np
import torch

from vggfeat.dumps.decoding import Decoders
from vggfeat.dumps.engine import Engine, default_workers
from vggfeat.dumps.engines import EngineName, named_engine
from vggfeat.dumps.prepare import Preparation, side_of
from vggfeat.dumps.reading import Dump, open_dump
from vggfeat.dumps.recipe import Dtype, DumpRecipe, Precision, Resize, default_crop, differences, parse_reductions
from vggfeat.dumps.reductions import values
from vggfeat.dumps.sources import Item, PathLike, find, fingerprint, import_parquet, printable
from vggfeat.dumps.store import ManifestFormat, Receipt, Store, StoreError
from vggfeat.dumps.work import Job, Network, ShardTask, weights_digest
from vggfeat.errors import RecipeError, users_line
from vggfeat.features import algorithms
from vggfeat.features.device import choose_device, resolve_precision
from vggfeat.networks import arch
from vggfeat.networks import weights as weights_table

# What is lost by a kill, and what one file holds: at most this many bytes or pictures.
_SHARD_BYTES = 256 * 2**20
_SHARD_PICTURES = 256

_USUAL_SIDE = 224
_CPU_BATCH = 16
_GPU_BATCH = 64

_TIMED_PICTURES = 32


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands after a shard: `done` of `pictures`, of which `failed`; those of earlier runs included."""

    done: int
    pictures: int
    failed: int
    shards_done: int
    shards: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run will take. `left`: pictures that are still to be done; all else is about those.

    `bytes` on the disk and `macs`, multiply-accumulates of the network, are exact where all pictures are brought to
    one size, and otherwise told from a few of them. `seconds` is told from a few timed batches.
    """

    pictures: int
    left: int
    bytes: int
    macs: int
    seconds: float


class Dumping:
    """A dump under way: iterate over it for `Progress`, shard by shard; `result()` does what is left.

    The arguments are those of `dump`. Nothing is written before the first iteration.
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
    ) -> None:
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("shard_size", shard_size, 1),
            ("workers", workers, 0),
        ):
            if value is not None and value < least:
                raise RecipeError(f"{name} is {value}: it is at least {least}")
        if manifest == "parquet":
            import_parquet("a manifest in parquet")
        self._device = choose_device(device)
        self.recipe = DumpRecipe(
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
        )
        # What `auto` means here is part of what is computed.
        resolved: Any = str(resolve_precision(precision, self._device)).removeprefix("torch.")
        self.recipe = replace(self.recipe, precision=resolved)
        self.items = find(source)
        self._store = Store(out)
        self._batch_size, self._shard_size = batch_size, shard_size
        self._workers = workers
        self._retry_failed = retry_failed
        self._form: ManifestFormat = manifest
        self._engine = named_engine(engine or "local", workers) if isinstance(engine, str | None) else engine
        self.notes: list[str] = []  # what a run that went well has yet to say
        self._progress = self._run()

    def __iter__(self) -> Generator[Progress]:
        return self._progress

    def result(self) -> Dump:
        """Run to the end; return the dump."""
        for _ in self._progress:
            pass
        return open_dump(self._store.path)

    def bytes_left(self) -> int:
        """Bytes that will be written: exact where pictures are brought to one size, else told from some headers."""
        run = self._agreed(self._store.run())
        left = [item for task in self._tasks(run, self._done()) for item in task.items]
        if self.recipe.fixed_side:
            sides = [self.recipe.fixed_side]
        else:
            how = Preparation.of(self.recipe)
            sides = [side for item in _sample(left) if (side := side_of(item, how))] or [(_USUAL_SIDE, _USUAL_SIDE)]
        size, _ = _cost(self.recipe, sides)
        return size * len(left)

    def estimate(self) -> Estimate:
        """What is left to do, and what that will take. Times a few pictures; writes nothing."""
        run = self._agreed(self._store.run())
        left = [item for task in self._tasks(run, self._done()) for item in task.items]
        sample = _sample(left)
        workers = self._decoders(len(left))
        with Decoders(Preparation.of(self.recipe), min(1, workers)) as decoders:
            list(decoders.map(sample[:1], ahead=1))  # it starts meanwhile
            began = time.perf_counter()
            pictures = list(decoders.map(sample, ahead=1))
            decoding = (time.perf_counter() - began) / max(1, len(sample))
        good = [picture.pixels for picture in pictures if picture.pixels is not None]
        network = _seconds_a_picture(Network(self._job(run)), good, run["fingerprint"]["batch_size"])
        sides = [self.recipe.fixed_side] if self.recipe.fixed_side else [(x.shape[1], x.shape[2]) for x in good]
        size, macs = _cost(self.recipe, [side for side in sides if side])
        together = max(network, decoding / workers) if workers else network + decoding
        return Estimate(len(self.items), len(left), size * len(left), macs * len(left), together * len(left))

    def _run(self) -> Generator[Progress]:
        began = time.monotonic()
        store = self._store
        self._agreed(store.run())
        store.create()
        with store.locked():
            found = store.run()
            run = self._agreed(found)
            if found is None:
                store.write_run(run)
            counts = {receipt.shard: (len(receipt.rows), receipt.failed) for receipt in store.each_receipt()}
            standing = list(counts)
            redo = self._redo(run) if self._retry_failed else {}
            for number in redo:
                del counts[number]
            tasks = [replace(task, before=redo.get(task.number)) for task in self._tasks(run, counts)]
            if tasks:
                store.invalidate()
            store.sweep(standing)  # what is made anew stays until that is there
            if counts:
                yield self._standing(counts, run, began)
            if tasks:
                with closing(self._engine.run(self._job(run), tasks)) as receipts:
                    for receipt in receipts:
                        counts[receipt.shard] = len(receipt.rows), receipt.failed
                        if receipt.kept:
                            self.notes.append(f"shard {receipt.shard} is left as it was, for {receipt.kept}")
                        yield self._standing(counts, run, began)
                store.sweep(counts)  # what workers left that died
            self._finish(run)

    def _standing(self, counts: Mapping[int, tuple[int, int]], run: Mapping[str, Any], began: float) -> Progress:
        done, failed = (sum(column) for column in zip(*counts.values(), strict=True)) if counts else (0, 0)
        return Progress(done, len(self.items), failed, len(counts), run["shards"], time.monotonic() - began)

    def _finish(self, run: Mapping[str, Any]) -> None:
        self._store.write_manifest(run["shards"], self._form)

    def _done(self) -> set[int]:
        return {receipt.shard for receipt in self._store.each_receipt()}

    def _tasks(self, run: Mapping[str, Any], done: Container[int]) -> list[ShardTask]:
        size: int = run["fingerprint"]["shard_size"]
        return [
            ShardTask(number, self.items[number * size : (number + 1) * size])
            for number in range(run["shards"])
            if number not in done
        ]

    def _redo(self, run: Mapping[str, Any]) -> dict[int, Receipt]:
        """The shards of which a bad input is no longer what it was."""
        size: int = run["fingerprint"]["shard_size"]
        bad = [(r, row, place) for r in self._store.each_receipt() for place, row in enumerate(r.rows) if not row.ok]
        items = [self.items[receipt.shard * size + place] for receipt, _, place in bad]
        workers = self._decoders(len(items))
        found: dict[int, Receipt] = {}
        with Decoders(Preparation.of(self.recipe), workers) as decoders:
            for (receipt, row, _), now in zip(bad, decoders.map(items, ahead=2 * workers), strict=True):
                # What failed in the network is good to read, and tried again.
                if now.pixels is not None or (now.sha256, now.error) != (row.sha256, row.error):
                    found[receipt.shard] = receipt
        return found

    def _decoders(self, pictures: int) -> int:
        return default_workers(pictures, self._device.type) if self._workers is None else self._workers

    def _job(self, run: Mapping[str, Any]) -> Job:
        about = run["fingerprint"]
        return Job(
            out=str(self._store.path.absolute()),
            recipe=self.recipe,
            batch_size=about["batch_size"],
            device=str(self._device),
            digest=about["weights"]["sha256"],
        )

    def _agreed(self, found: Mapping[str, Any] | None) -> Mapping[str, Any]:
        """What run.json says, or will say. Raises `StoreError` where it says something else than what was asked."""
        theirs: Mapping[str, Any] = {} if found is None else found["fingerprint"]
        ours = self._fingerprint(theirs)
        if found is not None and (different := differences(theirs, ours)):
            raise StoreError(
                f"'{printable(self._store.path)}' was begun with {'; '.join(different)}: "
                "ask for the same, or name another folder"
            )
        if found is not None:
            return found
        shards = -(-len(self.items) // ours["shard_size"])
        machine = _machine() | {"algorithms": self._algorithms()}
        return {"fingerprint": ours, "shards": shards, "weights": self.recipe.weights, "machine": machine}

    def _algorithms(self) -> dict[str, str]:
        """By which algorithm each convolution runs here, for pictures of the usual side where the recipe fixes none."""
        recipe = self.recipe
        stack = arch.layers(recipe.network, pooling=recipe.pooling)
        last = max(layer.index for layer in stack if layer.name in recipe.layers)
        size = recipe.fixed_side or (_USUAL_SIDE, _USUAL_SIDE)
        dtype = getattr(torch, recipe.precision)
        return {**algorithms.by_layer(stack[: last + 1], *size, dtype=dtype, device=self._device)}

    def _fingerprint(self, theirs: Mapping[str, Any]) -> dict[str, Any]:
        batch = self._batch_size or theirs.get("batch_size") or self._default_batch()
        return self.recipe.as_dict() | {
            "weights": self._weights,
            "device": self._device.type,
            "batch_size": batch,
            "shard_size": self._shard_size or theirs.get("shard_size") or self._default_shard(batch),
            "inputs": {"count": len(self.items), "sha256": fingerprint(self.items)},
            "versions": {name: version(name) for name in ("vggfeat", "torch", "pillow")},
        }

    @cached_property
    def _weights(self) -> dict[str, str]:
        state, row = weights_table.load(self.recipe.network, self.recipe.weights, seed=self.recipe.seed)
        return {"name": row.name, "sha256": weights_digest(self.recipe, state)}

    def _default_batch(self) -> int:
        height, width = self.recipe.fixed_side or (_USUAL_SIDE, _USUAL_SIDE)
        usual = _CPU_BATCH if self._device.type == "cpu" else _GPU_BATCH
        return max(1, min(usual, usual * _USUAL_SIDE**2 // (height * width)))

    def _default_shard(self, batch: int) -> int:
        size, _ = _cost(self.recipe, [self.recipe.fixed_side or (_USUAL_SIDE, _USUAL_SIDE)])
        pictures = max(1, min(_SHARD_PICTURES, _SHARD_BYTES // max(1, size)))
        return max(batch, pictures // batch * batch)


class Options(TypedDict, total=False):
    """What `dump` and `Dumping` take by name."""

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


def dump(source: PathLike | Sequence[PathLike], out: PathLike, **options: Unpack[Options]) -> Dump:
    """Write the activations of pictures into the folder `out`; where that is begun already, go on.

    Args:
        source: one or several of: a picture, a folder, a list of paths (.txt, .lst; .csv, .tsv or .parquet with a
            column `path` and perhaps `id`), a .tar file of pictures.
        out: the folder. A run that was killed goes on where it was; asked for something else, it is refused.
        **options: `layers` (names, indices or globs), `network`, `weights` (a name, a file or None for random ones),
            `pooling`, `seed`; `reduce`, of `full`, `mean`, `max`, `avg7`, `gram`, `center`, `projK` and `none`, for
            all layers or, as in `relu3_3:full`, for some; `resize` (pixels of the short side, (width, height) or
            None) and `crop` (pixels, None, or `auto` for the short side); `dtype` float32 or float16, to whose range
            values are clipped and counted; `precision`, where `auto` may take bfloat16; `statistics`, `cka`, and
            `rdm`, the number of pictures in it; `batch_size`, `shard_size`, `workers` that decode, `device`;
            `engine`, `local`, `ray` or one of your own;
            `retry_failed` to do again the shards whose bad pictures have changed, of which one that would lose
            another picture is left as it was, with a warning; `manifest`, csv or parquet.

    Returns the dump, as `open_dump` does. A picture that cannot be read costs a row of the manifest, not the run.
    Raises `InputError`, `LayerError`, `RecipeError`, `WeightsError`, `StoreError`.
    """
    run = Dumping(source, out, **options)
    found = run.result()
    for note in run.notes:
        warnings.warn(note, stacklevel=users_line())
    return found


def _from_anywhere(weights: PathLike | None) -> str | None:
    """`weights` as they are written down: the file has its whole path, for who reads the dump in another folder."""
    if (path := weights_table.file_of(weights)) is not None:
        return str(path.absolute())
    return None if weights is None else os.fspath(weights)


def _sample(items: Sequence[Item]) -> Sequence[Item]:
    """A few of many, from all over."""
    return items[:: -(-len(items) // _TIMED_PICTURES) or 1]


def _cost(recipe: DumpRecipe, sides: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Bytes and multiply-accumulates of one picture, the mean over `sides`."""
    size = macs = 0
    stack = arch.layers(recipe.network, pooling=recipe.pooling)
    for height, width in sides:
        for layer in stack:
            height, width = layer.output_side(height), layer.output_side(width)  # noqa: PLW2901 (walks down the stack)
            if layer.kind == "conv":
                macs += height * width * layer.channels * layer.in_channels * layer.kernel**2
            shape = layer.channels, height, width
            size += sum(values(reduction, shape) for reduction in recipe.reductions.get(layer.name, ()))
            if layer.name == recipe.layers[-1]:
                break
    count = max(1, len(sides))
    return size * np.dtype(recipe.dtype).itemsize // count, macs // count


def _seconds_a_picture(network: Network, pictures: Sequence[Any], batch_size: int) -> float:
    """Time a few batches, after one that warms up."""
    if not pictures:
        return 0.0
    shape = pictures[0].shape
    alike = [x for x in pictures if x.shape == shape][:batch_size]
    batch = np.stack(list(islice((x for _ in range(batch_size) for x in alike), batch_size)))
    network(batch)
    began = time.perf_counter()
    rounds = 0
    while rounds < 3 and (not rounds or time.perf_counter() - began < 3):
        network(batch)
        rounds += 1
    share = sum(prod(x.shape) for x in pictures) / len(pictures) / prod(shape)
    return (time.perf_counter() - began) / (rounds * batch_size) * share


def _machine() -> dict[str, str]:
    """Where a dump was begun: told, not compared. Other processors may round otherwise in the last digit."""
    return {"python": platform.python_version(), "cpu": torch.backends.cpu.get_cpu_capability()}
