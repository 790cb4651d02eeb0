import pytest
import torch

import vggfeat
from vggfeat.dumps import engine
from vggfeat.dumps.pipeline import compute

from .conftest import QUICK, hashes

OPTIONS = QUICK | {"shard_size": 2, "batch_size": 2}


@pytest.mark.parametrize(
    ("device", "expected"),
    [("cpu", ["cpu"]), ("cuda", ["cuda:0", "cuda:1", "cuda:2"]), ("cuda:1", ["cuda:1"]), ("mps", ["mps"])],
)
def test_a_run_on_cuda_takes_all_cards(device, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert engine.devices_of(device) == expected


def test_every_device_gets_its_share(pictures, tmp_path, monkeypatch):
    shares = []

    def apart(found, workers):
        shares.extend((job.device, [task.number for task in tasks]) for job, tasks in found)
        for job, tasks in found:
            yield from compute(job, tasks, workers)

    monkeypatch.setattr(engine, "compute_apart", apart)
    vggfeat.dump(pictures, tmp_path / "one", **OPTIONS)
    assert not shares
    vggfeat.dump(pictures, tmp_path / "several", **OPTIONS, engine=engine.LocalEngine(0, devices=["cpu"] * 4))
    assert shares == [("cpu", [0, 4]), ("cpu", [1, 5]), ("cpu", [2]), ("cpu", [3])]
    assert hashes(tmp_path / "one") == hashes(tmp_path / "several")
