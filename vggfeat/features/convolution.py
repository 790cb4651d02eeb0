"""Convolution in the arithmetic that a network asks for, whatever torch's settings are when gradients are computed.

By default torch lets cuDNN compute float32 convolutions in TF32. The setting belongs to the process, and a user calls
`backward` long after our forward pass. So the convolution is an autograd function that holds the setting around the
forward operation and around each operation of its derivatives.

The arithmetic is a name for `device.settings`: `float32` (IEEE) or `tf32`.
"""

from typing import Any

import torch
import torch.nn.functional as F
import torch.nn.grad
from torch import Tensor

from vggfeat.features.device import Arithmetic, settings

DEVICES, DTYPES = ("cuda",), (torch.float32,)
"""The devices and dtypes whose arithmetic depends on torch's settings."""


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int = 1,
    padding: int = 0,
    groups: int = 1,
    arithmetic: Arithmetic = "float32",
) -> Tensor:
    """`torch.nn.functional.conv2d`, in IEEE float32 or TF32 on CUDA, forward and backward.

    Args:
        x: (N, C, H, W).
        weight: (O, C / groups, kh, kw). If it requires a gradient, torch's own convolution is used, with its settings.
        bias: (O,), or None.
        stride: of the kernel.
        padding: zeros on each side.
        groups: of channels.
        arithmetic: `float32` or `tf32`, for float32 tensors on CUDA. Others are computed as torch does.

    Returns (N, O, h, w). It can be differentiated with respect to `x` any number of times. Exported and traced graphs
    hold torch's own convolution, and follow the settings of the process that runs them.

    >>> x, weight = torch.rand(1, 2, 4, 6), torch.rand(3, 2, 3, 3)
    >>> torch.equal(convolve(x, weight, padding=1), torch.conv2d(x, weight, padding=1))
    True
    """
    if _is_trained(weight, bias) or not depends_on_settings(x):
        return F.conv2d(x, weight, bias, stride, padding, 1, groups)
    if torch.compiler.is_compiling():
        return _compiled(x, weight, bias, stride, padding, groups, arithmetic)
    y: Tensor = _Convolution.apply(x, weight, bias, stride, padding, groups, arithmetic)  # pyright: ignore[reportUnknownMemberType, reportAssignmentType] (untyped upstream)
    return y


def linear(x: Tensor, weight: Tensor, bias: Tensor, *, arithmetic: Arithmetic = "float32") -> Tensor:
    """`torch.nn.functional.linear` of (N, C) to (N, O), in the arithmetic that `convolve` describes.

    >>> linear(torch.ones(2, 3), torch.ones(4, 3), torch.zeros(4)).shape
    torch.Size([2, 4])
    """
    if _is_trained(weight, bias) or not depends_on_settings(x):
        return F.linear(x, weight, bias)
    return convolve(x[:, :, None, None], weight[:, :, None, None], bias, arithmetic=arithmetic)[:, :, 0, 0]


def depends_on_settings(x: Tensor) -> bool:
    """Whether torch's settings decide how `x` is multiplied, and this code can change them for an operation."""
    return (
        x.device.type in DEVICES
        and x.dtype in DTYPES
        and not torch.compiler.is_exporting()
        and not torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage] (documented)
    )


def _is_trained(weight: Tensor, bias: Tensor | None) -> bool:
    return weight.requires_grad or (bias is not None and bias.requires_grad)


class _Convolution(torch.autograd.Function):
    """`convolve`. Its derivative is `_Transposed`, whose derivative is this again."""

    generate_vmap_rule = True

    @staticmethod
    def forward(  # noqa: PLR0917 (torch passes arguments by position)
        x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int, groups: int, arithmetic: Arithmetic
    ) -> Tensor:
        return _convolve(x, weight, bias, stride, padding, groups, arithmetic)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004 (torch's own)
        x, weight, _, *ctx.options = inputs
        ctx.size = tuple(x.shape)
        ctx.save_for_backward(weight)
        ctx.save_for_forward(weight)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        [weight] = ctx.saved_tensors
        found: Tensor = _Transposed.apply(grad_outputs[0], weight, ctx.size, *ctx.options)  # pyright: ignore[reportUnknownMemberType, reportAssignmentType] (untyped upstream)
        return (found, *[None] * 6)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        [weight] = ctx.saved_tensors
        y: Tensor = _Convolution.apply(tangents[0], weight, None, *ctx.options)  # pyright: ignore[reportUnknownMemberType, reportAssignmentType] (untyped upstream)
        return y


class _Transposed(torch.autograd.Function):
    """From gradients of the output of a convolution to gradients of its input, of `size`."""

    generate_vmap_rule = True

    @staticmethod
    def forward(  # noqa: PLR0917 (torch passes arguments by position)
        gradient: Tensor,
        weight: Tensor,
        size: tuple[int, ...],
        stride: int,
        padding: int,
        groups: int,
        arithmetic: Arithmetic,
    ) -> Tensor:
        return _transpose(gradient, weight, list(size), stride, padding, groups, arithmetic)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004 (torch's own)
        _, weight, ctx.size, *ctx.options = inputs
        ctx.save_for_backward(weight)
        ctx.save_for_forward(weight)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        [weight] = ctx.saved_tensors
        found: Tensor = _Convolution.apply(grad_outputs[0], weight, None, *ctx.options)  # pyright: ignore[reportUnknownMemberType, reportAssignmentType] (untyped upstream)
        return (found, *[None] * 6)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        [weight] = ctx.saved_tensors
        y: Tensor = _Transposed.apply(tangents[0], weight, ctx.size, *ctx.options)  # pyright: ignore[reportUnknownMemberType, reportAssignmentType] (untyped upstream)
        return y


def _convolve(  # noqa: PLR0917 (as `_Convolution.forward`)
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int, groups: int, arithmetic: str
) -> Tensor:
    with settings(torch.device("cuda"), arithmetic):
        return F.conv2d(x, weight, bias, stride, padding, 1, groups)


def _transpose(  # noqa: PLR0917 (as `_Transposed.forward`)
    gradient: Tensor, weight: Tensor, size: list[int], stride: int, padding: int, groups: int, arithmetic: str
) -> Tensor:
    with settings(torch.device("cuda"), arithmetic):
        return torch.nn.grad.conv2d_input(size, weight, gradient, stride, padding, 1, groups)


# A compiled graph cannot change settings between its operations, so there each convolution is an operation of ours.
_compiled = torch.library.custom_op("vggfeat::convolve", _convolve, mutates_args=())
_compiled_transposed = torch.library.custom_op("vggfeat::transpose", _transpose, mutates_args=())


@_compiled.register_fake
def _(  # noqa: PLR0917 (as `_convolve`)
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int, groups: int, arithmetic: str
) -> Tensor:
    del arithmetic
    return F.conv2d(x, weight, bias, stride, padding, 1, groups)


@_compiled_transposed.register_fake
def _(  # noqa: PLR0917 (as `_transpose`)
    gradient: Tensor, weight: Tensor, size: list[int], stride: int, padding: int, groups: int, arithmetic: str
) -> Tensor:
    del arithmetic
    return torch.nn.grad.conv2d_input(size, weight, gradient, stride, padding, 1, groups)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    del output
    x, weight, _, *ctx.options = inputs
    ctx.size = x.shape
    ctx.save_for_backward(weight)


def _differentiate(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    [weight] = ctx.saved_tensors
    return (_compiled_transposed(gradient, weight, list(ctx.size), *ctx.options), *[None] * 6)


_compiled.register_autograd(_differentiate, setup_context=_save)
