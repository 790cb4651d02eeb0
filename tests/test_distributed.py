"""Real processes, joined by gloo."""

import os

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel, MixedPrecision
from torch.nn.parallel import DistributedDataParallel
from vggfeat.metrics import MeanDistance

from vggfeat import LPIPS, PerceptualLoss
from vggfeat.errors import WeightsError

BATCH = torch.rand(2, 4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


class Model(nn.Module):
    """A generator that holds its criterion, as many trainers do."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.own = nn.Conv2d(3, 3, 3, padding=1)
        self.criterion = PerceptualLoss(["relu1_2"], ["relu1_1"], lpips=1.0)

    def forward(self, images: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return self.criterion(self.own(images).sigmoid(), target)


def step(model: nn.Module, images: torch.Tensor, target: torch.Tensor) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=10.0)
    for _ in range(2):
        optimizer.zero_grad()
        model(images, target).backward()
        optimizer.step()


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", GLOO_SOCKET_IFNAME="lo")
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    model = DistributedDataParallel(Model())
    mine = slice(rank * 2, rank * 2 + 2)
    step(model, BATCH[0][mine], BATCH[1][mine])
    # Unequal shares: one pair for the first process, three for the second.
    share = slice(0, 1) if rank == 0 else slice(1, 4)
    metric = MeanDistance(LPIPS("alex", reduction="none"))
    metric.update(BATCH[0][share], BATCH[1][share])
    torch.save({"model": model.module.state_dict(), "metric": metric.compute()}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("ranks"))
    mp.spawn(work, args=(folder,), nprocs=2)
    return [torch.load(f"{folder}/{rank}.pt") for rank in range(2)]


@pytest.mark.slow
def test_ddp_with_a_criterion_inside_learns_as_one_process(ranks):
    model = Model()
    step(model, *BATCH)
    for state in (rank["model"] for rank in ranks):
        assert set(state) == {"own.weight", "own.bias"}
        for key, value in model.state_dict().items():
            torch.testing.assert_close(state[key], value, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_metric_is_the_mean_over_all_processes(ranks):
    expected = LPIPS("alex")(*BATCH)
    for rank in ranks:
        torch.testing.assert_close(rank["metric"], expected)


@pytest.fixture
def one_process(tmp_path, monkeypatch):
    """Make this process a group of its own."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def sharded(model, **options):
    """Train in bfloat16 by FSDP, as trainers configure it: parameters, gradients and buffers."""
    half = MixedPrecision(param_dtype=torch.bfloat16, reduce_dtype=torch.bfloat16, buffer_dtype=torch.bfloat16)
    return FullyShardedDataParallel(model, mixed_precision=half, device_id=torch.device("cpu"), **options)


@pytest.mark.usefixtures("one_process")
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_fsdp_that_casts_buffers_trains_with_the_criterion_ignored():
    model = Model()
    before = model.own.weight.detach().clone()
    with pytest.raises(WeightsError, match=r"were cast to torch\.bfloat16, .* ignored_modules=\[criterion\]"):
        sharded(Model())(*BATCH)
    wrapped = sharded(model, ignored_modules=[model.criterion], use_orig_params=True)
    step(wrapped, *BATCH)
    assert model.criterion.trunk.offset.dtype == torch.float32
    plain = Model()
    step(plain, *BATCH)
    moved, expected = model.own.weight.detach() - before, plain.own.weight.detach() - before
    assert torch.cosine_similarity(moved.flatten(), expected.flatten(), dim=0) > 0.99
