"""Computes one shard. Every engine runs this code."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from vggfeat.dumps.errors import StoreError
from vggfeat.dumps.manifest import ManifestEntry
from vggfeat.dumps.measurements import Measurements
from vggfeat.dumps.network import DumpNetwork
from vggfeat.dumps.prepare import Pixels, Preparation, Prepared
from vggfeat.dumps.receipts import Receipt
from vggfeat.dumps.recipe import DumpRecipe
from vggfeat.dumps.shards import payload_name
from vggfeat.dumps.sources import Item, Move, printable
from vggfeat.dumps.store import Store
from vggfeat.dumps.stored import StoredBatch
from vggfeat.dumps.writer import ShardWriter
from vggfeat.pictures.batching import Side, SizeBatches


@dataclass(frozen=True, slots=True)
class DumpJob:
    """The parameters of a run that its workers need, as plain data that pickles.

    `digest` identifies the weights; a worker that finds others refuses to run. `device` is `cpu`, `cuda:0` and so on.
    `moved`: where the sources are, if not where the dump was begun.
    """

    out: str
    recipe: DumpRecipe
    batch_size: int
    device: str
    digest: str
    moved: Move | None = None

    @property
    def preparation(self) -> Preparation:
        """How pictures are prepared."""
        return Preparation.of(self.recipe, self.moved)


@dataclass(frozen=True, slots=True)
class ShardTask:
    """A shard to compute: its number and its inputs, in order.

    `before`: its receipt if it exists and is recomputed. `layers`: all layers of the dump, in order, if the arrays of
    the job are added to those of the shard.
    """

    number: int
    items: tuple[Item, ...]
    before: Receipt | None = None
    layers: tuple[str, ...] = ()


class ShardWorker:
    """Computes and writes the shards of a job. It loads the network once, when it is created."""

    def __init__(self, job: DumpJob) -> None:
        self.job = job
        self._store = Store(job.out)
        self._network = DumpNetwork(job.recipe, digest=job.digest, device=job.device)

    def __call__(self, task: ShardTask, prepared: Iterable[Prepared]) -> Receipt:
        """Compute `task` from its prepared images, in order, and write its files. Returns the receipt."""
        with ShardWriter() as writer:
            return self.submit(task, prepared, writer).result()

    def submit(self, task: ShardTask, prepared: Iterable[Prepared], writer: ShardWriter) -> Future[Receipt]:
        """Compute `task` and queue its files in `writer`, which may still be writing when this returns."""
        recipe = self.job.recipe
        files = writer.open(self._store.shard(task.number, task.before, task.layers))
        inputs = _Inputs(task)
        rows: Counter[Side] = Counter()
        results = _Results(recipe)
        for side, batch in _batches(inputs.readable(prepared), self.job.batch_size):
            indices = [index for index, _ in batch]
            stored = self._network.stored(np.stack([pixels for _, pixels in batch]))
            if isinstance(stored, str):
                inputs.errors |= dict.fromkeys(indices, printable(stored))
                continue
            for index in indices:
                inputs.places[index] = (rows[side], *side)
                rows[side] += 1
            names = {
                output: payload_name(output, task.number, None if recipe.fixed_side else side)
                for output in recipe.outputs
            }
            writer.append(files, partial(results.add, indices, stored, names))
        entries = inputs.entries()
        if task.before is not None and task.layers:
            _check_unchanged(task.before.entries, entries)
            return writer.finish(files, task.before.entries, results)
        if task.before is not None and (lost := _lost(task.before.entries, entries)):
            return writer.give_up(files, task.before, lost)
        return writer.finish(files, entries, results)


class _Results:
    """Accumulates the counts and measurements of a shard's batches. The writer's thread uses it."""

    def __init__(self, recipe: DumpRecipe) -> None:
        self._measurements = Measurements(recipe) if recipe.measures else None
        self._clipped: Counter[str] = Counter()
        self._not_finite: Counter[str] = Counter()

    def add(
        self, indices: Sequence[int], wait: Callable[[], StoredBatch], names: Mapping[tuple[str, str], str]
    ) -> dict[str, npt.NDArray[np.generic]]:
        """Wait for a batch, and return its arrays by the names of their files."""
        stored = wait()
        for output in names:
            self._clipped[".".join(output)] += stored.clipped[output]
            self._not_finite[".".join(output)] += stored.not_finite[output]
        if self._measurements is not None:
            self._measurements.add(indices, stored.measured)
        return {name: stored.arrays[output] for output, name in names.items()}

    def clipped(self) -> dict[str, int]:
        """{array: number of clipped values}, of arrays that have any."""
        return _positive(self._clipped)

    def not_finite(self) -> dict[str, int]:
        """{array: number of infinite values and NaNs}, of arrays that have any."""
        return _positive(self._not_finite)

    def partial(self) -> dict[str, npt.NDArray[np.generic]] | None:
        """The shard's part of the statistics, if they are requested."""
        return None if self._measurements is None else self._measurements.partial()


