"""Tar files, as webdataset uses them."""

import json
import posixpath
import tarfile
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import IO, cast

from vggfeat import files
from vggfeat.dumps.sources.filtering import SourceFilter
from vggfeat.dumps.sources.item import Item, columns_of, is_scalar, printable, unreadable
from vggfeat.errors import InputError

COMPRESSED = (
    ".tgz",
    ".tbz",
    ".tbz2",
    ".txz",
    ".tzst",
    *(f".tar.{word}" for word in ("gz", "bz2", "xz", "zst", "lz4")),
)

_MOST_LINKS = 8

_COLUMNS = frozenset({"cls", "txt", "caption", "label", "index", "json"})

_LONGEST_COLUMN = 2**16


class TarSource:
    """The pictures of a tar file, read in place. A member's key ends at the first dot of its name, as in webdataset.

    Members with the same key and the ending `cls`, `txt`, `caption`, `label`, `index` or `json` become columns; of
    `json`, the texts and numbers of its object.
    """

    def __init__(self, path: Path, selection: SourceFilter) -> None:
        self._path = path
        self._selection = selection

    def items(self) -> Iterator[Item]:
        """The pictures. If the file is damaged, the last item has an error that says so.

        Raises `InputError` if it is not a tar file, or holds no picture.
        """
        path = self._path
        found, damage = _members(path)
        beside = [member for member in found if member.isreg() and _is_column(member.name)]
        others = {id(member) for member in beside}
        members = [
            member
            for member in found
            if id(member) not in others
            and not (member.isdir() and ending(member.name) not in files.picture_endings())
            and self._selection.takes(member.name)
        ]
        if not members and not damage:
            raise InputError(self._selection.nothing(f"'{printable(path)}'"))
        count = Counter(_key(member.name) for member in members)
        named = {posixpath.normpath(member.name): member for member in found}
        columns = _columns(path, beside, count)
        for member in members:
            key = _key(member.name)
            identity = printable(key if count[key] == 1 else member.name)
            target, further = _target(member, named), columns_of(columns.get(key, {}))
            if isinstance(target, str):
                yield Item(identity, str(path), member.name, error=target, columns=further)
            else:
                yield Item(identity, str(path), member.name, target.offset_data, target.size, columns=further)
        if damage:
            yield Item(printable(path.name), str(path), error=damage)


def _is_column(name: str) -> bool:
    last = name.rpartition("/")[2]
    return not last.startswith(".") and last.partition(".")[2].lower() in _COLUMNS


def _columns(path: Path, members: Iterable[tarfile.TarInfo], wanted: Container[str]) -> dict[str, dict[str, object]]:
    """{key: {column: value}} of the small files beside pictures."""
    found: dict[str, dict[str, object]] = {}
    try:
        with path.open("rb") as file:
            for member in members:
                key, name = _key(member.name), member.name.rpartition(".")[2].lower()
                if key not in wanted or member.size > _LONGEST_COLUMN:
                    continue
                file.seek(member.offset_data)
                text = file.read(member.size).decode("utf-8", "backslashreplace").strip()
                found.setdefault(key, {}).update(_fields(text) if name == "json" else {name: text})
    except OSError as error:
        raise unreadable(path, error) from error
    return found


def _fields(text: str) -> dict[str, object]:
    try:
        content: object = json.loads(text)
    except (ValueError, RecursionError):
        return {"json": text}
    if not isinstance(content, dict):
        return {"json": text}
    return {str(name): value for name, value in cast("dict[str, object]", content).items() if is_scalar(value)}


def _members(path: Path) -> tuple[list[tarfile.TarInfo], str]:
    """The members of a tar file that can be listed, and the reason if others are lost."""
    members: list[tarfile.TarInfo] = []
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
            try:
                for member in archive:
                    members.append(member)  # noqa: PERF402 (keeps those before an error)
            except tarfile.TarError:
                return members, _lost(len(members))
            return members, _after(file, archive.offset, len(members))
    except OSError as error:
        raise unreadable(path, error) from error
    except tarfile.TarError as error:
        hint = "a compressed one must be unpacked first"
        raise InputError(f"cannot read '{printable(path)}': it is not a plain tar file ({hint})") from error


def _after(file: IO[bytes], offset: int, count: int) -> str:
    """The error in the end of a tar file, which should be a block of zeros with only zeros after it; empty if none."""
    file.seek(offset)
    block = file.read(tarfile.BLOCKSIZE)
    if not block:
        return f"the tar file has no mark of its end: it may be cut off, after its first {count} files"
    while block:
        if block.strip(b"\0"):
            return _lost(count)
        block = file.read(2**20)
    return ""


def _lost(count: int) -> str:
    return f"the tar file is damaged, or several were joined: the files after its first {count} are lost"


def _target(member: tarfile.TarInfo, named: Mapping[str, tarfile.TarInfo]) -> tarfile.TarInfo | str:
    """Follow links from a member to the one that holds its bytes, or return why there is none."""
    for _ in range(_MOST_LINKS):
        if not (member.islnk() or member.issym()):
            break
        folder = posixpath.dirname(member.name) if member.issym() else ""
        link = posixpath.normpath(posixpath.join(folder, member.linkname))
        if link not in named or named[link] is member:
            return f"it is a link to '{printable(link)}', which the tar file does not hold"
        member = named[link]
    if member.issparse():
        return "the tar file holds it as a sparse file, which is not supported: pack it without --sparse"
    return member if member.isreg() else "not a regular file"


def ending(name: str) -> str:
    """The ending of a member's name, in lower case."""
    return PurePath(name).suffix.lower()


def _key(name: str) -> str:
    folder, slash, file = name.rpartition("/")
    return folder + slash + (file.partition(".")[0] or file)
