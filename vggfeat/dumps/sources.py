"""Finds the pictures of a dump's sources: pictures, folders, lists of paths and tar files."""

import csv
import hashlib
import json
import os
import posixpath
import re
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import IO, Any, cast

from vggfeat import files
from vggfeat.errors import InputError, near

PathLike = str | os.PathLike[str]

_COMPRESSED = (
    ".tgz",
    ".tbz",
    ".tbz2",
    ".txz",
    ".tzst",
    *(f".tar.{word}" for word in ("gz", "bz2", "xz", "zst", "lz4")),
)

_LISTS = (".txt", ".lst", ".csv", ".tsv", ".parquet")


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


def find(sources: PathLike | Sequence[PathLike]) -> tuple[Item, ...]:
    """The pictures of one source or several, in order.

    A source is one of:

    - a picture;
    - a folder: its sub-folders are read too, in path order; names that begin with a dot are skipped;
    - a list of paths, one a line (`.txt`, `.lst`), or a table with a column `path` and optionally `id` (`.csv`,
      `.tsv`, `.parquet`). Relative paths start at the list's folder. The files need not exist yet;
    - a `.tar` file, as webdataset uses them. Its members are read in place.

    What cannot be listed becomes an item with an error: a link to a folder, which is not followed; a sub-folder that
    cannot be read; the rest of a tar file that is damaged or truncated.

    An id is a picture's path within its source, a tar member's key, or the value of the column `id`. With several
    sources it begins with the name of its source. A path that occurs twice gives two items, the second with `#2` after
    its id; a column `id` with duplicates is refused. Raises `InputError` if a source is missing, unreadable or holds no
    picture.
    """
    given = [sources] if isinstance(sources, str | os.PathLike) else list(sources)
    if not given:
        raise InputError("there is no source: name pictures, a folder, a list of paths or a tar file")
    items: list[Item] = []
    for source in given:
        if not os.fspath(source):
            raise InputError("a source is empty: name a picture, a folder ('.' is this one), a list or a tar file")
        path = Path(source)
        found = list(_items_of(path))
        if len(given) > 1 and not _is_picture(path):
            found = [replace(item, id=f"{printable(path)}/{item.id}") for item in found]
        items += (replace(item, path=_absolute(item.path)) for item in found)
    return tuple(_numbered(items))


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


class Places:
    """Finds the items of manifest entries. Lists each tar file only once.

    `paths`: {id: path} of all entries, in order. The order tells members of a tar file with the same name apart.
    """

    def __init__(self, paths: Mapping[str, str]) -> None:
        self._paths = paths
        self._tars: dict[str, tuple[Item, ...]] = {}
        count: Counter[str] = Counter()
        self._occurrences: dict[str, int] = {}
        for name, place in paths.items():
            self._occurrences[name] = count[place]
            count[place] += 1

    def item(self, name: str) -> Item:
        """The item of the entry with the id `name`. Raises `InputError` if its tar file no longer holds it."""
        place = self._paths[name]
        for slash in (found.start() for found in re.finditer("/", place)):
            if not place[:slash].lower().endswith(".tar"):
                continue
            path = _real(place[:slash])
            if not os.path.isfile(path):  # noqa: PTH113 (Path would normalise the path)
                continue
            if path not in self._tars:
                self._tars[path] = tuple(_tar(Path(path)))
            member = place[slash + 1 :]
            named = [item for item in self._tars[path] if item.member and printable(item.member) == member]
            if self._occurrences[name] >= len(named):
                raise InputError(f"'{place[:slash]}' no longer holds '{member}'")
            return named[self._occurrences[name]]
        return Item(place, _real(place))


def _real(text: str) -> str:
    """The path that `printable` converted to `text`."""
    if os.path.lexists(text) or "\\x" not in text:
        return text
    return os.fsdecode(re.sub(rb"\\x([0-9a-f]{2})", lambda found: bytes.fromhex(found[1].decode()), text.encode()))


def _absolute(path: str) -> str:
    """`path` as an absolute path. `..` is kept: after a symbolic link it is not the folder that the text suggests."""
    if ".." in PurePath(path).parts:
        return os.path.join(Path.cwd(), path)  # noqa: PTH118 (Path would normalise it)
    return os.path.abspath(path)  # noqa: PTH100 (keeps links)


def _is_picture(path: Path) -> bool:
    return not path.is_dir() and path.suffix.lower() not in (*_LISTS, ".tar")


def _items_of(path: Path) -> Iterator[Item]:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise InputError(f"no such source '{printable(path)}'{_near(path)}") from None
    except OSError as error:
        raise _unreadable(path, error) from error
    if path.is_dir():
        return _folder(path)
    if path.name.lower().endswith(_COMPRESSED):
        raise InputError(f"'{printable(path)}' is a compressed tar file: unpack it, to .tar or to a folder")
    match path.suffix.lower():
        case ".tar":
            return _tar(path)
        case ".parquet":
            return _table(path, _parquet(path))
        case ".csv" | ".tsv":
            return _table(path, _csv(path))
        case ".txt" | ".lst":
            return _lines(path)
        case _:
            return iter([Item(printable(path), str(path))])


