"""A lock on a dump's folder, so that two runs never write to it at once."""

import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from vggfeat.dumps.errors import StoreError, store_errors
from vggfeat.dumps.sources import printable

try:
    import fcntl
except ImportError:  # Windows has no flock
    fcntl = None

LOCK = ".lock"


@contextmanager
def locked(folder: Path) -> Generator[None]:
    """Hold the lock of `folder`. The system releases the lock of a killed run.

    Raises `StoreError` if another run holds it, or if the lock file cannot be written.
    """
    path = folder / LOCK
    handle = _acquire(path)
    try:
        os.truncate(handle, 0)
        os.write(handle, f"{os.getpid()}\n".encode())
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        os.close(handle)


def _acquire(path: Path) -> int:
    while True:
        with store_errors(path.parent):
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        if fcntl is None:
            return handle
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.read(handle, 32).decode("ascii", "replace").strip()
            os.close(handle)
            who = f" (process {owner})" if owner else ""
            raise StoreError(f"another run{who} is writing into '{printable(path.parent)}'") from error
        # A run that ended between the two calls has deleted the file that this lock is on.
        with suppress(FileNotFoundError):
            if os.fstat(handle).st_ino == path.stat().st_ino:
                return handle
        os.close(handle)
