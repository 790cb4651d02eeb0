"""Finds the pictures of manifest entries again."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

from vggfeat.dumps.sources.content import ROWS
from vggfeat.dumps.sources.filtering import SourceFilter
from vggfeat.dumps.sources.item import Item, printable, real_path
from vggfeat.dumps.sources.moves import Move
from vggfeat.dumps.sources.tars import TarSource
from vggfeat.dumps.sources.zips import ZipSource
from vggfeat.errors import InputError

_ARCHIVES = {".tar": TarSource, ".zip": ZipSource}


class Places:
    """Finds the items of manifest entries. Lists each tar and zip file only once.

    `paths`: {id: path} of all entries, in order. The order tells members of an archive with the same name apart.
    `moved`: where the sources are now, if not where the dump was begun.
    """

    def __init__(self, paths: Mapping[str, str], moved: Move | None = None) -> None:
        self._paths = paths if moved is None else {name: moved.now(place) for name, place in paths.items()}
        self._archives: dict[str, Mapping[str, list[Item]]] = {}
        count: Counter[str] = Counter()
        self._occurrences: dict[str, int] = {}
        for name, place in paths.items():
            self._occurrences[name] = count[place]
            count[place] += 1

    def item(self, name: str) -> Item:
        """The item of the entry with the id `name`. Raises `InputError` if its archive no longer holds it."""
        place = self._paths[name]
        for slash in (found.start() for found in re.finditer("/", place)):
            ending = place[:slash].lower()[place[:slash].rfind(".") :]
            if ending not in ROWS and ending not in _ARCHIVES:
                continue
            path = real_path(place[:slash])
            if not os.path.isfile(path):  # noqa: PTH113 (Path would normalise the path)
                continue
            member = place[slash + 1 :]
            if ending in ROWS:
                return Item(place, path, member)
            named = self._members(path, ending).get(member, [])
            if self._occurrences[name] >= len(named):
                raise InputError(f"'{place[:slash]}' no longer holds '{member}'")
            return named[self._occurrences[name]]
        return Item(place, real_path(place))

    def _members(self, path: str, ending: str) -> Mapping[str, list[Item]]:
        if path not in self._archives:
            members: defaultdict[str, list[Item]] = defaultdict(list)
            for item in _ARCHIVES[ending](Path(path), SourceFilter()).items():
                if item.member:
                    members[printable(item.member)].append(item)
            self._archives[path] = members
        return self._archives[path]
