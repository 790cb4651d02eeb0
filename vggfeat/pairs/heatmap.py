"""Pictures of where a pair differs: their scale and their files."""

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from vggfeat import files
from vggfeat.errors import ImageError
from vggfeat.pairs.match import Pair, path_text

if TYPE_CHECKING:
    from torch import Tensor

# The spatial LPIPS that a heat map shows at its brightest: about that of a picture against noise. The same for every
# pair, so that heat maps can be set side by side.
HEAT_TOP = 0.8


def heatmap_files(folder: Path, pairs: Iterable[Pair], folders: Iterable[Path] = ()) -> dict[Pair, Path]:
    """A PNG for each pair, whose name keeps the picture's ending where it would be another's without.

    Raises `ImageError` for one within `folders`, those that are compared: the next comparison would take it for a
    picture of theirs.
    """
    within = {pair: PurePath(*pair.a.parts[-len(PurePath(pair.name).parts) :]) for pair in pairs}
    names = {pair: name.with_suffix(".png") for pair, name in within.items()}
    while crowded := _crowded(names) - {pair for pair, name in within.items() if names[pair] == _longer(name)}:
        names |= {pair: _longer(within[pair]) for pair in crowded}
    maps = {pair: folder / name for pair, name in names.items()}
    places = {Path(os.path.realpath(parent)) for parent in {file.parent for file in maps.values()}}
    for compared in folders:
        if any(place.is_relative_to(os.path.realpath(compared)) for place in places):
            raise ImageError(
                f"the heat maps would be pictures of '{path_text(compared)}' the next time: choose a folder outside it"
            )
    return maps


def _crowded(names: Mapping[Pair, PurePath]) -> set[Pair]:
    """The pairs whose names are one file, or would be one where case does not count."""
    taken: dict[str, set[Pair]] = defaultdict(set)
    for pair, name in names.items():
        taken[str(name).casefold()].add(pair)
    return set[Pair]().union(*(pairs for pairs in taken.values() if len(pairs) > 1))


def _longer(name: PurePath) -> PurePath:
    return name.with_name(f"{name.name}.png")


def make_room(paths: Iterable[Path]) -> None:
    """Make the folders of `paths`. Raises `ImageError` for those that cannot be made or written to."""
    from vggfeat.pictures import images

    for path in paths:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = files.reason(error)
            raise ImageError(f"cannot make the folder '{path_text(path.parent)}': {reason}") from error
        images.check_writable(path)


def save_heatmap(path: Path, picture: "Tensor", heat: "Tensor") -> None:
    """Write (1, 1, H, W) distances as colours, over the grey of the (1, 3, H, W) picture where they are small."""
    from vggfeat.explore import colours
    from vggfeat.pictures import images

    images.write_picture(path, colours.over(picture, (heat.float() / HEAT_TOP).clamp(0, 1)))
