"""Heat maps that show where two pictures differ: their scale and their files."""

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

# The spatial LPIPS that a heat map shows in white, about that of a photograph against noise. It is the same for every
# pair, so that heat maps can be compared.
HEAT_TOP = 0.8


def heatmap_files(folder: Path, pairs: Iterable[Pair], folders: Iterable[Path] = ()) -> dict[Pair, Path]:
    """{pair: the PNG file of its heat map}. If two names clash without the picture's ending, they keep it.

    Raises `ImageError` if a file would be inside one of `folders`, the folders that are compared: the next comparison
    would read it as a picture.
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
                f"heat maps inside '{path_text(compared)}' would be compared next time: choose a folder outside it"
            )
    return maps


def _crowded(names: Mapping[Pair, PurePath]) -> set[Pair]:
    """The pairs whose file names clash, also on file systems that ignore case."""
    taken: dict[str, set[Pair]] = defaultdict(set)
    for pair, name in names.items():
        taken[str(name).casefold()].add(pair)
    return set[Pair]().union(*(pairs for pairs in taken.values() if len(pairs) > 1))


def _longer(name: PurePath) -> PurePath:
    return name.with_name(f"{name.name}.png")


def make_folders(paths: Iterable[Path]) -> None:
    """Create the folders of `paths`. Raises `ImageError` if one cannot be created or written to."""
    from vggfeat.pictures import images

    for path in paths:
        with files.os_errors_as(ImageError, f"cannot make the folder '{path_text(path.parent)}'"):
            path.parent.mkdir(parents=True, exist_ok=True)
        images.check_writable(path)


def save_heatmap(path: Path, picture: "Tensor", heat: "Tensor") -> None:
    """Write the distances `heat` (1, 1, H, W) as colours over the grey `picture` (1, 3, H, W)."""
    from vggfeat.explore import colours
    from vggfeat.pictures import images

    images.write_picture(path, colours.over(picture, (heat.float() / HEAT_TOP).clamp(0, 1)))
