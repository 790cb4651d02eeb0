"""The error of a dump's folder, and the conversion of system errors to it."""

import errno
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from vggfeat import files
from vggfeat.dumps.sources import printable
from vggfeat.errors import VggfeatError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class StoreError(VggfeatError):
    """A dump that cannot be read or written, is incomplete, or is damaged."""


@contextmanager
def store_errors(folder: Path) -> Generator[None]:
    """Convert OSError to StoreError. `folder` is the dump that the block writes to."""
    try:
        yield
    except OSError as error:
        reason = files.reason(error)
        if error.errno in _FULL:
            raise StoreError(
                f"cannot write into '{printable(folder)}': {reason}; what is written is intact, "
                "and the same command continues once there is room"
            ) from error
        path = printable(str(error.filename or folder))
        raise StoreError(f"cannot write into '{printable(folder)}': '{path}': {reason}") from error
