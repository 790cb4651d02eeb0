"""Hold on to the memory that tensors on a CPU free, as torch does on a GPU.

Every step of a run takes and frees the same gigabytes. The C library returns what is large to the system, which
clears each page before it hands it out again: on large pictures that takes as long as the arithmetic.
"""

import ctypes
import sys

# Options of glibc's malloc.h: never take pieces from the system one by one, and never return what is free.
_MMAP_MAX, _TRIM_THRESHOLD = (-4, 0), (-1, -1)


def hold() -> bool:
    """From now on the process returns no freed memory to the system. Returns whether it could be arranged.

    Meant for the beginning of a program that repeats its steps on a CPU: they are faster, and take up to 1.5 times the
    memory, since what is freed does not always fit what comes next. It is glibc's allocator that is told, for the
    main thread; elsewhere nothing happens.
    """
    libc = _glibc()
    return libc is not None and all(libc.mallopt(*option) for option in (_MMAP_MAX, _TRIM_THRESHOLD))


def release() -> None:
    """Return what is free to the system, so that it counts as such; what is used next is held on to again."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None  # musl has neither
