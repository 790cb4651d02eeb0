"""Helpers for tensors: precision, autocast, and typed access to values."""

import hashlib
import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

Shared = TypeVar("Shared", bound=nn.Module)


def without_autocast(device_type: str) -> AbstractContextManager[object]:
    """A context that disables any surrounding autocast, so that the code inside keeps its own precision."""
    if device_type != "meta" and torch.is_autocast_enabled(device_type):  # the meta device has no autocast
        return torch.autocast(device_type, enabled=False)
    return nullcontext()


def values(x: Tensor) -> list[Any]:
    """The values of a tensor as nested lists."""
    return cast("list[Any]", x.tolist())


def at_least_float32(x: Tensor) -> Tensor:
    """`x` in float32 if it is in half precision, otherwise unchanged. Statistics accumulate in this."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def digest(found: Iterable[Tensor]) -> str:
    """The sha256 of the values of tensors, rounded to float32 and read in order."""
    state = hashlib.sha256()
    for x in found:
        state.update(x.detach().float().cpu().contiguous().numpy().tobytes())
    return state.hexdigest()


def keeps_values(fn: Callable[[Tensor], Tensor], like: Tensor) -> bool:
    """Whether `fn`, the argument of `Module._apply`, copies values. That of `to_empty()` does not.

    From the meta device there are no values to copy, to it none are needed.

    >>> keeps_values(torch.Tensor.half, torch.zeros(1)), keeps_values(torch.empty_like, torch.zeros(1))
    (True, False)
    """
    if like.is_meta:
        return fn(torch.empty(1, device="meta")).is_meta
    # Random bytes are exact in every floating-point format and do not touch torch's random state.
    probe = torch.tensor(list(os.urandom(32)), dtype=torch.float32, device=like.device)
    moved = fn(probe.clone())
    try:
        return moved.is_meta or torch.equal(moved.float().cpu(), probe.cpu())
    except torch.AcceleratorError:
        raise
    except RuntimeError:  # torch's fake tensors have no values to lose
        return True


def sharing(module: Shared) -> Shared:
    """A copy of a module that shares its tensors, and the modules in it.

    >>> module = torch.nn.Linear(2, 1)
    >>> sharing(module).weight is module.weight
    True
    """
    copied = module.__class__.__new__(module.__class__)
    copied.__dict__.update(module.__dict__)
    for kept in ("_parameters", "_buffers", "_modules"):
        copied.__dict__[kept] = dict(module.__dict__[kept])
    return copied
