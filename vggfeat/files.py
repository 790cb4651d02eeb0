"""Write files so that they appear whole or not at all, and say in one line what the system refused."""

import os
import secrets
import shutil
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = ".vggfeat-"
"""What the name of an unfinished file begins with."""


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Generator[Path]:
    """Yield the path of a temporary file to write; at the end, sync it to disk and give it the name `path`.

    The temporary file lies beside the target and has the ending of `path`. If the block raises, it is removed and
    `path` stays as it was. A symbolic link stays; the file that it points to is replaced, and its mode kept.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f"{PREFIX}{secrets.token_hex(8)}{Path(path).suffix.lower()}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        if target.exists():
            shutil.copymode(target, temporary)
        temporary.replace(target)
        with suppress(OSError):  # the file is there; a folder that cannot be opened cannot be synced
            sync_folder(target.parent)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Write bytes, or text as UTF-8 with its line ends as they are: whole or not at all."""
    data = content.encode() if isinstance(content, str) else content
    with replacing(path) as unfinished:
        unfinished.write_bytes(data)


def sync_folder(path: Path) -> None:
    """Wait until the disk has the names in a folder, where the system can."""
    if os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def reason(error: OSError) -> str:
    """What the system says of an error, for the end of a line: `no such file or directory`."""
    return (error.strerror or str(error)).lower()
