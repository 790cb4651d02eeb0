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
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):  # musl
        return False
    return all(libc.mallopt(*option) for option in (_MMAP_MAX, _TRIM_THRESHOLD))
