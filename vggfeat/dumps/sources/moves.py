"""Sources that lie in another folder than when their dump was begun."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vggfeat.dumps.sources.item import Item, printable
from vggfeat.errors import InputError


@dataclass(frozen=True, slots=True)
class Move:
    """The sources that were in the folder `old` are in the folder `new`.

    >>> Move("/data/a", "/mnt/b").now("/data/a/cats/1.jpg")
    '/mnt/b/cats/1.jpg'
    """

    old: str
    new: str

    def __str__(self) -> str:
        return f"'{printable(self.old)}' is '{printable(self.new)}' now"

    def now(self, path: str) -> str:
        """Where `path` is now."""
        return _rebased(path, self.old, self.new)

    def found(self, item: Item) -> Item:
        """`item` with the path at which it is now."""
        return replace(item, path=self.now(item.path))

    def begun(self, item: Item) -> Item:
        """`item` with the path and the id that it had when the dump was begun."""
        return replace(item, id=_rebased(item.id, self.new, self.old), path=_rebased(item.path, self.new, self.old))

    @classmethod
    def of(cls, run: Mapping[str, Any] | None) -> "Move | None":
        """The move that a dump's run.json records, if there is one."""
        return cls(**run["moved"]) if run and run.get("moved") else None

    @classmethod
    def between(cls, place: str, item: Item, root: str) -> "Move | None":
        """The move by which the picture at `place` became `item`, in the folder `root`; None if it did not move.

        Raises `InputError` if the two cannot be the same picture.
        """
        root = root.rstrip("/") or "/"
        within = item.place.removeprefix(printable(root)).lstrip("/")
        if not is_within(item.path, root):
            raise InputError(f"'{item.place}' is not in the root '{printable(root)}'")
        if item.place == place:
            return None
        if not place.endswith(f"/{within}"):
            raise InputError(f"the dump begins with '{place}', and the sources in '{printable(root)}' with '{within}'")
        return cls(place[: -len(within) - 1] or "/", root)


def is_within(path: str, folder: str) -> bool:
    """Whether an absolute path is in a folder, as text: links are not followed."""
    return Path(path).is_relative_to(folder)


def first_difference(places: Iterable[tuple[int, str, str]], items: tuple[Item, ...]) -> str:
    """The first of the (number, id, place) of a dump that differs from `items`, in words; empty if none does."""
    for number, name, place in places:
        if number >= len(items):
            return f"'{name}' is missing"
        item = items[number]
        if item.place != place:
            return f"'{place}' is '{item.place}'"
        if item.id != name:
            return f"the id '{name}' is '{item.id}'"
    return ""


def _rebased(path: str, old: str, new: str) -> str:
    if not is_within(path, old):
        return path
    rest = path[len(old.rstrip("/")) :]
    return f"{new.rstrip('/')}{rest}" or "/"
