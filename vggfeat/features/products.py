"""Matrix products in IEEE float32, whatever torch's settings are when gradients are computed. See `convolution`."""

from typing import Any

import torch
from torch import Tensor

from vggfeat.features.convolution import depends_on_settings
from vggfeat.features.device import settings


def product(a: Tensor, b: Tensor) -> Tensor:
    """`a @ b`, on CUDA in IEEE float32, forward and backward.

    Args:
        a: (..., P, K).
        b: (..., K, Q) or (K,).

    Returns (..., P, Q) or (..., P). It can be differentiated any number of times. Only float32 on CUDA depends on
    torch's settings: `torch.backends.cuda.matmul.fp32_precision` may let it round factors to TF32. Exported and traced
    graphs hold torch's own product, and follow the settings of the process that runs them.

    >>> a, b = torch.rand(2, 4, 3), torch.rand(3, 5)
    >>> torch.equal(product(a, b), a @ b)
    True
    """
    if not depends_on_settings(a):
        return a @ b
    if b.ndim == 1:
        return product(a, b[:, None])[..., 0]
    if torch.compiler.is_compiling():
        return _compiled(a, b)
    found: Tensor = _Product.apply(a, b)  # pyright: ignore[reportUnknownMemberType, reportAssignmentType] (untyped upstream)
    return found


def add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """Add `product(a, b)` to `total` in place: (N, P, Q), (N, P, K) and (N, K, Q). It has no derivative.

    >>> total = torch.ones(1, 1, 1)
    >>> add_product(total, torch.full((1, 1, 2), 3.0), torch.ones(1, 2, 1))
    >>> total
    tensor([[[7.]]])
    """
    if not depends_on_settings(total):
        total.baddbmm_(a, b)
    elif torch.compiler.is_compiling():
        total += product(a, b)
    else:
        with settings(torch.device("cuda"), "float32"):
            total.baddbmm_(a, b)


class _Product(torch.autograd.Function):
    """`product`. Its derivatives are products again."""

    generate_vmap_rule = True

    @staticmethod
    def forward(a: Tensor, b: Tensor) -> Tensor:
        return _multiply(a, b)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:  # noqa: ARG004 (torch's own)
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, Tensor | None]:
        return _differentiate(ctx, grad_outputs[0])

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor | None:
        a, b = ctx.saved_tensors
        along_a, along_b = tangents
        parts = [
            product(x, y) for x, y in ((along_a, b), (a, along_b)) if isinstance(x, Tensor) and isinstance(y, Tensor)
        ]
        return sum(parts[1:], parts[0]) if parts else None


def _multiply(a: Tensor, b: Tensor) -> Tensor:
    with settings(torch.device("cuda"), "float32"):
        return torch.matmul(a, b)


def _differentiate(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
    a, b = ctx.saved_tensors
    to_a = product(gradient, b.mT).sum_to_size(a.shape) if ctx.needs_input_grad[0] else None
    to_b = product(a.mT, gradient).sum_to_size(b.shape) if ctx.needs_input_grad[1] else None
    return to_a, to_b


# A compiled graph cannot change settings between its operations, so there each product is an operation of ours.
_compiled = torch.library.custom_op("vggfeat::product", _multiply, mutates_args=())


@_compiled.register_fake
def _(a: Tensor, b: Tensor) -> Tensor:
    return a @ b


def _save(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    del output
    ctx.save_for_backward(*inputs)


_compiled.register_autograd(_differentiate, setup_context=_save)
