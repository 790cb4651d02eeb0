"""Lists the pictures of a dump's sources."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Protocol

from vggfeat import files
from vggfeat.dumps.sources.filtering import SourceFilter
from vggfeat.dumps.sources.folders import FolderSource
from vggfeat.dumps.sources.hdf5 import Hdf5Source
from vggfeat.dumps.sources.item import Item, PathLike, is_url, printable, unreadable
from vggfeat.dumps.sources.lists import STDIN, ListSource
from vggfeat.dumps.sources.numpy_files import NumpySource
from vggfeat.dumps.sources.parquet import ParquetSource
from vggfeat.dumps.sources.tables import TableSource
from vggfeat.dumps.sources.tars import COMPRESSED, TarSource
from vggfeat.dumps.sources.zips import ZipSource
from vggfeat.errors import InputError


class SourceKind(Protocol):
    """A kind of source, made of a path and a selection."""

    def __init__(self, path: Path, selection: SourceFilter) -> None: ...

    def items(self) -> Iterator[Item]:
        """The pictures, in order. Raises `InputError` if the source is unreadable or holds no picture."""
        ...


KINDS: Mapping[str, type[SourceKind]] = {
    ".txt": ListSource,
    ".lst": ListSource,
    ".csv": TableSource,
    ".tsv": TableSource,
    ".jsonl": TableSource,
    ".ndjson": TableSource,
    ".parquet": ParquetSource,
    ".tar": TarSource,
    ".zip": ZipSource,
    ".npy": NumpySource,
    ".npz": NumpySource,
    ".h5": Hdf5Source,
    ".hdf5": Hdf5Source,
    ".hdf": Hdf5Source,
}
"""The kinds of sources that are files with many pictures, by ending."""


def find(sources: PathLike | Sequence[PathLike], selection: SourceFilter | None = None) -> tuple[Item, ...]:
    """The pictures of one source or several, in order; `selection` chooses among them and counts what it leaves out.

    A source is one of:

    - a picture;
    - a folder: its sub-folders are read too, in path order; names that begin with a dot are skipped;
    - a list of paths, one a line (`.txt`, `.lst`), each optionally with a label, or `-`: such a list on standard input;
    - a table with a column of paths (`.csv`, `.tsv`, `.jsonl`, `.parquet`), called `path`, `file_name` or `image`, and
      optionally `id`. Relative paths start at the folder of the list or table. The files need not exist yet;
    - a `.parquet` file that holds the pictures, as Hugging Face writes them;
    - a `.tar` file, as webdataset uses them, or a `.zip` file. The members are read in place;
    - an array of pictures (`.npy`, `.npz`, `.h5`): (N, H, W), (N, H, W, C) or (N, C, H, W); uint8, uint16, bool or
      floating in [0, 1].

    What cannot be listed becomes an item with an error: a link to a folder, which is not followed; a sub-folder that
    cannot be read; the rest of a tar file that is damaged or truncated.

    Labels and further columns of lists, tables, arrays and webdataset's files become `columns` of the items.

    An id is a picture's path within its source, a tar member's key, the number of a row, or the value of the column
    `id`. With several sources it begins with the name of its source. A path that occurs twice gives two items, the
    second with `#2` after its id; a column `id` with duplicates is refused. Raises `InputError` if a source is missing,
    unreadable or holds no picture.
    """
    given = [sources] if isinstance(sources, str | os.PathLike) else list(sources)
    if not given:
        raise InputError("there is no source: name pictures, a folder, a list of paths or a tar file")
    selection = selection or SourceFilter()
    items: list[Item] = []
    for source in given:
        if not os.fspath(source):
            raise InputError("a source is empty: name a picture, a folder ('.' is this one), a list or a tar file")
        if is_url(os.fspath(source)):
            raise InputError(f"the source '{os.fspath(source)}' is a URL: download it, and name the file or folder")
        path = Path(source)
        found = list(_items_of(path, selection))
        if len(given) > 1 and not _is_picture(path):
            found = [replace(item, id=f"{printable(path)}/{item.id}") for item in found]
        items += (replace(item, path=_absolute(item.path)) for item in found)
    return tuple(numbered(items))


def _absolute(path: str) -> str:
    """`path` as an absolute path. `..` is kept: after a symbolic link it is not the folder that the text suggests."""
    if ".." in PurePath(path).parts:
        return os.path.join(Path.cwd(), path)  # noqa: PTH118 (Path would normalise it)
    return os.path.abspath(path)  # noqa: PTH100 (keeps links)


def _is_picture(path: Path) -> bool:
    return not path.is_dir() and path.suffix.lower() not in KINDS and str(path) != STDIN


def _items_of(path: Path, selection: SourceFilter) -> Iterator[Item]:
    if str(path) == STDIN:
        return ListSource(path, selection).items()
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise InputError(f"no such source '{printable(path)}'{files.similar_names(path)}") from None
    except OSError as error:
        raise unreadable(path, error) from error
    if path.is_symlink() and not path.exists():
        raise InputError(f"no such source '{printable(path)}': it is a link to '{printable(path.readlink())}'")
    if path.is_dir():
        return FolderSource(path, selection).items()
    if path.name.lower().endswith(COMPRESSED):
        raise InputError(f"'{printable(path)}' is a compressed tar file: unpack it, to .tar or to a folder")
    if kind := KINDS.get(path.suffix.lower()):
        return kind(path, selection).items()
    return iter([Item(printable(path), str(path))])


def numbered(items: Iterable[Item]) -> Iterator[Item]:
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
