"""Zip files of pictures."""

import stat
import zipfile
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from vggfeat.dumps.sources.filtering import SourceFilter
from vggfeat.dumps.sources.item import Item, printable, unreadable
from vggfeat.errors import ImageError, InputError

_ENCRYPTED = 1


class ZipSource:
    """The pictures of a zip file, in its order. They are read in place. An id is a member's path."""

    def __init__(self, path: Path, selection: SourceFilter) -> None:
        self._path = path
        self._selection = selection

    def items(self) -> Iterator[Item]:
        """The pictures. Raises `InputError` if the file cannot be read, or holds none."""
        try:
            with zipfile.ZipFile(self._path) as archive:
                members = archive.infolist()
        except OSError as error:
            raise unreadable(self._path, error) from error
        except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
            raise InputError(f"cannot read '{printable(self._path)}': it is not a zip file, or is damaged") from error
        chosen = [member for member in members if not member.is_dir() and self._selection.takes(member.filename)]
        if not chosen:
            raise InputError(self._selection.nothing(f"'{printable(self._path)}'"))
        for member in chosen:
            name, size = member.filename, member.file_size
            yield Item(printable(name), str(self._path), name, member.header_offset, size, _error(member))


def _error(member: zipfile.ZipInfo) -> str:
    if member.flag_bits & _ENCRYPTED:
        return "it is encrypted"
    return "it is a link, which is not followed" if stat.S_ISLNK(member.external_attr >> 16) else ""


def read_zip_member(path: str, offset: int, stamp: tuple[int, int]) -> bytes:
    """The bytes of the member whose header is at `offset`. `stamp` tells versions of the file apart.

    Raises `ImageError` or OSError.
    """
    try:
        archive, members = _opened(path, stamp)
        if offset not in members:
            raise ImageError("the zip file has changed")
        return archive.read(members[offset])
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, ValueError) as error:
        raise ImageError(f"the zip file is damaged or of an unknown kind ({str(error).lower()})") from error


@lru_cache(maxsize=2)
def _opened(path: str, _stamp: tuple[int, int]) -> tuple[zipfile.ZipFile, dict[int, zipfile.ZipInfo]]:
    archive = zipfile.ZipFile(path)
    return archive, {member.header_offset: member for member in archive.infolist()}
