"""Compute one shard: the same function on every engine."""

import hashlib
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vggfeat.dumps.prepare import Pixels, Prepared
from vggfeat.dumps.recipe import DumpRecipe
from vggfeat.dumps.reductions import reduce
from vggfeat.dumps.sources import Item, printable
from vggfeat.dumps.statistics import FLOAT16_MAX, Measurements
from vggfeat.dumps.store import Receipt, Row, ShardFiles, Store, payload_name
from vggfeat.errors import VggfeatError
from vggfeat.features.device import choose_device
from vggfeat.features.extractor import FeatureExtractor
from vggfeat.networks import weights as weights_table

# A batch holds at most as many pixels as `batch_size` pictures of this many: large pictures go one by one.
_USUAL_PIXELS = 512 * 512

_BATCHES_AHEAD = 2


@dataclass(frozen=True, slots=True)
class Job:
    """What every worker of a run needs to know. Plain data, which can be sent to another process or machine.

    `digest` is that of the weights, which a worker that finds others refuses. `device` is `cpu`, `cuda:0` and so on.
    """

    out: str
    recipe: DumpRecipe
    batch_size: int
    device: str
    digest: str


@dataclass(frozen=True, slots=True)
class ShardTask:
    """A shard to be computed: its number and its inputs, in order; `before`, where it is made anew."""

    number: int
    items: tuple[Item, ...]
    before: Receipt | None = None


class ShardWorker:
    """Computes shards of a job, and writes them. Calling it needs the network, which is loaded here, once."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self._store = Store(job.out)
        self._network = Network(job)

    def __call__(self, task: ShardTask, prepared: Iterable[Prepared]) -> Receipt:
        """Compute `task` from its pictures, in order, and write its files. Returns its receipt."""
        with Writer() as writer:
            return self.submit(task, prepared, writer).result()

    def submit(self, task: ShardTask, prepared: Iterable[Prepared], writer: "Writer") -> Future[Receipt]:
        """Compute `task`; `writer` writes its files meanwhile, and is still at it when this returns."""
        recipe = self.job.recipe
        files = writer.adopt(self._store.shard(task.number, task.before))
        rows: list[Row | None] = [None] * len(task.items)
        counts: dict[tuple[int, int], int] = defaultdict(int)
        clipped: dict[str, int] = defaultdict(int)
        not_finite: dict[str, int] = defaultdict(int)
        measured = Measurements(recipe) if recipe.measures else None
        for side, batch in batches(_good(task, prepared, rows), self.job.batch_size):
            outcome = self._network(np.stack([pixels for _, pixels, _ in batch]))
            if isinstance(outcome, str):
                for index, _, row in batch:
                    rows[index] = _failed(row, outcome)
                continue
            for index, _, row in batch:
                rows[index] = _with_place(row, counts[side], side)
                counts[side] += 1
            arrays: dict[str, npt.NDArray[np.generic]] = {}
            for output, array in outcome.outputs.items():
                kept, beyond = _as_dtype(array, recipe.dtype)
                clipped[".".join(output)] += beyond
                not_finite[".".join(output)] += _not_finite(array)
                arrays[payload_name(output, task.number, None if recipe.fixed_side else side)] = kept
            writer.append(files, arrays)
            if measured is not None:
                measured.add([index for index, _, _ in batch], outcome.features)
        made = [row for row in rows if row is not None]
        if task.before is not None and (lost := _lost(task.before.rows, made)):
            return writer.give_up(files, replace(task.before, kept=lost))
        partial = None if measured is None else measured.partial()
        return writer.finish(files, made, _some(clipped), partial, _some(not_finite))


class Writer:
    """Writes shards in a thread, so that the network need not wait for the disk. A context manager.

    What was not finished when it is left, because something went wrong or was interrupted, is deleted.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "write")
        self._waiting: deque[Future[None]] = deque()
        self._adopted: list[ShardFiles] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(cancel_futures=True)
        for files in self._adopted:
            files.discard()

    def adopt(self, files: ShardFiles) -> ShardFiles:
        """Be responsible for the files of a shard."""
        self._adopted = [*self._adopted[-1:], files]  # those before the last have been waited for
        return files

    def append(self, files: ShardFiles, arrays: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """Have a batch appended. At most `_BATCHES_AHEAD` wait; raises what went wrong with one of them."""
        self._waiting.append(self._thread.submit(_append, files, arrays))
        while len(self._waiting) > _BATCHES_AHEAD:
            self._waiting.popleft().result()

    def finish(
        self,
        files: ShardFiles,
        rows: Sequence[Row],
        clipped: Mapping[str, int],
        partial: Mapping[str, npt.NDArray[np.generic]] | None,
        not_finite: Mapping[str, int],
    ) -> Future[Receipt]:
        """Have a shard finished, once all its batches are appended."""
        return self._last(lambda: files.finish(rows, clipped, partial, not_finite))

    def give_up(self, files: ShardFiles, receipt: Receipt) -> Future[Receipt]:
        """Have what was appended to a shard deleted, which stays what `receipt` says."""

        def discard() -> Receipt:
            files.discard()
            return receipt

        return self._last(discard)

    def _last(self, act: Callable[[], Receipt]) -> Future[Receipt]:
        appended = list(self._waiting)
        self._waiting.clear()

        def wait_and_act() -> Receipt:
            for future in appended:
                future.result()
            return act()

        return self._thread.submit(wait_and_act)


def _append(files: ShardFiles, arrays: Mapping[str, npt.NDArray[np.generic]]) -> None:
    for name, array in arrays.items():
        files.append(name, array)


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """Of a batch: the network's features, and {(layer, reduction): (N, ...) in float32}."""

    features: Mapping[str, Tensor]
    outputs: Mapping[tuple[str, str], npt.NDArray[np.float32]]


class Network:
    """Images to what a recipe makes of them."""

    def __init__(self, job: Job) -> None:
        self.recipe = recipe = job.recipe
        device = choose_device(job.device)
        state, row = weights_table.load(recipe.network, recipe.weights, seed=recipe.seed)
        if (digest := weights_digest(recipe, state)) != job.digest:
            raise VggfeatError(
                f"the weights of {recipe.network} are not those of the run: {digest[:16]}, not {job.digest[:16]}"
            )
        self._extract = FeatureExtractor(
            recipe.network,
            recipe.layers,
            weights=state,
            mean=row.mean,
            std=row.std,
            precision=recipe.precision,
            pooling=recipe.pooling,
            check="off",
            device=device,
        )
        self._device = device

    def __call__(self, pixels: Pixels) -> Outcome | str:
        """What (N, 3, H, W) pictures in [0, 1] come to; a reason, where a single one of them is too large.

        Raises `VggfeatError` where several together are: fewer at once would do, but be another run.
        """
        height, width = pixels.shape[2:]
        try:
            with torch.inference_mode():
                features = self._extract(torch.from_numpy(pixels).to(self._device))  # pyright: ignore[reportUnknownMemberType] (torch leaves it untyped)
                outputs = {
                    (layer, reduction): np.ascontiguousarray(
                        reduce(features[layer], reduction, layer=layer, seed=self.recipe.seed).cpu().numpy()
                    )
                    for layer, reduction in self.recipe.outputs
                }
        except (MemoryError, RuntimeError) as error:
            if not (isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)):
                raise
            if len(pixels) > 1:
                raise VggfeatError(
                    f"out of memory at {len(pixels)} pictures of {width}x{height} pixels: "
                    "begin again with a smaller batch size"
                ) from error
            return f"the network ran out of memory at {width}x{height} pixels"
        return Outcome(features, outputs)


