"""Lists of paths, one a line, with or without a label."""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path, PurePath

from vggfeat import files
from vggfeat.dumps.sources.filtering import SourceFilter
from vggfeat.dumps.sources.item import Item, columns_of, joined, printable, unreadable, url_item
from vggfeat.errors import InputError

STDIN = "-"
"""The source that stands for a list on standard input."""


class ListSource:
    """The pictures of a text file, or of standard input: one path a line, optionally with a label: `cats/1.jpg 3`.

    Paths are separated by line ends, or by NUL, as `find -print0` does. Relative ones start at the list's folder. A
    label follows the ending of the picture, after white space or a comma.
    """

    def __init__(self, path: Path, selection: SourceFilter) -> None:
        self._path = path
        self._selection = selection

    def items(self) -> Iterator[Item]:
        """The pictures. The files need not exist yet. Raises `InputError` if there is none."""
        try:
            data = sys.stdin.buffer.read() if str(self._path) == STDIN else self._path.read_bytes()
        except (OSError, AttributeError) as error:  # standard input may be missing
            raise unreadable(self._path, error) from error
        lines = data.split(b"\0") if b"\0" in data else data.splitlines()
        names = [os.fsdecode(line.removeprefix(b"\xef\xbb\xbf")).strip() for line in lines]
        if not any(names):
            raise InputError(f"'{printable(self._path)}' lists no picture")
        found = False
        for line in filter(None, names):
            name, label = _labelled(line, self._path.parent)
            if self._selection.lists(name):
                found = True
                columns, path = columns_of({"label": label}), joined(self._path.parent, name)
                yield url_item(name, self._path, columns=columns) or Item(printable(name), path, columns=columns)
        if not found:
            raise InputError(self._selection.nothing(f"'{printable(self._path)}'"))


def _labelled(line: str, folder: Path) -> tuple[str, str]:
    """Split `path label`. A line that ends like a picture, or is a file as it stands, has no label."""
    endings = files.picture_endings()
    if PurePath(line).suffix.lower() not in endings:
        for gap in re.finditer(r"\s*,\s*|\s+", line):
            if PurePath(line[: gap.start()]).suffix.lower() in endings and not os.path.lexists(joined(folder, line)):
                return line[: gap.start()], line[gap.end() :]
    return line, ""
