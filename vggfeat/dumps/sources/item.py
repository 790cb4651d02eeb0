"""A picture of a source, and how its place is written."""

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath

from vggfeat import files
from vggfeat.errors import InputError

PathLike = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class Item:
    """A picture to read: a file, or a member of a tar file that begins at `offset` and has `length` bytes.

    `error` is the reason if it is already known that the picture cannot be read.
    """

    id: str
    path: str
    member: str = ""
    offset: int = 0
    length: int = 0
    error: str = ""

    @property
    def place(self) -> str:
        """The path to show: `photos/one.jpg`, `train.tar/000001.jpg`."""
        return printable(f"{self.path}/{self.member}" if self.member else self.path)


def fingerprint(items: Iterable[Item]) -> str:
    """A sha256 of the ids and places of `items`, in order."""
    digest = hashlib.sha256()
    for item in items:
        known = [item.id, item.path, item.member, item.offset, item.length]
        digest.update(json.dumps([*known, item.error] if item.error else known).encode() + b"\n")
    return digest.hexdigest()


def printable(path: PurePath | str) -> str:
    r"""A path as text that can be stored: bytes that are not UTF-8 are escaped, such as `\xe9`."""
    text = path if isinstance(path, str) else path.as_posix()
    return os.fsencode(text).decode("utf-8", "backslashreplace")


def unreadable(path: Path, error: Exception) -> InputError:
    """The error for a source that cannot be read, in one line."""
    reason = files.reason(error) if isinstance(error, OSError) else str(error).lower()
    return InputError(f"cannot read '{printable(path)}': {' '.join(reason.split())}")
