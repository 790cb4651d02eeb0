"""Find the pictures to compare: two files, or the files of two folders matched by name."""

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import NamedTuple

from vggfeat import files
from vggfeat.errors import ImageError, InputError

PathLike = str | os.PathLike[str]

_CASE = "differs in upper and lower case"


@dataclass(frozen=True, slots=True)
class Pair:
    """Two pictures to compare. `name` is the first one's file name, or its path within the folder that is compared."""

    name: str
    a: Path
    b: Path


class MatchedPictures(NamedTuple):
    """The pairs sorted by name, {picture without a counterpart: reason}, and every picture of both sides."""

    pairs: list[Pair]
    unmatched: dict[str, str]
    pictures: list[Path]


def match_pictures(a: PathLike, b: PathLike) -> MatchedPictures:
    """Match two pictures, or the pictures of two folders.

    In folders, files with the ending of a picture count, hidden files do not. A picture's counterpart has the same path
    within its folder, else the same path with another ending, if exactly one file has it. Raises `InputError` if
    nothing matches, or if only one of `a` and `b` is a folder.
    """
    if not (os.fspath(a) and os.fspath(b)):
        raise InputError("a picture or folder to compare has an empty name")
    first, second = Path(a), Path(b)
    if not (first.is_dir() or second.is_dir()):
        return MatchedPictures([Pair(path_text(first.name), first, second)], {}, [first, second])
    for path in (first, second):
        if not path.is_dir():
            folder = second if path is first else first
            what = "not a folder" if path.exists() else "not there"
            raise InputError(f"'{path_text(folder)}' is a folder and '{path_text(path)}' is {what}: "
                             "compare two pictures or two folders")  # fmt: skip
    ours, theirs = _pictures(first), _pictures(second)
    found = {name: name for name in ours if name in theirs}
    left_a, left_b = (by_stem(name for name in names if name not in found) for names in (ours, theirs))
    case_a, case_b = ({_folded(stem): names for stem, names in left.items()} for left in (left_a, left_b))
    unmatched: dict[str, str] = {}
    for stem in sorted({*left_a, *left_b}):
        names_a, names_b = left_a.get(stem, []), left_b.get(stem, [])
        if len(names_a) == len(names_b) == 1:
            found[names_a[0]] = names_b[0]
            continue
        for names, folder, others, case, other in (
            (names_a, first, names_b, case_b, second),
            (names_b, second, names_a, case_a, first),
        ):
            reason = _why_unmatched(others, case.get(_folded(stem), []), path_text(other))
            unmatched |= {path_text(folder / name): reason for name in names}
    if not found:
        hint = next((f": '{name}' has {why}" for name, why in unmatched.items() if _CASE in why), "")
        raise InputError(f"no picture of '{path_text(first)}' ({_sample(ours)}) has the name of one of "
                         f"'{path_text(second)}' ({_sample(theirs)}){hint}")  # fmt: skip
    pairs = [Pair(path_text(name), first / name, second / found[name]) for name in sorted(found)]
    return MatchedPictures(
        pairs, unmatched, [folder / name for folder, names in ((first, ours), (second, theirs)) for name in names]
    )


def _folded(stem: PurePath) -> str:
    return str(stem).casefold()


def _why_unmatched(others: Sequence[PurePath], respelled: Sequence[PurePath], folder: str) -> str:
    """Why a picture has no counterpart: `others` in `folder` share its stem, `respelled` differ from it in case."""
    if others:
        return f"{', '.join(map(path_text, others))} in '{folder}' could be its counterpart, endings differ"
    return f"no counterpart in '{folder}'" + (f", whose {path_text(respelled[0])} {_CASE}" if respelled else "")


def _pictures(folder: Path) -> set[PurePath]:
    """The paths within `folder` of all files with the ending of a picture, sub-folders included."""
    found: set[PurePath] = set()
    for parent, folders, names in os.walk(folder, onerror=_refuse_folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        within = Path(parent).relative_to(folder)
        found |= {within / name for name in names if files.is_picture(name)}
    return found


def _refuse_folder(error: OSError) -> None:
    raise ImageError(f"cannot read the folder '{path_text(error.filename)}': {files.reason(error)}")


def by_stem(names: Iterable[PurePath]) -> dict[PurePath, list[PurePath]]:
    """{path without its ending: the paths with that stem}, sorted."""
    stems: dict[PurePath, list[PurePath]] = defaultdict(list)
    for name in sorted(names):
        stems[name.with_suffix("")].append(name)
    return stems


def _sample(names: Iterable[PurePath]) -> str:
    first = sorted(names)[:2]
    return f"{', '.join(map(path_text, first))}, ..." if first else "no pictures"


def path_text(path: PurePath | str) -> str:
    """A path as valid Unicode with forward slashes, to print and to store. Undecodable bytes are replaced."""
    text = path if isinstance(path, str) else path.as_posix()
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