class _Inputs:
    """Collects what happens to each input of a shard, by its index, and makes the manifest entries from it.

    `errors`: {index: reason}. `places`: {index: (offset, height, width)}.
    """

    def __init__(self, task: ShardTask) -> None:
        self._task = task
        self._files: list[tuple[str, int]] = []
        self.errors: dict[int, str] = {}
        self.places: dict[int, tuple[int, int, int]] = {}

    def readable(self, prepared: Iterable[Prepared]) -> Iterator[tuple[int, Pixels]]:
        """The index and pixels of each image that could be read."""
        for index, (_, found) in enumerate(zip(self._task.items, prepared, strict=True)):
            self._files.append((found.sha256, found.size))
            if found.pixels is None:
                self.errors[index] = found.error
            else:
                yield index, found.pixels

    def entries(self) -> list[ManifestEntry]:
        """The manifest entries, in the order of the inputs. Call it when all inputs have an error or a place."""
        found: list[ManifestEntry] = []
        for index, (item, (sha256, size)) in enumerate(zip(self._task.items, self._files, strict=True)):
            failed = index in self.errors
            offset, height, width = (-1, 0, 0) if failed else self.places[index]
            found.append(
                ManifestEntry(
                    id=item.id,
                    path=item.place,
                    sha256=sha256,
                    size=size,
                    status="failed" if failed else "ok",
                    error=self.errors.get(index, ""),
                    shard=self._task.number,
                    offset=offset,
                    height=height,
                    width=width,
                    columns=dict(item.columns),
                )
            )
        return found


_Picture = tuple[int, Pixels]


def _batches(pictures: Iterable[_Picture], batch_size: int) -> Iterator[tuple[Side, list[_Picture]]]:
    """Group (index, (3, H, W)) images into batches of one size."""
    groups = SizeBatches[_Picture](batch_size)
    for picture in pictures:
        yield from groups.add((picture[1].shape[1], picture[1].shape[2]), picture)
    yield from groups.rest()


def _lost(before: Sequence[ManifestEntry], now: Sequence[ManifestEntry]) -> str:
    """The inputs with features that fail now, in words; recomputing the shard would lose them. Empty if none do."""
    lost = [entry for old, entry in zip(before, now, strict=False) if old.ok and not entry.ok]
    more = f" (and {len(lost) - 1} more)" if len(lost) > 1 else ""
    return f"'{lost[0].id}'{more}, whose features it holds: {lost[0].error}" if lost else ""


def _check_unchanged(before: Sequence[ManifestEntry], now: Sequence[ManifestEntry]) -> None:
    """Raise `StoreError` if a picture with features has changed or fails."""
    for old, entry in zip(before, now, strict=True):
        if old.ok and entry != old:
            reason = entry.error or "its file has changed since it was dumped"
            raise StoreError(f"cannot append to the features of '{old.id}': {reason}")


def _positive(counts: Mapping[str, int]) -> dict[str, int]:
    return {name: count for name, count in sorted(counts.items()) if count}
