"""Small helpers on tensors: precision, autocast, and typed access to values."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor


def without_autocast(device_type: str) -> AbstractContextManager[object]:
    """A context in which an autocast around it has no say: what is computed keeps the precision that it states."""
    if device_type != "meta" and torch.is_autocast_enabled(device_type):  # which knows no autocast
        return torch.autocast(device_type, enabled=False)
    return nullcontext()


def values(x: Tensor) -> list[Any]:
    """The numbers of a tensor, as lists in lists."""
    return cast("list[Any]", x.tolist())  # pyright: ignore[reportUnknownMemberType] (untyped upstream)


def at_least_float32(x: Tensor) -> Tensor:
    """`x` as it is in float32 and float64, and as float32 in half precision: what statistics are formed of."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
