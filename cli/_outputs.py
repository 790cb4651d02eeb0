"""How commands write files: checked before long work, then whole or not at all."""

import itertools
import os
from collections.abc import Collection, Iterable
from pathlib import Path

import click

from vggfeat import files

# A chain of symbolic links that is longer leads nowhere, to Linux too.
_MOST_LINKS = 40


def check_spares(path: Path, inputs: Iterable[str | Path]) -> None:
    """Refuse to write over a picture that was read."""
    if any(path.exists() and Path(name).exists() and path.samefile(name) for name in inputs):
        raise click.UsageError(f"the output '{path}' is one of the inputs")


def unused(path: Path) -> Path:
    """`path`, or with a number at its end where it exists: a name nobody chose overwrites nothing."""
    candidates = (path.with_stem(f"{path.stem}-{number}") for number in itertools.count(2))
    return path if not path.exists() else next(other for other in candidates if not other.exists())


def check_text_file(path: Path, rooms: Collection[str] = ()) -> None:
    """Refuse a file that `write_text_file` could not write. `rooms`: real paths of folders that will be made."""
    reason = None
    target = Path(os.path.realpath(path))
    if target.is_dir() or str(target) in rooms:
        reason = "it is a folder"
    elif target.is_symlink() or (target.exists() and not target.is_file()) or _is_stream(path):
        reason = "it is not a regular file (- prints)"
    elif not target.parent.is_dir():
        reason = None if str(target.parent) in rooms else f"no such folder '{target.parent}'"
    elif not os.access(target.parent, os.W_OK | os.X_OK) or (target.exists() and not os.access(target, os.W_OK)):
        reason = "permission denied"
    if reason:
        raise click.UsageError(f"cannot write '{path}': {reason}")


def _is_stream(path: Path) -> bool:
    """Whether a name such as `/dev/stdout` or `/dev/fd/3` stands for what is open already."""
    for _ in range(_MOST_LINKS):
        folder = os.path.realpath(path.parent)
        if folder in ("/dev", "/dev/fd") or folder.startswith("/proc/"):
            return True
        if not path.is_symlink():
            return False
        path = Path(folder, path.readlink())
    return True


def write_text_file(path: Path, text: str) -> None:
    """Write `text` beside its place, then rename; a symbolic link stays, and what it points to is replaced."""
    try:
        files.write(path, text)
    except OSError as error:
        raise click.ClickException(f"cannot write '{path}': {files.reason(error)}") from error
