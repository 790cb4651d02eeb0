"""Compute the shards on the machines of a Ray cluster, with Ray Data.

A row of the data set is a task, and what comes back a receipt: pictures and features never travel. All machines see
the sources and the folder of the dump under the same paths, and have vggfeat and the weights. Files are those of the
local engine, so that either finishes what the other began.
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
from vggfeat.dumps.engine import default_workers
from vggfeat.dumps.errors import StoreError
from vggfeat.dumps.prepare import Preparation
from vggfeat.dumps.receipts import Receipt
from vggfeat.dumps.shards import shard_name, temporary_path
from vggfeat.dumps.work import DumpJob, ShardTask, ShardWorker
from vggfeat.errors import InputError, VggfeatError

# Ray starts a worker that dies again, without end; a shard at which that happens this often ends the run.
_MOST_DEATHS = 3

_USAGE_STATS = "RAY_USAGE_STATS_ENABLED"


class RayEngine:
    """Shards on a Ray cluster: the one that is connected to, or that `RAY_ADDRESS` names, or one of this machine.

    `actors` hold a network each; None takes one for each GPU, or one a machine where the network runs on CPUs.
    `workers` is the number of decoding processes of each. A cluster of this machine is started for the run and ended
    with it, tells nobody, and has no dashboard. Raises `InputError` where Ray is not installed.
    """

    def __init__(self, *, actors: int | None = None, workers: int | None = None) -> None:
        if actors is not None and actors < 1:
            raise InputError(f"actors is {actors}: it is at least 1")
        self._ray = _import()
        self._actors = actors
        self._workers = workers

    def run(self, job: DumpJob, tasks: Sequence[ShardTask]) -> Generator[Receipt]:
        """Yield the receipt of each task. Raises `VggfeatError` where a shard cannot be computed."""
        data: Any = import_module("ray.data")
        with _quiet(data), _connected(self._ray):
            actors, needs = self._plan(job, len(tasks))
            rows = data.from_items(
                [{"task": pickle.dumps(task)} for task in tasks], override_num_blocks=len(tasks)
            ).map(
                ShardActor,
                fn_constructor_args=(job, self._workers),
                compute=data.ActorPoolStrategy(size=actors),
                **needs,
            )
            with closing(_receipts(rows.iter_rows(), self._ray.exceptions.RayError)) as receipts:
                yield from receipts

    def _plan(self, job: DumpJob, tasks: int) -> tuple[int, dict[str, float]]:
        """How many actors, and what Ray keeps free for each."""
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
    """Holds a network in a process of its own, and writes the shards that come to it."""

    def __init__(self, job: DumpJob, workers: int | None) -> None:
        # An actor sees its own GPUs alone, whatever their numbers on the machine.
        self._job = job if job.device == "cpu" else replace(job, device=job.device.partition(":")[0])
        self._workers = workers
        self._compute: Callable[[ShardTask], Receipt] | None = None

    def __call__(self, row: Mapping[str, Any]) -> dict[str, str]:
        """Compute a row's task. What a user can mend comes back as text; all else is raised."""
        task: ShardTask = pickle.loads(row["task"])  # noqa: S301 (ours)
        try:
            with _counted(Path(self._job.out), task.number):
                # Here, so that weights which are not those of the run are told as what they are.
                self._compute = self._compute or self._loaded(len(task.items))
                return {"receipt": self._compute(task).as_json(), "error": ""}
        except (VggfeatError, OSError) as error:
            return {"receipt": "", "error": str(error)}

    def _loaded(self, pictures: int) -> Callable[[ShardTask], Receipt]:
        job = self._job
        workers = default_workers(pictures, job.device) if self._workers is None else self._workers
        decoders = Decoders(Preparation.of(job.recipe), workers).__enter__()  # they end with this process
        worker = ShardWorker(job)
        ahead = 2 * workers + (job.batch_size if job.recipe.fixed_side else 0)
        return lambda task: worker(task, decoders.map(task.items, ahead=ahead))


@contextmanager
def _counted(out: Path, shard: int) -> Generator[None]:
    """Refuse a shard that has ended too many workers: each leaves a byte in a file, which is deleted at the end."""
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


def _receipts(rows: Iterator[Mapping[str, str]], errors: type[Exception]) -> Generator[Receipt]:
    try:
        for row in rows:
            if row["error"]:
                raise StoreError(row["error"])
            yield Receipt.from_json(row["receipt"])
    except errors as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise VggfeatError(f"Ray gave up, {type(error).__name__}: {lines[-1] if lines else 'no reason'}") from error


@contextmanager
def _connected(ray: Any) -> Generator[None]:  # noqa: ANN401 (Ray is untyped here)
    if ray.is_initialized():
        yield
        return
    asked = _USAGE_STATS in os.environ
    os.environ.setdefault(_USAGE_STATS, "0")
    try:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:  # such as a cluster that cannot be reached
        raise InputError(f"cannot connect to Ray: {' '.join(str(error).split())}") from error
    finally:
        if not asked:
            del os.environ[_USAGE_STATS]
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _quiet(data: Any) -> Generator[None]:  # noqa: ANN401 (likewise)
    """Progress is the caller's to show."""
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


def _import() -> Any:  # noqa: ANN401 (Ray is untyped here)
    try:
        import_module("ray.data")
        return import_module("ray")
    except ImportError as error:
        raise InputError('the engine ray needs Ray Data: pip install "vggfeat[ray]"') from error
