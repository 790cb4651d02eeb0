"""Which pictures of a source are wanted, and how many of its files are left out."""

from collections import Counter
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import PurePath, PurePosixPath

from vggfeat import files
from vggfeat.dumps.sources.item import printable

_HIDDEN, _MACOS, _OTHER = "hidden", "of macOS (._*, __MACOSX)", "not a picture"
_FILTERED, _READ = "left out by --include and --exclude", "a folder that was read before, under another name"


class SourceFilter:
    """Chooses pictures by name, and counts the files that it leaves out in `skipped`, {reason: count}.

    `include` and `exclude` are globs of the names that are wanted and not wanted. They match a whole path within the
    source, or the last part of it. `column` names the column, array or data set that holds the pictures or their
    paths. With `follow_links`, links to folders are read, each folder once.

    >>> wanted = SourceFilter(["*.jpg"], ["*_mask.jpg"])
    >>> [name for name in ("a/1.jpg", "a/1_mask.jpg", "a/1.png", "a/._1.jpg", "notes.txt") if wanted.takes(name)]
    ['a/1.jpg']
    >>> wanted.summary()
    '2 left out by --include and --exclude, 1 not a picture, 1 of macOS (._*, __MACOSX)'
    """

    def __init__(
        self,
        include: str | Iterable[str] = (),
        exclude: str | Iterable[str] = (),
        column: str | None = None,
        *,
        follow_links: bool = False,
    ) -> None:
        self.include = (include,) if isinstance(include, str) else tuple(include)
        self.exclude = (exclude,) if isinstance(exclude, str) else tuple(exclude)
        self.column = column
        self.follow_links = follow_links
        self.skipped: Counter[str] = Counter()
        self._columns: list[str] = []

    def takes(self, name: PurePath | str) -> bool:
        """Whether a file of a folder or an archive is wanted."""
        if not self.shows(name):
            return False
        if PurePosixPath(name).suffix.lower() not in files.picture_endings():
            self.skipped[_OTHER] += 1
            return False
        return self.matches(name)

    def shows(self, name: PurePath | str) -> bool:
        """Whether a file or folder is neither hidden nor what macOS adds to archives."""
        parts = [part for part in PurePosixPath(name).parts if part != ".."]
        if _of_macos(parts):
            self.skipped[_MACOS] += 1
        elif any(part.startswith(".") for part in parts):
            self.skipped[_HIDDEN] += 1
        else:
            return True
        return False

    def lists(self, name: str) -> bool:
        """Whether a name in a list of paths is wanted. Hidden files and other endings are, if they are listed."""
        if _of_macos(PurePosixPath(name).parts):
            self.skipped[_MACOS] += 1
            return False
        return self.matches(name)

    def matches(self, name: PurePath | str) -> bool:
        """Whether a name matches `include`, if there is one, and not `exclude`."""
        path = printable(name)
        last = path.rpartition("/")[2]

        def any_of(patterns: Iterable[str]) -> bool:
            return any(fnmatchcase(path, pattern) or fnmatchcase(last, pattern) for pattern in patterns)

        if (self.include and not any_of(self.include)) or any_of(self.exclude):
            self.skipped[_FILTERED] += 1
            return False
        return True

    def skip_column(self, name: str) -> None:
        """Count a column that a manifest cannot hold."""
        self._columns.append(printable(name))

    def skip_folder(self) -> None:
        """Count a folder that was read before."""
        self.skipped[_READ] += 1

    def nothing(self, what: str) -> str:
        """The error message for a source without any wanted picture."""
        filtered = " that --include and --exclude leave" if self.skipped[_FILTERED] else ""
        return f"{what} holds no picture{filtered}"

    def summary(self) -> str:
        """The files and columns that were left out, in words; empty if there are none."""
        told = [f"{count} {reason}" for reason, count in sorted(self.skipped.items()) if count]
        columns = ", ".join(dict.fromkeys(self._columns))
        return ", ".join([*told, f"columns that are neither text nor numbers: {columns}"] if columns else told)


def _of_macos(parts: Iterable[str]) -> bool:
    return any(part.startswith("._") or part in {"__MACOSX", ".DS_Store"} for part in parts)
