"""Engines compute shards: an engine receives tasks and yields receipts."""

import itertools
import os
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Protocol

from vggfeat.dumps.decoding import Decoders
from vggfeat.dumps.receipts import Receipt
from vggfeat.dumps.work import DumpJob, ShardTask, ShardWorker
from vggfeat.dumps.writer import ShardWriter

if TYPE_CHECKING:
    from concurrent.futures import Future

_MOST_WORKERS = 16

# On a CPU the network uses the cores itself, and takes over five times as long as decoding its images.
_CORES_A_WORKER = 4

# Starting a second process takes longer than decoding this many pictures.
_FEW_PICTURES = 64


class Engine(Protocol):
    """Computes the shards of a job.

    For each task, a `ShardWorker(job)` must be called with the task and its prepared pictures, and return. If a worker
    dies, its task may be computed again: every worker writes the same files. `DumpJob` and `ShardTask` pickle. All
    workers must have access to the folder `job.out`.
    """

    def run(self, job: DumpJob, tasks: Sequence[ShardTask]) -> Generator[Receipt]:
        """Yield the receipt of each task when its shard is on disk, in any order.

        When it is closed early, it stops its workers. A worker on another machine may write for a moment longer: its
        files have temporary names until the shard is complete, and the next run deletes them.
        """
        ...


class LocalEngine:
    """Runs the network in this process and decodes in `workers` others.

    With 0 workers it decodes in a thread. None means `default_workers`.
    """

    def __init__(self, workers: int | None = None) -> None:
        self._workers = workers

    def run(self, job: DumpJob, tasks: Sequence[ShardTask]) -> Generator[Receipt]:
        """Compute the tasks in order. Decoding runs ahead of the network, and writing behind it."""
        pictures = sum(len(task.items) for task in tasks)
        workers = default_workers(pictures, job.device) if self._workers is None else self._workers
        # Pictures that keep their sizes may be large, so fewer of them wait in memory.
        ahead = 2 * workers + (job.batch_size if job.recipe.fixed_side else 0)
        with Decoders(job.preparation, workers) as decoders, ShardWriter() as writer:
            worker = ShardWorker(job)
            prepared = decoders.map((item for task in tasks for item in task.items), ahead=ahead)
            before: Future[Receipt] | None = None
            for task in tasks:
                written = worker.submit(task, itertools.islice(prepared, len(task.items)), writer)
                if before is not None:
                    yield before.result()
                before = written
            if before is not None:
                yield before.result()


def default_workers(pictures: int, device: str) -> int:
    """The number of decoding processes for a number of pictures: at least one, so that a crash ends only a decoder."""
    if pictures < _FEW_PICTURES:
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // _CORES_A_WORKER) if device == "cpu" else min(_MOST_WORKERS, cores)
