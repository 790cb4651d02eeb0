"""Training in several processes: communication, and batch normalisation over the pictures of all of them."""

import os
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as collective
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vggfeat.networks.network import VGG

T = TypeVar("T")


def join() -> torch.device | None:
    """Join the processes that `torchrun` started, by NCCL with GPUs, else by gloo. Returns this process's GPU.

    Does nothing for a single process, or if they are joined already.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return None
    device = None
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device else "gloo")
    return device


def leave() -> None:
    """Leave the group of processes, if there is one."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    """The index of this process, 0 for the first."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def count() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def total(x: Tensor, device: torch.device) -> Tensor:
    """Sum a tensor over all processes; the result is on the CPU."""
    if count() > 1:
        x = x.to(device)
        dist.all_reduce(x)
    return x.cpu()


def from_first(value: T) -> T:
    """The value that the first process passes. Every process must call this."""
    if count() == 1:
        return value
    box: list[Any] = [value]
    dist.broadcast_object_list(box)
    return box[0]


def from_all(value: T) -> list[T]:
    """The values that all processes pass. Every process must call this."""
    if count() == 1:
        return [value]
    box: list[Any] = [None] * count()
    dist.all_gather_object(box, value)
    return box


def spread(model: VGG) -> nn.Module:
    """Wrap the model so that several processes train it as one process with the whole batch would."""
    if count() == 1:
        return model
    place = next(model.parameters()).device
    if place.type == "cuda":
        shared = cast("nn.Module", nn.SyncBatchNorm.convert_sync_batchnorm(model))
    else:
        shared = _SharedNorms(model)
    return DistributedDataParallel(shared, device_ids=[place.index] if place.type == "cuda" else None)


class _SharedNorms(nn.Module):
    """A model with synchronised batch normalisation on the CPU. torch's own is for GPUs only."""

    def __init__(self, model: VGG) -> None:
        super().__init__()
        self.model = model
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                object.__setattr__(module, "forward", _SharedNorm(module))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class _SharedNorm:
    """The forward pass of batch normalisation, with mean and variance over the pictures of all processes."""

    def __init__(self, module: nn.BatchNorm2d) -> None:
        self.module = module

    def __call__(self, x: Tensor) -> Tensor:
        module = self.module
        if not module.training:
            return nn.BatchNorm2d.forward(module, x)
        work = x.float()
        here = torch.cat([work.sum((0, 2, 3)), work.square().sum((0, 2, 3)), work.new_tensor([x[:, 0].numel()])])
        everywhere = collective.all_reduce(here)
        sums, squares, number = everywhere.split([x.shape[1], x.shape[1], 1])
        mean = sums / number
        variance = (squares / number - mean.square()).clamp_min(0)
        with torch.no_grad():
            momentum = module.momentum or 0.1
            module.get_buffer("running_mean").lerp_(mean, momentum)
            module.get_buffer("running_var").lerp_(variance * number / (number - 1).clamp_min(1), momentum)
            module.get_buffer("num_batches_tracked").add_(1)
        scale = module.weight * (variance + module.eps).rsqrt()
        shift = module.bias - mean * scale
        return (work * scale[:, None, None] + shift[:, None, None]).to(x.dtype)
