"""Engines compute shards: an engine receives tasks and yields receipts."""

from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Protocol

import torch

from vggfeat.dumps.pipeline import compute, decoding_workers
from vggfeat.dumps.processes import compute_apart
from vggfeat.dumps.receipts import Receipt
from vggfeat.dumps.work import DumpJob, ShardTask


class Engine(Protocol):
    """Computes the shards of a job.

    An engine must call a `ShardWorker(job)` with each task and its prepared pictures. If a worker dies, another may
    compute its task: every worker writes the same files. `DumpJob` and `ShardTask` pickle. All workers need access to
    the folder `job.out`.
    """

    def run(self, job: DumpJob, tasks: Sequence[ShardTask]) -> Generator[Receipt]:
        """Yield the receipt of each task when its shard is on disk, in any order.

        Closing the generator early stops the workers. A worker on another machine may write for a moment longer: its
        files have temporary names until the shard is complete, and the next run deletes them.
        """
        ...


class LocalEngine:
    """Runs the network in this process and decodes in `workers` others.

    With 0 workers it decodes in a thread. None chooses by the pictures and the device. Several `devices`, such as
    `["cuda:0", "cuda:1"]`, get a process and a share of the shards each. None takes all that torch sees if the device
    of the run is `cuda`, else that of the run. The files do not depend on the number of devices.
    """

    def __init__(self, workers: int | None = None, *, devices: Sequence[str] | None = None) -> None:
        self._workers = workers
        self._devices = devices

    def run(self, job: DumpJob, tasks: Sequence[ShardTask]) -> Generator[Receipt]:
        """Compute the tasks; on one device, in order."""
        workers = decoding_workers(self._workers, sum(len(task.items) for task in tasks), job.device)
        devices = (self._devices or devices_of(job.device))[: len(tasks)]
        if len(devices) > 1:
            return compute_apart(
                [(replace(job, device=device), tasks[n :: len(devices)]) for n, device in enumerate(devices)],
                -(-workers // len(devices)),
            )
        return compute(replace(job, device=devices[0]), tasks, workers)


def devices_of(device: str) -> list[str]:
    """The devices that a run on `device` may use: `cuda` without a number means all that torch sees.

    >>> devices_of("cpu"), devices_of("cuda:1")
    (['cpu'], ['cuda:1'])
    """
    count = torch.cuda.device_count() if device == "cuda" else 0
    return [f"cuda:{number}" for number in range(count)] if count > 1 else [device]
