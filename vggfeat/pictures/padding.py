"""Pad and crop images, with gradients that are deterministic on GPUs too."""

from typing import Any

import torch
from torch import Tensor


def mirror_pad(images: Tensor, margin: int) -> Tensor:
    """Pad (N, C, H, W) by reflection without repeating the edge; `margin` is less than H and W.

    Equals torch's reflection padding, whose gradient is not deterministic on a GPU.

    >>> mirror_pad(torch.tensor([[[[0, 1, 2]] * 3]]), 1)[0, 0, 0].tolist()
    [1, 0, 1, 2, 1]
    """
    for axis in (2, 3):
        side = images.shape[axis]
        before = images.narrow(axis, 1, margin).flip(axis)
        after = images.narrow(axis, side - margin - 1, margin).flip(axis)
        images = torch.cat([before, images, after], dim=axis)
    return images


def wrap_pad(images: Tensor, margin: int) -> Tensor:
    """Pad (N, C, H, W) circularly: pixels beyond an edge are those of the opposite edge."""
    for axis in (2, 3):
        side = images.shape[axis]
        turns, rest = divmod(margin, side)
        before, after = images.narrow(axis, side - rest, rest), images.narrow(axis, 0, rest)
        images = torch.cat([before, *[images] * (2 * turns + 1), after], dim=axis)
    return images


def crop(x: Tensor, cut: int) -> Tensor:
    """Remove `cut` positions from each side of (N, C, H, W): a view whose gradient keeps the memory format of `x`."""
    return window(x, cut, x.shape[2] - cut, cut, x.shape[3] - cut) if cut else x


def window(x: Tensor, top: int, bottom: int, left: int, right: int) -> Tensor:
    """The view `x[:, :, top:bottom, left:right]` of (N, C, H, W); its gradient keeps the memory format of `x`."""
    return _Window.apply(x, top, bottom, left, right)


class _Window(torch.autograd.Function):
    """A slice whose gradient has the memory format of its input.

    The gradient of an ordinary slice is always contiguous, so a channels_last network would have to convert it.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, *sides: int) -> Tensor:
        ctx.shape, ctx.strides, ctx.sides = x.shape, x.stride(), sides
        top, bottom, left, right = sides
        return x[:, :, top:bottom, left:right]

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = grad_outputs
        top, bottom, left, right = ctx.sides
        whole = torch.empty_strided(ctx.shape, ctx.strides, dtype=gradient.dtype, device=gradient.device).zero_()
        whole[:, :, top:bottom, left:right] = gradient
        return whole, None, None, None, None
