"""Keep the memory that tensors free on a CPU for the next tensors, as torch does on a GPU.

Every step of a run takes and frees the same gigabytes. The C library returns what is large to the system, which
clears each page before it hands it out again: on large pictures that takes longer than the arithmetic. Inside `kept`
the C library returns nothing. It is glibc alone that is told, and nobody who has told it something else already.
"""

import ctypes
import os
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from functools import lru_cache

# What a run takes at most where its memory is kept, over what it takes else: what is freed rarely fits what comes next.
# tests/transfer/test_memory.py measures it.
GROWTH = 1.5

# Options of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_KEEP = {_MMAP_MAX: 0, _TRIM_THRESHOLD: -1}
# What glibc arrives at by itself, once a program has freed a block of 32 MiB.
_USUAL = {_MMAP_MAX: 65536, _MMAP_THRESHOLD: 2**25, _TRIM_THRESHOLD: 2**26}

_lock = threading.Lock()
_inside = 0


@contextmanager
def kept() -> Generator[None]:
    """Inside, freed memory stays with the process; at the end what is free goes back to the system."""
    global _inside  # noqa: PLW0603 (there is one C library)
    with _lock:
        _inside += 1
        if _inside == 1:
            _tell(_KEEP)
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                _tell(_USUAL)
        release()


def release() -> None:
    """Return what is free to the system: other sizes come, which would not fit into it."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def _tell(options: dict[int, int]) -> None:
    libc = _glibc()
    if libc is not None:
        for option, value in options.items():
            libc.mallopt(option, value)


def possible() -> bool:
    """Whether `kept` does anything here."""
    return _glibc() is not None


@lru_cache
def _glibc() -> ctypes.CDLL | None:
    """The C library, where it is glibc and its user has not set its options."""
    if sys.platform != "linux" or any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None
