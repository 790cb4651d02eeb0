"""Finds the pictures of manifest entries again."""

import os
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from vggfeat.dumps.sources.item import Item, printable
from vggfeat.dumps.sources.tars import tar_items
from vggfeat.errors import InputError


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
                self._tars[path] = tuple(tar_items(Path(path)))
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
