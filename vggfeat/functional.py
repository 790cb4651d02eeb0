"""Pure functions of tensors. Nothing here knows a network, a file or a target.

Statistics of half-precision features are accumulated in float32 and returned in float32.
"""

from typing import Any, Literal

import torch
from torch import Tensor

GramDivisor = Literal["hw", "chw", "none"]

# bfloat16 products are rounded once a part, and summed in float32: the more parts, the smaller the rounding.
_GRAM_PARTS = 8


def gram(x: Tensor, *, divide_by: GramDivisor = "hw") -> Tensor:
    """The Gram matrix of features: the inner products of their channels over space.

    `x`: (N, C, H, W). Returns (N, C, C) in float32 at least. `divide_by` is the convention: `hw` divides by H·W
    (the notebook of Gatys et al., pastiche, pystiche), `chw` by C·H·W (neural-style, BasicSR, the PyTorch
    examples), `none` leaves the products undivided (Gatys et al. 2016, piq).
    """
    channels, height, width = x.shape[1:]
    divisor = {"hw": height * width, "chw": channels * height * width, "none": 1}[divide_by]
    # For channels_last features this is a view.
    rows = x.permute(0, 2, 3, 1).flatten(1, 2)
    return _Gram.apply(rows) / divisor  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]


class _Gram(torch.autograd.Function):
    """Rows (N, P, C) to products (N, C, C), with one matrix product in the backward pass where autograd takes two."""

    generate_vmap_rule = True

    @staticmethod
    def forward(rows: Tensor) -> Tensor:
        if rows.dtype == torch.bfloat16 and not rows.is_cuda:
            parts = rows.chunk(_GRAM_PARTS, dim=1)
            return torch.stack([(part.mT @ part).float() for part in parts]).sum(0)
        # float16 cannot hold the products, and a GPU forms float32 products of bfloat16 at full speed when told to.
        if rows.is_cuda and rows.dtype in (torch.bfloat16, torch.float16):
            return torch.bmm(rows.mT, rows, out_dtype=torch.float32)
        rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
        return rows.mT @ rows

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:  # noqa: ANN401, ARG004 (torch's own)
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:  # noqa: ANN401 (torch's own)
        (rows,) = ctx.saved_tensors
        gradient = grad_outputs[0] + grad_outputs[0].mT
        if rows.dtype == torch.float16:
            return (rows.float() @ gradient).to(rows.dtype)
        return rows @ gradient.to(rows.dtype)


def total_variation(images: Tensor, *, power: Literal[1, 2] = 2) -> Tensor:
    """How much neighbouring pixels differ: (N, C, H, W) to (N,).

    The mean over rows and channels of |difference|^power between vertical neighbours, plus the same between
    horizontal ones, so that the value does not depend on the size. An axis of one pixel counts nothing.
    """
    x = images.to(torch.promote_types(images.dtype, torch.float32))
    total = x.new_zeros(len(x))
    for axis in (2, 3):
        if x.shape[axis] > 1:
            difference = x.diff(dim=axis)
            total = total + (difference.abs() if power == 1 else difference.square()).mean(dim=(1, 2, 3))
    return total
