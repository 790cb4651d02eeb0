"""Folders of pictures."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePath

from vggfeat import files
from vggfeat.dumps.sources.filtering import SourceFilter
from vggfeat.dumps.sources.item import Item, printable
from vggfeat.errors import InputError

_LINK = "it is a link to a folder, which is not followed: name the folder as a source of its own"


class FolderSource:
    """The pictures of a folder and its sub-folders, in path order."""

    def __init__(self, path: Path, selection: SourceFilter) -> None:
        self._folder = path
        self._selection = selection
        self._found: dict[PurePath, str] = {}

    def items(self) -> Iterator[Item]:
        """The pictures; links to folders and sub-folders that cannot be read are items with an error.

        Raises `InputError` if there is no picture, or the folder itself cannot be read.
        """
        selection, read = self._selection, set[tuple[int, int]]()
        for parent, folders, plain in os.walk(
            self._folder, onerror=self._unreadable, followlinks=selection.follow_links
        ):
            within = Path(parent).relative_to(self._folder)
            if selection.follow_links and not _first(parent, read):
                selection.skip_folder()
                folders.clear()
                continue
            folders[:] = sorted(name for name in folders if selection.shows(name))
            # List a folder called x.jpg too, so that its manifest entry says that it is a folder.
            named = [name for name in folders if PurePath(name).suffix.lower() in files.picture_endings()]
            self._found |= {within / name: "" for name in named}
            self._found |= {within / name: "" for name in plain if selection.takes(within / name)}
            if not selection.follow_links:
                self._found |= {within / name: _LINK for name in folders if (Path(parent) / name).is_symlink()}
        if not self._found:
            raise InputError(selection.nothing(f"the folder '{printable(self._folder)}'"))
        for name in sorted(self._found):
            yield Item(printable(name), str(self._folder / name), error=self._found[name])

    def _unreadable(self, error: OSError) -> None:
        reason = files.reason(error)
        if (within := Path(error.filename).relative_to(self._folder)) == Path():
            raise InputError(f"cannot read the folder '{printable(self._folder)}': {reason}")
        self._found[within] = f"cannot read the folder '{printable(str(error.filename))}': {reason}"


def _first(folder: str, read: set[tuple[int, int]]) -> bool:
    """Whether a folder is read for the first time. Links can lead back to a folder, and on for ever."""
    try:
        about = os.stat(folder)  # noqa: PTH116 (os.walk yields text)
    except OSError:
        return True  # os.walk reports it
    before = len(read)
    read.add((about.st_dev, about.st_ino))
    return len(read) > before
