"""Lists the pictures of a dump's sources."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePath

from vggfeat.dumps.sources.folders import folder_items
from vggfeat.dumps.sources.item import Item, PathLike, printable, unreadable
from vggfeat.dumps.sources.lists import line_items, read_csv, read_parquet, table_items
from vggfeat.dumps.sources.tars import COMPRESSED, tar_items
from vggfeat.errors import InputError, near

_LISTS = (".txt", ".lst", ".csv", ".tsv", ".parquet")


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
        raise unreadable(path, error) from error
    if path.is_dir():
        return folder_items(path)
    if path.name.lower().endswith(COMPRESSED):
        raise InputError(f"'{printable(path)}' is a compressed tar file: unpack it, to .tar or to a folder")
    match path.suffix.lower():
        case ".tar":
            return tar_items(path)
        case ".parquet":
            return table_items(path, read_parquet(path))
        case ".csv" | ".tsv":
            return table_items(path, read_csv(path))
        case ".txt" | ".lst":
            return line_items(path)
        case _:
            return iter([Item(printable(path), str(path))])


def _near(path: Path) -> str:
    try:
        names = sorted(other.name for other in path.parent.iterdir())[:2000]
    except OSError:
        return ""
    hint = near(path.name, names)
    return f"; {printable(hint)}" if hint.startswith("near") else ""


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
