"""Computes shards on one device: decoding runs ahead of the network, and writing behind it."""

import itertools
import os
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING

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


def compute(job: DumpJob, tasks: Sequence[ShardTask], workers: int) -> Generator[Receipt]:
    """Compute the tasks in order, decoding in `workers` processes. Yields the receipt of each."""
    with Decoders(job.preparation, workers) as decoders, ShardWriter() as writer:
        worker = ShardWorker(job)
        prepared = decoders.map((item for task in tasks for item in task.items), ahead=pictures_ahead(job, workers))
        before: Future[Receipt] | None = None
        for task in tasks:
            written = worker.submit(task, itertools.islice(prepared, len(task.items)), writer)
            if before is not None:
                yield before.result()
            before = written
        if before is not None:
            yield before.result()


def decoding_workers(asked: int | None, pictures: int, device: str) -> int:
    """The number of decoding processes: `asked`, or if it is None a number that suits the pictures and the device.

    The default is at least 1, so that a picture that crashes its decoder does not end the run.
    """
    if asked is not None:
        return asked
    if pictures < _FEW_PICTURES:
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // _CORES_A_WORKER) if device == "cpu" else min(_MOST_WORKERS, cores)


def pictures_ahead(job: DumpJob, workers: int) -> int:
    """How many decoded pictures may wait for the network. Pictures that keep their sizes may be large: fewer wait."""
    return 2 * workers + (job.batch_size if job.recipe.fixed_side else 0)
