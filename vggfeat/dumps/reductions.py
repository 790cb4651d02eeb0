"""What is stored of a layer's features: pure functions, and the shapes of what they return."""

import hashlib
from collections.abc import Callable, Mapping
from functools import lru_cache
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from vggfeat.dumps.recipe import projection_size
from vggfeat.features import tensors
from vggfeat.losses import functional

Shape = tuple[int, ...]

_GRID = 7

_FUNCTIONS: Mapping[str, tuple[Callable[[Tensor], Tensor], Callable[[Shape], Shape]]] = {
    "full": (lambda x: x, lambda shape: shape),
    "mean": (lambda x: x.mean((2, 3)), lambda shape: shape[:1]),
    "max": (lambda x: x.amax((2, 3)), lambda shape: shape[:1]),
    "avg7": (lambda x: F.adaptive_avg_pool2d(x, _GRID), lambda shape: (shape[0], _GRID, _GRID)),
    "gram": (functional.gram, lambda shape: (shape[0], shape[0])),
    "center": (lambda x: x[:, :, x.shape[2] // 2, x.shape[3] // 2], lambda shape: shape[:1]),
}


def reduce(x: Tensor, reduction: str, *, layer: str = "", seed: int = 0) -> Tensor:
    """Reduce features (N, C, H, W) to (N, ...) in float32. `layer` and `seed` choose a projection, and nothing else.

    What is `full` is contiguous, whatever the layout of `x`.
    """
    if reduction == "full":
        # Out of the network's layout at once: one after the other takes three times as long.
        return x.to(torch.promote_types(x.dtype, torch.float32), memory_format=torch.contiguous_format)
    x = tensors.at_least_float32(x)
    size = projection_size(reduction)
    return project(x, size, layer=layer, seed=seed) if size else _FUNCTIONS[reduction][0](x)


def output_shape(reduction: str, shape: Shape) -> Shape:
    """The shape of what `reduction` makes of one picture's features of `shape` (C, H, W)."""
    size = projection_size(reduction)
    return (size,) if size else _FUNCTIONS[reduction][1](shape)


def project(x: Tensor, size: int, *, layer: str, seed: int) -> Tensor:
    """A sparse random projection: (N, C, H, W) to (N, size).

    Each value goes into one of `size` sums, all of equally many values, with a random sign. The inner product of two
    projections has the expectation of that of the features, and at most the variance of a dense Gaussian projection's;
    a matrix of 800,000 x 256 is never formed. What goes where depends on `seed`, `layer` and the number of values,
    so that pictures of different sizes are not to be compared.
    """
    rows = x.flatten(1)
    order, signs = _sketch(rows.shape[1], size, layer, seed, str(x.device))
    padded = rows.new_zeros(len(rows), len(order))
    padded[:, : rows.shape[1]] = rows
    return (padded[:, order] * signs).reshape(len(rows), size, -1).sum(2)


@lru_cache(maxsize=16)
def _sketch(length: int, size: int, layer: str, seed: int, device: str) -> tuple[Tensor, Tensor]:
    digest = hashlib.sha256(f"{seed}/{layer}/{length}/{size}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7]))
    padded = -(-length // size) * size
    order = torch.randperm(padded, generator=generator)
    signs = torch.randint(0, 2, (padded,), generator=generator) * 2 - 1
    return order.to(device), signs.float().to(device)


def values(reduction: str, shape: Shape) -> int:
    """How many numbers are stored of one picture's features of `shape`."""
    return prod(output_shape(reduction, shape))
