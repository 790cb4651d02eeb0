"""Computes shards on the machines of a Ray cluster, with Ray Data.

Each row of the data set is a task, and its result a receipt: pictures and features are never sent. All machines need
vggfeat, the weights, and the sources and the dump's folder under the same paths. Both engines write the same files, so
either can continue what the other began.
"""

import logging
import os
import pickle
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from importlib import import_module
from math import ceil
from pathlib import Path
from typing import Any

from vggfeat.dumps.decoding import Decoders
from vggfeat.dumps.errors import StoreError
from vggfeat.dumps.pipeline import decoding_workers, pictures_ahead
from vggfeat.dumps.receipts import Receipt
from vggfeat.dumps.shards import shard_name, temporary_path
from vggfeat.dumps.work import DumpJob, ShardTask, ShardWorker
from vggfeat.errors import InputError, VggfeatError, check_number, imported

# Ray restarts a worker that dies, without limit. A shard that kills this many workers ends the run.
_MOST_DEATHS = 3

_USAGE_STATS = "RAY_USAGE_STATS_ENABLED"


class RayEngine:
    """Computes shards on a Ray cluster: the connected one, the one that `RAY_ADDRESS` names, or a local one.

    `actors` is the number of networks; None means one for each GPU, or one for each machine if the network runs on
    CPUs. `workers` is the number of decoding processes of each actor. A local cluster is started for the run and ended
    with it, without usage statistics and dashboard. Raises `InputError` if Ray is not installed.
    """

    def __init__(self, *, actors: int | None = None, workers: int | None = None) -> None:
        if actors is not None:
            check_number("actors", actors, 1)
        self._ray = import_ray()
        self._actors = actors
        self._workers = workers

    def run(self, job: DumpJob, tasks: Sequence[ShardTask]) -> Generator[Receipt]:
        """Yield the receipt of each task. Raises `VggfeatError` if a shard cannot be computed."""
        data: Any = import_module("ray.data")
        with _quiet(data), _connected(self._ray):
            actors, needs = self.actors_for(job, len(tasks))
            rows = data.from_items(
                [{"task": pickle.dumps(task)} for task in tasks], override_num_blocks=len(tasks)
            ).map(
                ShardActor,
                fn_constructor_args=(job, self._workers),
                compute=data.ActorPoolStrategy(size=actors),
                **needs,
            )
            with closing(collect_receipts(rows.iter_rows(), self._ray.exceptions.RayError)) as receipts:
                yield from receipts

    def actors_for(self, job: DumpJob, tasks: int) -> tuple[int, dict[str, float]]:
        """The number of actors, and the resources that Ray reserves for each."""
        nodes: list[Mapping[str, float]] = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if job.device != "cpu":
            gpus = int(sum(node.get("GPU", 0) for node in nodes))
            if not gpus:
                raise InputError("the Ray cluster has no GPU: take --device cpu, or another cluster")
            return min(self._actors or gpus, tasks), {"num_cpus": 1, "num_gpus": 1}
        cores = [int(node["CPU"]) for node in nodes if node.get("CPU", 0) >= 1]
        if not cores:
            raise InputError("the Ray cluster has no CPU")
        each = max(1, min(cores) // ceil((self._actors or 1) / len(cores)))
        most = sum(count // each for count in cores)
        return min(self._actors or most, most, tasks), {"num_cpus": each}


class ShardActor:
    """Holds a network in a process of its own and computes shards."""

    def __init__(self, job: DumpJob, workers: int | None) -> None:
        # An actor sees only its own GPUs, whatever their numbers on the machine.
        self._job = job if job.device == "cpu" else replace(job, device=job.device.partition(":")[0])
        self._workers = workers
        self._compute: Callable[[ShardTask], Receipt] | None = None

    def __call__(self, row: Mapping[str, Any]) -> dict[str, str]:
        """Compute the task of a row. Errors that the user can fix are returned as text; others are raised."""
        task: ShardTask = pickle.loads(row["task"])  # noqa: S301 (pickled by `run`)
        try:
            with counting_attempts(Path(self._job.out), task.number):
                # Load here, so that an error about other weights is returned as text.
                self._compute = self._compute or self._loaded(len(task.items))
                return {"receipt": self._compute(task).as_json(), "error": ""}
        except (VggfeatError, OSError) as error:
            return {"receipt": "", "error": str(error)}

    def _loaded(self, pictures: int) -> Callable[[ShardTask], Receipt]:
        job = self._job
        workers = decoding_workers(self._workers, pictures, job.device)
        decoders = Decoders(job.preparation, workers).__enter__()  # the decoders end with this process
        worker = ShardWorker(job)
        return lambda task: worker(task, decoders.map(task.items, ahead=pictures_ahead(job, workers)))


@contextmanager
def counting_attempts(out: Path, shard: int) -> Generator[None]:
    """Refuse a shard that has killed too many workers. Each attempt adds a byte to a file, deleted on success."""
    marks = temporary_path(out / f"{shard_name(shard)}.begun")
    with marks.open("ab") as file:
        file.write(b".")
        begun = file.tell()
    if begun > _MOST_DEATHS:
        raise StoreError(f"shard {shard} has ended its Ray worker {_MOST_DEATHS} times: is there enough memory?")
    try:
        yield
    finally:
        marks.unlink(missing_ok=True)


def collect_receipts(rows: Iterator[Mapping[str, str]], errors: type[Exception]) -> Generator[Receipt]:
    """The receipts in what the actors return. Raises `VggfeatError` for their errors and for Ray's `errors`."""
    try:
        for row in rows:
            if row["error"]:
                raise StoreError(row["error"])
            yield Receipt.from_json(row["receipt"])
    except errors as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise VggfeatError(f"Ray gave up, {type(error).__name__}: {lines[-1] if lines else 'no reason'}") from error


@contextmanager
def _connected(ray: Any) -> Generator[None]:
    if ray.is_initialized():
        yield
        return
    asked = _USAGE_STATS in os.environ
    os.environ.setdefault(_USAGE_STATS, "0")
    try:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:  # for example, an unreachable cluster
        raise InputError(f"cannot connect to Ray: {' '.join(str(error).split())}") from error
    finally:
        if not asked:
            del os.environ[_USAGE_STATS]
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _quiet(data: Any) -> Generator[None]:
    """Turn off Ray's progress bars and log."""
    context: Any = data.DataContext.get_current()
    logger = logging.getLogger("ray.data")
    before = context.enable_progress_bars, logger.level
    context.enable_progress_bars = False
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        context.enable_progress_bars = before[0]
        with suppress(ValueError):
            logger.setLevel(before[1])


def import_ray() -> Any:
    """Ray, with Ray Data. Raises `InputError` if it is not installed."""
    imported("ray.data", "the engine ray needs Ray Data", "ray", kind=InputError)
    return import_module("ray")
