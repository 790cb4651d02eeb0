"""Devices and precisions by the names that users give them, and the test for running out of memory."""

from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from typing import Literal

import torch

from vggfeat.errors import InputError, one_of
from vggfeat.features import algorithms

Precision = Literal["float32", "bfloat16", "float16", "auto"]
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve_precision(precision: Precision, device: torch.device) -> torch.dtype:
    """The dtype that `precision` means on `device`.

    `auto` is bfloat16 where that is faster: on CUDA from Ampere on, and on CPUs with AMX or AVX512-BF16; float32
    elsewhere.
    """
    one_of("precision", precision, (*_DTYPES, "auto"))
    if precision != "auto":
        return _DTYPES[precision]
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    elif device.type == "cpu":
        fast = algorithms.bfloat16_is_faster()
    else:
        fast = False
    return torch.bfloat16 if fast else torch.float32


def choose_device(name: str | torch.device | None) -> torch.device:
    """The torch device called `name`: None is torch's default, `auto` CUDA, else MPS, else the CPU.

    Raises `InputError` for a device that does not exist here.
    """
    if name is None:
        return torch.get_default_device()
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"unknown device '{name}': pass auto, cpu, cuda, cuda:1 or mps") from None
    if device.type in ("cpu", "meta"):
        return device
    count = torch.accelerator.device_count()
    present = torch.accelerator.current_accelerator() if count else None
    if present is None or present.type != device.type or (device.index or 0) >= count:
        here = f"{count} of type {present.type}" if present else "none but the CPU"
        raise InputError(f"there is no device '{name}' here: torch sees {here}")
    return device


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that memory ran out, on the CPU or on a GPU.

    >>> is_out_of_memory(MemoryError()), is_out_of_memory(RuntimeError("sizes do not match"))
    (True, False)
    """
    # On the CPU, torch's allocator raises a plain RuntimeError.
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


@contextmanager
def deterministic(device: torch.device) -> Generator[None]:
    """Make cuDNN choose algorithms that give the same result each time; on other devices nothing changes."""
    allow_tf32 = torch.backends.cudnn.allow_tf32
    flags = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=allow_tf32)
    with flags if device.type == "cuda" else nullcontext():
        yield
