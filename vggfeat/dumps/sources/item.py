"""A picture of a source, and how its place is written."""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath

from vggfeat import files
from vggfeat.errors import InputError

PathLike = str | os.PathLike[str]

# The manifest's own columns, and what exports call run.json.
RESERVED = frozenset({"id", "path", "sha256", "size", "status", "error", "shard", "offset", "height", "width", "run"})


@dataclass(frozen=True, slots=True)
class Item:
    """A picture to read: a file, or what `member` names in the file `path`.

    In a tar or zip file, a member begins at `offset` and has `length` bytes. In a table or an array, it is the number
    of a row, after the name of the column or array if there is one: `image/12`. `error` is the reason if it is already
    known that the picture cannot be read. `columns` are further columns of the source, (name, text).
    """

    id: str
    path: str
    member: str = ""
    offset: int = 0
    length: int = 0
    error: str = ""
    columns: tuple[tuple[str, str], ...] = ()

    @property
    def place(self) -> str:
        """The path to show: `photos/one.jpg`, `train.tar/000001.jpg`, `train.parquet/image/12`."""
        return printable(f"{self.path}/{self.member}" if self.member else self.path)


def fingerprint(items: Iterable[Item]) -> str:
    """A sha256 of the ids, places and columns of `items`, in order."""
    digest = hashlib.sha256()
    for item in items:
        known: list[object] = [item.id, item.path, item.member, item.offset, item.length]
        if item.error or item.columns:
            known.append(item.error)
        if item.columns:
            known.append(sorted(item.columns))
        digest.update(json.dumps(known).encode() + b"\n")
    return digest.hexdigest()


def printable(path: PurePath | str) -> str:
    r"""A path as text that can be stored: bytes that are not UTF-8 are escaped, such as `\xe9`."""
    text = path if isinstance(path, str) else path.as_posix()
    try:
        return os.fsencode(text).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half a surrogate pair, as JSON can hold
        return text.encode("utf-8", "backslashreplace").decode()


def columns_of(values: Mapping[str, object]) -> tuple[tuple[str, str], ...]:
    """Further columns of a source as text, without empty ones.

    A name that the manifest uses itself gets the prefix `source_`.

    >>> columns_of({"label": 3, "width": 640, "caption": None})
    (('label', '3'), ('source_width', '640'))
    """
    found: dict[str, str] = {}
    for name, value in values.items():
        text = "" if value is None else printable(str(value))
        if text and name:
            found[f"source_{name}" if name in RESERVED else printable(name)] = text
    return tuple(found.items())


def is_scalar(value: object) -> bool:
    """Whether a value can be a column: a text, a number, a date; not a list, a mapping or bytes."""
    return not isinstance(value, list | dict | tuple | bytes)


def unreadable(path: PurePath | str, error: Exception) -> InputError:
    """The error for a source that cannot be read, in one line."""
    reason = files.reason(error) if isinstance(error, OSError) else str(error).lower()
    return InputError(f"cannot read '{printable(path)}': {' '.join(reason.split())}")


def real_path(text: str) -> str:
    """The path that `printable` converted to `text`."""
    if os.path.lexists(text) or "\\x" not in text:
        return text
    return os.fsdecode(re.sub(rb"\\x([0-9a-f]{2})", lambda found: bytes.fromhex(found[1].decode()), text.encode()))


def url_item(name: str, path: Path, identity: str = "", columns: tuple[tuple[str, str], ...] = ()) -> Item | None:
    """The item, with an error, of a URL in the list at `path`; None if `name` is a path."""
    if not is_url(name):
        return None
    error = f"'{printable(name)}' is a URL: download it, and list the file"
    return Item(identity or printable(name), str(path), error=error, columns=columns)


def is_url(name: str) -> bool:
    """Whether a name is a URL. As a path it would lose a slash.

    >>> is_url("https://example.org/a.png"), is_url("photos/a.png")
    (True, False)
    """
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", name) is not None


def joined(folder: Path, name: str) -> str:
    """`name` as a path that starts at `folder`, not normalised: after a link, `..` is not what the text suggests."""
    return os.path.join(folder, name)  # noqa: PTH118 (Path would normalise it)