def weights_digest(recipe: DumpRecipe, state: Mapping[str, Tensor]) -> str:
    """What tells weights apart: a sha256 over every layer's fingerprint."""
    prints = weights_table.fingerprints(recipe.network, state)
    return hashlib.sha256(" ".join(f"{layer} {digest}" for layer, digest in prints.items()).encode()).hexdigest()


_Picture = tuple[int, Pixels, Row]


def batches(pictures: Iterable[_Picture], batch_size: int) -> Iterator[tuple[tuple[int, int], list[_Picture]]]:
    """Batches of one size, whose pictures keep their order. What waits for its batch to fill is bounded as one is."""
    waiting: dict[tuple[int, int], list[_Picture]] = {}
    limit = batch_size * _USUAL_PIXELS
    held = 0
    for picture in pictures:
        side = picture[1].shape[1], picture[1].shape[2]
        area = side[0] * side[1]
        waiting.setdefault(side, []).append(picture)
        held += area
        if len(waiting[side]) >= min(batch_size, max(1, limit // area)):
            held -= area * len(waiting[side])
            yield side, waiting.pop(side)
        while held > limit:
            oldest = next(iter(waiting))
            held -= oldest[0] * oldest[1] * len(waiting[oldest])
            yield oldest, waiting.pop(oldest)
    yield from waiting.items()


def _good(task: ShardTask, prepared: Iterable[Prepared], rows: list[Row | None]) -> Iterator[_Picture]:
    """The pictures that could be read; the others get their rows here."""
    for index, (item, found) in enumerate(zip(task.items, prepared, strict=True)):
        row = Row(
            id=item.id,
            path=item.place,
            sha256=found.sha256,
            size=found.size,
            status="failed",
            error=found.error,
            shard=task.number,
            offset=-1,
            height=0,
            width=0,
        )
        if found.pixels is None:
            rows[index] = row
        else:
            yield index, found.pixels, row


def _with_place(row: Row, offset: int, side: tuple[int, int]) -> Row:
    return replace(row, status="ok", error="", offset=offset, height=side[0], width=side[1])


def _failed(row: Row, reason: str) -> Row:
    return replace(row, error=printable(reason))


def _lost(before: Sequence[Row], made: Sequence[Row]) -> str:
    """What a shard that is made anew would lose: the pictures that were good and are no longer."""
    lost = [row for old, row in zip(before, made, strict=True) if old.ok and not row.ok]
    more = f" (and {len(lost) - 1} more)" if len(lost) > 1 else ""
    return f"'{lost[0].id}'{more}, whose features it holds: {lost[0].error}" if lost else ""


def _as_dtype(array: npt.NDArray[np.float32], dtype: str) -> tuple[npt.NDArray[np.generic], int]:
    """`array` as it is stored, and how many of its values were clipped for that."""
    if dtype == "float32":
        return array, 0
    beyond = int(np.count_nonzero(np.abs(array) > FLOAT16_MAX))
    return (np.clip(array, -FLOAT16_MAX, FLOAT16_MAX) if beyond else array).astype(np.float16), beyond


def _not_finite(array: npt.NDArray[np.float32]) -> int:
    """How many values are infinite or no number."""
    with np.errstate(all="ignore"):
        if np.isfinite(array.sum()):  # one look, where all is well
            return 0
    return array.size - int(np.count_nonzero(np.isfinite(array)))


def _some(counts: Mapping[str, int]) -> dict[str, int]:
    return {name: count for name, count in sorted(counts.items()) if count}
