"""Reductions of features before they are stored: pure functions, and the shapes of their results."""

import hashlib
from collections.abc import Callable, Mapping
from functools import lru_cache
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from vggfeat.dumps.recipe import projection_size
from vggfeat.features import tensors
from vggfeat.losses import formulas

Shape = tuple[int, ...]

_GRID = 7

_FUNCTIONS: Mapping[str, tuple[Callable[[Tensor], Tensor], Callable[[Shape], Shape]]] = {
    "full": (lambda x: x, lambda shape: shape),
    "mean": (lambda x: x.mean((2, 3)), lambda shape: shape[:1]),
    "max": (lambda x: x.amax((2, 3)), lambda shape: shape[:1]),
    "avg7": (lambda x: F.adaptive_avg_pool2d(x, _GRID), lambda shape: (shape[0], _GRID, _GRID)),
    "gram": (formulas.gram, lambda shape: (shape[0], shape[0])),
    "center": (lambda x: x[:, :, x.shape[2] // 2, x.shape[3] // 2], lambda shape: shape[:1]),
}


def reduce(x: Tensor, reduction: str, *, layer: str = "", seed: int = 0) -> Tensor:
    """Reduce features (N, C, H, W) to (N, ...) float32. Only projections use `layer` and `seed`.

    The result of `full` is contiguous, whatever the memory layout of `x`.
    """
    if reduction == "full":
        # Convert type and layout together: two conversions take three times as long.
        return x.to(torch.promote_types(x.dtype, torch.float32), memory_format=torch.contiguous_format)
    x = tensors.at_least_float32(x)
    size = projection_size(reduction)
    return project(x, size, layer=layer, seed=seed) if size else _FUNCTIONS[reduction][0](x)


def output_shape(reduction: str, shape: Shape) -> Shape:
    """The shape of the reduced features of one picture, given their `shape` (C, H, W)."""
    size = projection_size(reduction)
    return (size,) if size else _FUNCTIONS[reduction][1](shape)


def project(x: Tensor, size: int, *, layer: str, seed: int) -> Tensor:
    """A sparse random projection: (N, C, H, W) to (N, size).

    Each value is added, with a random sign, to one of `size` sums of equally many values. The inner product of two
    projections is an unbiased estimate of that of the features, with at most the variance of a dense Gaussian
    projection, and needs no matrix of 800,000 x 256. The assignment depends on `seed`, `layer` and the number of
    values, so projections of pictures of different sizes cannot be compared.
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
    """The number of values stored for one picture, given the `shape` (C, H, W) of its features."""
    return prod(output_shape(reduction, shape))
