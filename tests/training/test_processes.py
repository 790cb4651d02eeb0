"""Two real processes, joined by gloo, against one with the whole batch."""

import os

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file

from vggfeat.training import processes
from vggfeat.training.recipe import TrainingRecipe
from vggfeat.training.run import train

# Plain SGD: Adam's first steps have the sign of a gradient, and so magnify the last digit.
RECIPE = TrainingRecipe(
    network="4,M,8", batch_norm=True, size=8, epochs=2, batch_size=301, learning_rate=0.05, optimiser="sgd"
)


def run(folder):
    torch.set_num_threads(1)
    training = train("digits", folder, RECIPE, device="cpu", precision="float32", resume=True)
    training.result()
    return training.history


def work(rank, folder):
    os.environ.update(GLOO_SOCKET_IFNAME="lo")
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.save(run(f"{folder}/two"), f"{folder}/{rank}.pt")
    x = torch.arange(3.0) + rank
    torch.save((processes.total(x, torch.device("cpu")), processes.from_first(rank)), f"{folder}/shared-{rank}.pt")
    processes.leave()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    mp.get_context("forkserver").set_forkserver_preload(["vggfeat.training.run", "sklearn.datasets", "torch._dynamo"])
    mp.start_processes(work, args=(str(folder),), nprocs=2, start_method="forkserver")
    return folder


@pytest.mark.slow
def test_two_processes_are_one_with_the_whole_batch(folder):
    alone = run(folder / "one")
    for rank in range(2):
        history = torch.load(folder / f"{rank}.pt")
        for ours, theirs in zip(history, alone, strict=True):
            for name in ("loss", "held_out_loss"):
                assert ours[name] == pytest.approx(theirs[name], rel=1e-4)
            assert ours["accuracy"] == pytest.approx(theirs["accuracy"], abs=2e-3)
    one, two = (load_file(folder / name / "last.safetensors") for name in ("one", "two"))
    for key, tensor in one.items():
        torch.testing.assert_close(two[key], tensor, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_sums_and_what_the_first_has(folder):
    for rank in range(2):
        total, first = torch.load(folder / f"shared-{rank}.pt")
        assert total.tolist() == [1, 3, 5]
        assert first == 0


def test_one_process_needs_no_group(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert processes.join() is None
    assert (processes.rank(), processes.count(), processes.from_first(7), processes.from_all(7)) == (0, 1, 7, [7])
