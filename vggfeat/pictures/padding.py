"""Surround images and cut them, with gradients that are the same each time on a GPU too."""

from typing import Any

import torch
from torch import Tensor


def mirror_pad(images: Tensor, margin: int) -> Tensor:
    """Surround (N, C, H, W) by `margin` pixels of its mirror image, the edge not repeated; less than H and W.

    As torch's reflection padding, but with the same gradient each time on a GPU too.
    """
    for axis in (2, 3):
        side = images.shape[axis]
        before = images.narrow(axis, 1, margin).flip(axis)
        after = images.narrow(axis, side - margin - 1, margin).flip(axis)
        images = torch.cat([before, images, after], dim=axis)
    return images


def wrap_pad(images: Tensor, margin: int) -> Tensor:
    """Surround (N, C, H, W) by `margin` pixels of itself: what leaves at one edge comes in at the other."""
    for axis in (2, 3):
        side = images.shape[axis]
        turns, rest = divmod(margin, side)
        before, after = images.narrow(axis, side - rest, rest), images.narrow(axis, 0, rest)
        images = torch.cat([before, *[images] * (2 * turns + 1), after], dim=axis)
    return images


def crop(x: Tensor, cut: int) -> Tensor:
    """Cut `cut` positions off each side of (N, C, H, W); a view, whose gradient keeps the memory layout of `x`."""
    return window(x, cut, x.shape[2] - cut, cut, x.shape[3] - cut) if cut else x


def window(x: Tensor, top: int, bottom: int, left: int, right: int) -> Tensor:
    """The rows `top` to `bottom` and columns `left` to `right` of (N, C, H, W), the ends not included; as `crop`."""
    return _Window.apply(x, top, bottom, left, right)  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]


class _Window(torch.autograd.Function):
    """Autograd's own slice would fill a contiguous gradient, which a channels_last network must then convert."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *sides: int) -> Tensor:  # noqa: ANN401 (torch's own)
        ctx.shape, ctx.strides, ctx.sides = x.shape, x.stride(), sides
        top, bottom, left, right = sides
        return x[:, :, top:bottom, left:right]

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401 (torch's own)
        (gradient,) = grad_outputs
        top, bottom, left, right = ctx.sides
        whole = torch.empty_strided(ctx.shape, ctx.strides, dtype=gradient.dtype, device=gradient.device).zero_()
        whole[:, :, top:bottom, left:right] = gradient
        return whole, None, None, None, None
