"""Folders of pictures."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePath

from vggfeat import files
from vggfeat.dumps.sources.item import Item, printable
from vggfeat.errors import InputError

_LINK = "it is a link to a folder, which is not followed: name the folder as a source of its own"


def folder_items(folder: Path) -> Iterator[Item]:
    """The pictures of a folder and its sub-folders, in path order."""
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
