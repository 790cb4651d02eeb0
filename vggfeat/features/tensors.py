"""Helpers for tensors: precision, autocast, and typed access to values."""

import hashlib
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor


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
