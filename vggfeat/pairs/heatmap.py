"""Pictures of where a pair differs: their colours and their files."""

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from vggfeat.errors import ImageError
from vggfeat.pairs.match import Pair, path_text

if TYPE_CHECKING:
    from torch import Tensor

# The spatial LPIPS that a heat map shows at its brightest: about that of a picture against noise. The same for every
# pair, so that heat maps can be set side by side.
HEAT_TOP = 0.8

# The way of its colours through OKLab (Ottosson 2020), within sRGB; and the matrices from there to linear sRGB.
_HUES, _CHROMA, _LIGHTEST = (300, 455), 0.17, 0.97

_FROM_OKLAB = (
    (
        (1.0, 0.3963377774, 0.2158037573),
        (1.0, -0.1055613458, -0.0638541728),
        (1.0, -0.0894841775, -1.2914855480),
    ),
    (
        (4.0767416621, -3.3077115913, 0.2309699292),
        (-1.2684380046, 2.6097574011, -0.3413193965),
        (-0.0041960863, -0.7034186147, 1.7076147010),
    ),
)


def heatmap_files(folder: Path, pairs: Iterable[Pair], folders: Iterable[Path] = ()) -> dict[Pair, Path]:
    """A PNG for each pair, whose name keeps the picture's ending where it would be another's without.

    Raises `ImageError` for one within `folders`, those that are compared: the next comparison would take it for a
    picture of theirs.
    """
    within = {pair: PurePath(*pair.a.parts[-len(PurePath(pair.name).parts) :]) for pair in pairs}
    names = {pair: name.with_suffix(".png") for pair, name in within.items()}
    while crowded := _crowded(names) - {pair for pair, name in within.items() if names[pair] == _longer(name)}:
        names |= {pair: _longer(within[pair]) for pair in crowded}
    files = {pair: folder / name for pair, name in names.items()}
    places = {Path(os.path.realpath(parent)) for parent in {file.parent for file in files.values()}}
    for compared in folders:
        if any(place.is_relative_to(os.path.realpath(compared)) for place in places):
            raise ImageError(
                f"the heat maps would be pictures of '{path_text(compared)}' the next time: choose a folder outside it"
            )
    return files


def _crowded(names: Mapping[Pair, PurePath]) -> set[Pair]:
    """The pairs whose names are one file, or would be one where case does not count."""
    taken: dict[str, set[Pair]] = defaultdict(set)
    for pair, name in names.items():
        taken[str(name).casefold()].add(pair)
    return set[Pair]().union(*(pairs for pairs in taken.values() if len(pairs) > 1))


def _longer(name: PurePath) -> PurePath:
    return name.with_name(f"{name.name}.png")


def make_room(files: Iterable[Path]) -> None:
    """Make the folders of `files`. Raises `ImageError` for those that cannot be made or written to."""
    from vggfeat import images

    for path in files:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise ImageError(f"cannot make the folder '{path_text(path.parent)}': {reason}") from error
        images.check_writable(path)


def save_heatmap(path: Path, picture: "Tensor", heat: "Tensor") -> None:
    """Write (1, 1, H, W) distances as colours, over the grey of the (1, 3, H, W) picture where they are small."""
    import torch

    from vggfeat import images

    share = (heat.float() / HEAT_TOP).clamp(0, 1)
    grey = (picture * torch.tensor([0.2126, 0.7152, 0.0722]).reshape(1, 3, 1, 1)).sum(1, keepdim=True)
    images.write_picture(path, (colours(share) + 0.25 * grey * (1 - share) ** 2).clamp(0, 1))


def colours(share: "Tensor") -> "Tensor":
    """(N, 1, H, W) in [0, 1] to RGB, (N, 3, H, W): black, violet, red, orange, white.

    Lightness grows evenly in OKLab (Ottosson 2020), so that equal steps look equal, and read in grey too.
    """
    import torch

    hue = torch.deg2rad(_HUES[0] + (_HUES[1] - _HUES[0]) * share)
    chroma = _CHROMA * (torch.pi * share).sin().clamp_min(0)
    lab = torch.cat([_LIGHTEST * share, chroma * hue.cos(), chroma * hue.sin()], dim=1)
    cones, rgb = (torch.tensor(matrix, dtype=share.dtype, device=share.device) for matrix in _FROM_OKLAB)
    linear = torch.einsum("ij,njhw->nihw", rgb, torch.einsum("ij,njhw->nihw", cones, lab) ** 3).clamp(0, 1)
    return torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear.clamp_min(1e-3) ** (1 / 2.4) - 0.055)