def _near(path: Path) -> str:
    try:
        names = sorted(other.name for other in path.parent.iterdir())[:2000]
    except OSError:
        return ""
    hint = near(path.name, names)
    return f"; {printable(hint)}" if hint.startswith("near") else ""


def _folder(folder: Path) -> Iterator[Item]:
    found: dict[PurePath, str] = {}

    def unreadable(error: OSError) -> None:
        reason = files.reason(error)
        if (within := Path(error.filename).relative_to(folder)) == Path():
            raise InputError(f"cannot read the folder '{printable(folder)}': {reason}")
        found[within] = f"cannot read the folder '{printable(str(error.filename))}': {reason}"

    for parent, folders, plain in os.walk(folder, onerror=unreadable):
        # List a folder called x.jpg too, so that its manifest entry says that it is a folder.
        folders[:] = [name for name in folders if not name.startswith(".")]
        within = Path(parent).relative_to(folder)
        found |= {within / name: "" for name in (*plain, *folders) if files.is_picture(name)}
        links = [name for name in folders if (Path(parent) / name).is_symlink()]
        found |= {within / name: _LINK for name in links}
    if not found:
        raise InputError(f"the folder '{printable(folder)}' holds no picture")
    return (Item(printable(name), str(folder / name), error=found[name]) for name in sorted(found))


_LINK = "it is a link to a folder, which is not followed: name the folder as a source of its own"


def _lines(path: Path) -> Iterator[Item]:
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise _unreadable(path, error) from error
    names = [os.fsdecode(line.removeprefix(b"\xef\xbb\xbf")).strip() for line in lines]
    return _listed(path, [(name, "") for name in names if name])


def _csv(path: Path) -> list[dict[str, Any]]:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            return list(csv.DictReader(file, delimiter=delimiter))
    except (OSError, csv.Error) as error:
        raise _unreadable(path, error) from error


def _parquet(path: Path) -> list[dict[str, Any]]:
    parquet: Any = import_parquet(f"reading '{printable(path)}'")
    try:
        names: list[str] = parquet.read_schema(path).names
        table = parquet.read_table(path, columns=[name for name in ("path", "id") if name in names])
        return cast("list[dict[str, Any]]", table.to_pylist())
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def import_parquet(what: str) -> Any:
    """The parquet module of pyarrow. Raises `InputError` with the command to install it if it is missing."""
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise InputError(f'{what} needs pyarrow: pip install "vggfeat[parquet]"') from error
    return cast("Any", parquet)


def _unreadable(path: Path, error: Exception) -> InputError:
    reason = files.reason(error) if isinstance(error, OSError) else str(error).lower()
    return InputError(f"cannot read '{printable(path)}': {' '.join(reason.split())}")


def _table(path: Path, rows: list[dict[str, Any]]) -> Iterator[Item]:
    if rows and "path" not in rows[0]:
        columns = ", ".join(str(name) for name in rows[0])
        raise InputError(f"'{printable(path)}' has no column 'path': it has {columns}")
    ids = [str(row["id"]) for row in rows if row.get("id") not in (None, "")]
    if ids and len(ids) < len(rows):
        raise InputError(f"'{printable(path)}' has an id in {len(ids)} of {len(rows)} rows: give all, or none")
    if twice := [name for name, count in Counter(ids).items() if count > 1]:
        raise InputError(f"'{printable(path)}' has the id '{printable(twice[0])}' more than once")
    return _listed(path, [(str(row["path"] or ""), str(row.get("id") or "")) for row in rows])


def _listed(path: Path, names: list[tuple[str, str]]) -> Iterator[Item]:
    if not names:
        raise InputError(f"'{printable(path)}' lists no picture")
    return (Item(printable(identity or name), os.path.join(path.parent, name)) for name, identity in names)  # noqa: PTH118 (Path would normalise it)


def _tar(path: Path) -> Iterator[Item]:
    """The pictures of a tar file. A member's key ends at the first dot of its name, as in webdataset.

    If the file is damaged, the last item has an error that says so.
    """
    found, damage = _members(path)
    members = [member for member in found if _ending(member.name) in files.picture_endings()]
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
        raise _unreadable(path, error) from error
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


_MOST_LINKS = 8


def _ending(name: str) -> str:
    return PurePath(name).suffix.lower()


def _key(name: str) -> str:
    folder, slash, file = name.rpartition("/")
    return folder + slash + file.partition(".")[0]


def _numbered(items: Iterable[Item]) -> Iterator[Item]:
    """Make ids unique: append `#2`, `#3` to repeated ones."""
    seen: Counter[str] = Counter()
    taken: set[str] = set()
    for item in items:
        seen[item.id] += 1
        identity = item.id
        while identity in taken:
            identity = f"{item.id}#{seen[item.id]}"
            seen[item.id] += identity in taken
        taken.add(identity)
        yield item if identity == item.id else replace(item, id=identity)
