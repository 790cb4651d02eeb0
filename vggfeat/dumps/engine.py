"""Who computes the shards. An engine is handed tasks and hands back receipts; it decides nothing else."""

import itertools
import os
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Protocol

from vggfeat.dumps.decoding import Decoders
from vggfeat.dumps.prepare import Preparation
from vggfeat.dumps.receipts import Receipt
from vggfeat.dumps.work import DumpJob, ShardTask, ShardWorker
from vggfeat.dumps.writer import ShardWriter

if TYPE_CHECKING:
    from concurrent.futures import Future

_MOST_WORKERS = 16

# On a CPU the network itself takes the cores, and more than five times as long as decoding what it sees.
_CORES_A_WORKER = 4

# Starting another process costs more than decoding this many pictures.
_FEW_PICTURES = 64


class Engine(Protocol):
    """Computes the shards of a job.

    For every task a `ShardWorker(job)` somewhere must be called once with the task and its prepared pictures, and
    have returned; the same task may be computed again where a worker died, since a shard's files are the same
    whoever writes them. A `DumpJob` and a `ShardTask` pickle. All workers must see the folder `job.out`.
    """

    def run(self, job: DumpJob, tasks: Sequence[ShardTask]) -> Generator[Receipt]:
        """Yield the receipt of each task when its shard is on the disk, in any order.

        Closed before its end, it stops all that it started. On another machine a worker may be at it for a moment: what
        it writes has names of its own until a shard is whole, and the next run deletes what is left.
        """
        ...


class LocalEngine:
    """The network in this process, decoding in `workers` others; with 0 in a thread, None is `default_workers`."""

    def __init__(self, workers: int | None = None) -> None:
        self._workers = workers

    def run(self, job: DumpJob, tasks: Sequence[ShardTask]) -> Generator[Receipt]:
        """Compute the tasks one after the other; decoding runs ahead of the network, and writing behind it."""
        pictures = sum(len(task.items) for task in tasks)
        workers = default_workers(pictures, job.device) if self._workers is None else self._workers
        # Pictures of any size wait in memory, so that fewer of them may.
        ahead = 2 * workers + (job.batch_size if job.recipe.fixed_side else 0)
        with Decoders(Preparation.of(job.recipe), workers) as decoders, ShardWriter() as writer:
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
    """Decoding processes for that many pictures and a network on `device`: at least one, which may end by a picture."""
    if pictures < _FEW_PICTURES:
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // _CORES_A_WORKER) if device == "cpu" else min(_MOST_WORKERS, cores)
