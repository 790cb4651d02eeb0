"""Random squares of photographs in random light, as functions of a seed and a step."""

import math
import os
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import torch
from torch import Tensor

from vggfeat import files
from vggfeat.errors import InputError
from vggfeat.pictures import images

_BUNDLED = ("astronaut", "chelsea", "china", "coffee", "flower", "rocket")

# Photographs that are kept decoded. A large folder is read again and again; a small one once.
_KEPT = 64

# A photograph is kept with at most this short side, in crops.
_MOST_CROPS = 4

# The exponents of values and the contrasts that squares get, from and to, and by how much the exponents of the colours
# differ. Without dark and flat squares a network learns to fill shadows with bright blobs.
_GAMMA = (0.5, 3.0)
_CONTRAST = (0.3, 1.0)
_COLOUR_GAMMA = 0.25


def bundled_photographs() -> list[Path]:
    """The photographs that ship with vggfeat.

    >>> bundled_photographs()[0].name
    'astronaut.jpg'
    """
    return [bundled_image(name) for name in _BUNDLED]


def bundled_image(name: str) -> Path:
    """The path of a bundled picture, such as `mosaic`."""
    return Path(str(resources.files("vggfeat_assets"))) / "images" / f"{name}.jpg"


def find_photographs(places: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """The files among `places`, and the pictures in its folders and their subfolders, in natural order.

    Raises `InputError` for a place that does not exist or a folder without pictures.
    """
    found: list[Path] = []
    for place in map(Path, places):
        if place.is_dir():
            if not (inside := files.pictures_in(place, deep=True)):
                raise InputError(f"there is no picture in '{place}'")
            found += inside
        elif place.is_file():
            found.append(place)
        else:
            raise InputError(f"there is no photograph or folder '{place}'{files.similar_names(place)}")
    return found


class Photographs:
    """Draws random squares of photographs: each of a random size and place, half of them flipped.

    Half of them keep their light; the others get a random gamma and contrast, and a tint.

    Args:
        paths: of the photographs.
        crop: side of the squares in pixels.

    >>> squares = Photographs(bundled_photographs(), crop=32)
    >>> squares.draw(2, torch.Generator("cpu").manual_seed(0)).shape
    torch.Size([2, 3, 32, 32])
    """

    def __init__(self, paths: Sequence[Path], crop: int) -> None:
        self.paths, self.crop = tuple(paths), crop
        self._kept: dict[int, Tensor] = {}

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw (count, 3, crop, crop) in [0, 1]. Raises `ImageError` for a photograph that cannot be read."""
        draws = torch.rand(count, 12, generator=generator, dtype=torch.float64, device="cpu").tolist()
        return torch.cat([_relit(self._square(*values[:5]), *values[5:]) for values in draws])

    def _square(self, which: float, size: float, down: float, across: float, flip: float) -> Tensor:
        picture = self._read(int(which * len(self.paths)))
        height, width = picture.shape[2:]
        short = min(height, width)
        side = short if short <= self.crop else round(self.crop * (short / self.crop) ** size)
        top, left = round(down * (height - side)), round(across * (width - side))
        square = picture[:, :, top : top + side, left : left + side].float() / 255
        square = images.resize(square, self.crop, self.crop)
        return square.flip(3) if flip < 0.5 else square

    def _read(self, number: int) -> Tensor:
        """A photograph, (1, 3, H, W), uint8."""
        if number not in self._kept:
            picture = images.flatten(images.read_picture(self.paths[number]))
            height, width = picture.shape[2:]
            most = _MOST_CROPS * self.crop
            if min(height, width) > most:
                scale = most / min(height, width)
                picture = images.resize(picture, round(height * scale), round(width * scale))
            if len(self._kept) >= _KEPT:
                self._kept.pop(next(iter(self._kept)))
            self._kept[number] = (picture * 255).round().byte()
        return self._kept[number]


def _relit(square: Tensor, chance: float, gamma: float, contrast: float, level: float, *tint: float) -> Tensor:
    """A square in another light, for half of the chances. All numbers are in [0, 1]."""
    if chance < 0.5:
        return square
    exponent = _GAMMA[0] * (_GAMMA[1] / _GAMMA[0]) ** gamma
    exponents = torch.tensor([exponent * math.exp(_COLOUR_GAMMA * (2 * value - 1)) for value in tint])
    scale = _CONTRAST[0] + (_CONTRAST[1] - _CONTRAST[0]) * contrast
    return square.clamp(0, 1).pow(exponents[:, None, None]) * scale + level * (1 - scale)
