import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import vggfeat
from vggfeat.dumps import ray_engine
from vggfeat.dumps.engine import LocalEngine
from vggfeat.dumps.ray_engine import RayEngine, ShardActor
from vggfeat.dumps.receipts import Receipt
from vggfeat.errors import InputError, RecipeError, VggfeatError

from .conftest import QUICK, hashes, make_pictures

OPTIONS = QUICK | {"shard_size": 2, "batch_size": 2, "statistics": True, "reduce": "full,mean"}


class Actors:
    """The engine without Ray: what is sent and what comes back, in this process."""

    def __init__(self, change=lambda job: job):
        self._change = change

    def run(self, job, tasks):
        actor = ShardActor(pickle.loads(pickle.dumps(self._change(job))), 0)  # noqa: S301 (ours)
        yield from ray_engine.collect_receipts((actor({"task": pickle.dumps(task)}) for task in tasks), EOFError)


def test_an_actor_writes_what_the_local_engine_does(pictures, tmp_path):
    vggfeat.dump(pictures, tmp_path / "local", **OPTIONS, engine=LocalEngine(0))
    vggfeat.dump(pictures, tmp_path / "actors", **OPTIONS, engine=Actors())
    assert hashes(tmp_path / "local") == hashes(tmp_path / "actors")


def test_an_actor_leaves_a_shard_that_would_lose_a_picture(pictures, tmp_path):
    good = (pictures / "000.png").read_bytes()
    (pictures / "000.png").write_text("no picture")
    out = vggfeat.dump(pictures, tmp_path / "out", **OPTIONS, engine=Actors()).path
    before = hashes(out)
    (pictures / "000.png").write_bytes(good)
    (pictures / "001.jpg").unlink()
    (pictures / "001.jpg").symlink_to("nowhere")
    with pytest.warns(UserWarning, match=r"shard 0 is left as it was, for '001\.jpg', whose features it holds"):
        vggfeat.dump(pictures, out, **OPTIONS, engine=Actors(), retry_failed=True)
    assert hashes(out) == before


def test_what_a_user_can_mend_comes_back_as_one_line(pictures, tmp_path):
    engine = Actors(lambda job: replace(job, digest="0" * 64))
    with pytest.raises(VggfeatError, match="the weights of vgg11 are not those of the run"):
        vggfeat.dump(pictures, tmp_path / "out", **OPTIONS, engine=engine)
    assert not list((tmp_path / "out").rglob(".*"))


def test_a_shard_that_always_ends_its_worker_ends_the_run(tmp_path):
    dead = [ray_engine.counting_attempts(tmp_path, 7) for _ in range(3)]
    for worker in dead:
        worker.__enter__()
    with pytest.raises(VggfeatError, match="shard 7 has ended its Ray worker 3 times"):
        ray_engine.counting_attempts(tmp_path, 7).__enter__()
    with ray_engine.counting_attempts(tmp_path, 8):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [".000007.begun.tmp"]


def test_refusals(pictures, tmp_path, monkeypatch):
    with pytest.raises(RecipeError, match="unknown engine 'rays': did you mean ray"):
        vggfeat.dump(pictures, tmp_path / "out", **QUICK, engine="rays")
    for name in ("ray", "ray.data"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=r'the engine ray needs Ray Data: pip install "vggfeat\[ray\]"'):
        vggfeat.dump(pictures, tmp_path / "out", **QUICK, engine="ray")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("nodes", "device", "actors", "planned"),
    [
        ([{"CPU": 2.0}], "cpu", 2, (2, {"num_cpus": 1})),
        ([{"CPU": 8.0}], "cpu", None, (1, {"num_cpus": 8})),
        ([{"CPU": 8.0}, {"CPU": 16.0}, {}], "cpu", None, (3, {"num_cpus": 8})),
        ([{"CPU": 8.0}, {"CPU": 8.0}], "cpu", 5, (5, {"num_cpus": 2})),
        ([{"CPU": 1.0}], "cpu", 4, (1, {"num_cpus": 1})),
        ([{"CPU": 8.0, "GPU": 2.0}, {"CPU": 8.0, "GPU": 4.0}], "cuda:1", None, (6, {"num_cpus": 1, "num_gpus": 1})),
        ([{"CPU": 64.0}], "cpu", 64, (9, {"num_cpus": 1})),
    ],
)
def test_plans(nodes, device, actors, planned, monkeypatch):
    class Ray:
        @staticmethod
        def nodes():
            return [*({"Alive": True, "Resources": node} for node in nodes), {"Alive": False, "Resources": {"CPU": 99}}]

    class Job:
        pass

    monkeypatch.setattr(ray_engine, "import_ray", Ray)
    job = Job()
    job.device = device
    assert RayEngine(actors=actors).actors_for(job, 9) == planned


