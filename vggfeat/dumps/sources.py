"""What a dump reads: pictures, folders, lists of paths and tar files become one ordered tuple of items."""

import csv
import hashlib
import json
import os
import re
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any, cast

from vggfeat.errors import InputError, near

PathLike = str | os.PathLike[str]

_LISTS = (".txt", ".lst", ".csv", ".tsv", ".parquet")


@dataclass(frozen=True, slots=True)
class Item:
    """A picture to be read: a file, or the member of a tar file that begins at `offset` and has `length` bytes."""

    id: str
    path: str
    member: str = ""
    offset: int = 0
    length: int = 0

    @property
    def place(self) -> str:
        """Where the picture is, for people: `photos/one.jpg`, `train.tar/000001.jpg`."""
        return printable(f"{self.path}/{self.member}" if self.member else self.path)


def find(sources: PathLike | Sequence[PathLike]) -> tuple[Item, ...]:
    """The pictures of one source or several, in order.

    A source is a picture; a folder, of which sub-folders are read too, in the order of their paths; a list of
    paths, one a line (`.txt`, `.lst`) or a table with a column `path` and perhaps `id` (`.csv`, `.tsv`, `.parquet`),
    taken from the list's folder where they are relative; or a `.tar` in webdataset's manner, whose members are read
    where they are.

    An id is a picture's path within its source, a tar member's key, or what the column `id` says. With several
    sources it begins with its source's name. A path that comes twice keeps both rows, the second with `#2` behind its
    id; an `id` that comes twice is refused. What a list names need not exist: that is found out, and told, when it is
    read. Raises `InputError` for a source that is missing, unreadable or holds no picture.
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
        items += (replace(item, path=os.path.abspath(item.path)) for item in found)  # noqa: PTH100 (links stay)
    return tuple(_numbered(items))


def fingerprint(items: Iterable[Item]) -> str:
    """A sha256 of the ids and places of `items`, in their order."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(json.dumps([item.id, item.path, item.member, item.offset, item.length]).encode() + b"\n")
    return digest.hexdigest()


def printable(path: PurePath | str) -> str:
    r"""A path as text that can be stored: bytes that are not UTF-8 stand as `\xe9` does."""
    text = path if isinstance(path, str) else path.as_posix()
    return os.fsencode(text).decode("utf-8", "backslashreplace")


def locate(place: str) -> Item:
    """The item that a manifest calls `place`. Raises `InputError` where a tar file no longer has it."""
    path = Path(place)
    if not os.path.lexists(path) and "\\x" in place:
        path = Path(
            os.fsdecode(re.sub(rb"\\x([0-9a-f]{2})", lambda found: bytes.fromhex(found[1].decode()), place.encode()))
        )
    for parent in path.parents:
        if parent.suffix.lower() == ".tar" and parent.is_file():
            for item in _tar(parent):
                if item.place == printable(path):
                    return item
            raise InputError(f"'{printable(parent)}' no longer holds '{printable(path.relative_to(parent))}'")
    return Item(place, str(path))


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
    endings = _endings()
    found: list[PurePath] = []
    for parent, folders, files in os.walk(folder, onerror=_refuse_folder):
        # A folder called x.jpg is listed too: somebody took it for a picture, and its row will say what it is.
        folders[:] = [name for name in folders if not name.startswith(".")]
        within = Path(parent).relative_to(folder)
        names = [name for name in (*files, *folders) if not name.startswith(".")]
        found += [within / name for name in names if PurePath(name).suffix.lower() in endings]
    if not found:
        raise InputError(f"the folder '{printable(folder)}' holds no picture")
    return (Item(printable(name), str(folder / name)) for name in sorted(found))


def _endings() -> set[str]:
    from PIL import Image

    return {ending for ending, kind in Image.registered_extensions().items() if kind in Image.OPEN}


def _refuse_folder(error: OSError) -> None:
    reason = (error.strerror or str(error)).lower()
    raise InputError(f"cannot read the folder '{printable(str(error.filename))}': {reason}")


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


def import_parquet(what: str) -> Any:  # noqa: ANN401 (pyarrow is untyped)
    """The parquet module of pyarrow. Raises `InputError`, which says how to install it, where it is missing."""
    try:
        from pyarrow import parquet  # pyright: ignore[reportMissingImports, reportMissingTypeStubs] (an extra)
    except ImportError as error:
        raise InputError(f'{what} needs pyarrow: pip install "vggfeat[parquet]"') from error
    return cast("Any", parquet)


def _unreadable(path: Path, error: Exception) -> InputError:
    reason = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
    return InputError(f"cannot read '{printable(path)}': {' '.join(reason.split()).lower()}")


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
    return (Item(printable(identity or name), os.path.join(path.parent, name)) for name, identity in names)  # noqa: PTH118 (a Path would tidy what the list says)


def _tar(path: Path) -> Iterator[Item]:
    """The pictures of a tar file. A member's key ends at its name's first dot, as webdataset has it."""
    endings = _endings()
    members: list[tarfile.TarInfo] = []
    try:
        with tarfile.open(path, "r:") as archive:
            members = [member for member in archive if member.isreg() and _ending(member.name) in endings]
    except (OSError, tarfile.TarError) as error:
        hint = "" if isinstance(error, OSError) else " (a compressed one must be unpacked first)"
        raise InputError(f"cannot read '{printable(path)}': it is not a plain tar file{hint}") from error
    if not members:
        raise InputError(f"'{printable(path)}' holds no picture")
    count = Counter(_key(member.name) for member in members)
    for member in members:
        key = _key(member.name)
        identity = key if count[key] == 1 else member.name
        yield Item(printable(identity), str(path), member.name, member.offset_data, member.size)


def _ending(name: str) -> str:
    return PurePath(name).suffix.lower()


def _key(name: str) -> str:
    folder, slash, file = name.rpartition("/")
    return folder + slash + file.partition(".")[0]


def _numbered(items: Iterable[Item]) -> Iterator[Item]:
    """Give each id once: what comes again has `#2`, `#3` behind it."""
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
