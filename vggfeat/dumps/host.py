"""Copies the tensors of a batch to the host, all together."""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array = npt.NDArray[Any]


def copy_to_host(tensors: Sequence[Tensor]) -> Callable[[], list[Array]]:
    """Begin to copy tensors of one device to the host. Returns a function that waits, and returns them as arrays.

    On a CPU nothing is copied. On other devices the tensors are packed into one buffer, so that one copy suffices; on
    CUDA it goes to pinned memory on a stream of its own, while the next batch is computed.

    >>> wait = copy_to_host([torch.ones(2), torch.zeros(1, dtype=torch.int64)])
    >>> [array.tolist() for array in wait()]
    [[1.0, 1.0], [0]]
    """
    if all(x.device.type == "cpu" for x in tensors):
        arrays = [x.contiguous().numpy() for x in tensors]
        return lambda: list(arrays)
    kinds = [(tuple(x.shape), torch.empty(0, dtype=x.dtype).numpy().dtype) for x in tensors]
    wait = start_copy(pack(tensors))
    return lambda: unpack(wait(), kinds)


def pack(tensors: Sequence[Tensor]) -> Tensor:
    """The bytes of all tensors in one tensor. Larger types come first, so that each is aligned."""
    order = sorted(tensors, key=lambda x: -x.itemsize)
    return torch.cat([x.contiguous().reshape(-1).view(torch.uint8) for x in order])


def unpack(data: npt.NDArray[np.uint8], kinds: Sequence[tuple[tuple[int, ...], np.dtype[Any]]]) -> list[Array]:
    """The arrays, views of `data`, that were packed. `kinds`: the shape and type of each."""
    found: dict[int, Array] = {}
    start = 0
    for place in sorted(range(len(kinds)), key=lambda place: -kinds[place][1].itemsize):
        shape, dtype = kinds[place]
        end = start + prod(shape) * dtype.itemsize
        found[place] = data[start:end].view(dtype).reshape(shape)
        start = end
    return [found[place] for place in range(len(kinds))]


def start_copy(packed: Tensor) -> Callable[[], npt.NDArray[np.uint8]]:
    """Begin to copy bytes to the host. Returns a function that waits for them."""
    if packed.device.type != "cuda":
        copied = packed.cpu().numpy()
        return lambda: copied
    side = torch.cuda.Stream(packed.device)
    side.wait_stream(torch.cuda.current_stream(packed.device))
    with torch.cuda.stream(side):
        pinned = torch.empty(packed.shape, dtype=packed.dtype, pin_memory=True)
        pinned.copy_(packed, non_blocking=True)
    packed.record_stream(side)
    done = side.record_event()

    def wait() -> npt.NDArray[np.uint8]:
        done.synchronize()
        return pinned.numpy()

    return wait