_CLUSTER = """
import os, signal, sys, threading, time
from pathlib import Path
import ray
import vggfeat
from vggfeat.dumps.ray_engine import RayEngine
from vggfeat.dumps.run import Dumping

source, out, options = sys.argv[1], Path(sys.argv[2]), {options!r}
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
ray.init(num_cpus=2, object_store_memory=80 * 2**20, include_dashboard=False, log_to_driver=False)

def workers(pid=os.getpid()):
    "The processes of this cluster that hold a network. Others come and go meanwhile."
    gone = FileNotFoundError, ProcessLookupError
    try:
        tasks = list(Path(f"/proc/{{pid}}/task").iterdir())
        children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except gone:
        return
    for child in children:
        try:
            command = Path(f"/proc/{{child}}/cmdline").read_bytes()
        except gone:
            continue
        if b"ShardActor" in command:
            yield child
        yield from workers(child)

engine = RayEngine(actors=2, workers=0)

# One worker is killed while a shard is being written.
run = Dumping(source, out / "killed", engine=engine, **options)
killed = []
for progress in run:
    if not killed:
        found = list(workers())
        assert len(found) == 2, found
        os.kill(found[0], signal.SIGKILL)
        killed.append(found[0])
assert killed and progress.done == 60, progress

# Begun locally and finished on Ray, and the reverse.
for name, first, second in (("there", None, engine), ("back", engine, None)):
    run = Dumping(source, out / name, engine=first, **options)
    for progress in run:
        if progress.shards_done >= 5:
            break
    iter(run).close()
    done = len(list((out / name).glob("receipts/*.json")))
    assert 5 <= done < 30, done
    deadline = time.monotonic() + 120
    while list(workers()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not list(workers())
    vggfeat.dump(source, out / name, engine=second, **options)
assert ray.is_initialized()
ray.shutdown()

# Without a cluster, one is started and ended.
vggfeat.dump(source, out / "own", engine=RayEngine(actors=1, workers=1), **options)
assert not ray.is_initialized()
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="needs /proc")
def test_on_a_cluster_of_two_workers(tmp_path):
    pytest.importorskip("ray.data")
    source = make_pictures(tmp_path / "pictures", 60)
    expected = hashes(vggfeat.dump(source, tmp_path / "local", **OPTIONS).path)
    (tmp_path / "home").mkdir()
    root = Path(vggfeat.__file__).parents[1]
    environment = os.environ | {"HOME": str(tmp_path / "home"), "PYTHONPATH": str(root), "RAY_ADDRESS": "local"}
    code = _CLUSTER.format(options=OPTIONS)
    command = [sys.executable, "-c", code, str(source), str(tmp_path)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=600)
    assert ended.returncode == 0, ended.stderr
    for name in ("killed", "there", "back", "own"):
        assert hashes(tmp_path / name) == expected, name
    receipts = [Receipt.from_json(path.read_text()) for path in (tmp_path / "killed/receipts").glob("*.json")]
    assert sorted(row.id for receipt in receipts for row in receipt.entries) == sorted(x.name for x in source.iterdir())
