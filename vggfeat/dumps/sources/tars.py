"""Tar files, as webdataset uses them."""

import posixpath
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import IO

from vggfeat import files
from vggfeat.dumps.sources.item import Item, printable, unreadable
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


def tar_items(path: Path) -> Iterator[Item]:
    """The pictures of a tar file. A member's key ends at the first dot of its name, as in webdataset.

    If the file is damaged, the last item has an error that says so.
    """
    found, damage = _members(path)
    members = [member for member in found if ending(member.name) in files.picture_endings()]
    if not members and not damage:
        raise InputError(f"'{printable(path)}' holds no picture")
    count = Counter(_key(member.name) for member in members)
    named = {posixpath.normpath(member.name): member for member in found}
    for member in members:
        key = _key(member.name)
        identity = printable(key if count[key] == 1 else member.name)
        target = _target(member, named)
        if isinstance(target, str):
            yield Item(identity, str(path), member.name, error=target)
        else:
            yield Item(identity, str(path), member.name, target.offset_data, target.size)
    if damage:
        yield Item(printable(path.name), str(path), error=damage)


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
    """What is wrong with the end of a tar file, which should be a block of zeros with only zeros after it."""
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
    return f"the tar file is damaged, or several put together: what comes after its first {count} files is lost"


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
        return "the tar file holds it with its zeros left out (sparse): pack it without"
    return member if member.isreg() else "not a regular file"


def ending(name: str) -> str:
    """The ending of a member's name, in lower case."""
    return PurePath(name).suffix.lower()


def _key(name: str) -> str:
    folder, slash, file = name.rpartition("/")
    return folder + slash + file.partition(".")[0]
