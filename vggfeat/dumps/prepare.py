"""Prepares an item for the network: read, decode, resize, crop. Errors are returned as text."""

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vggfeat.dumps.recipe import DumpRecipe, Interpolation, Resize
from vggfeat.dumps.sources import Item, Move, printable, read_member
from vggfeat.errors import ImageError, VggfeatError
from vggfeat.pictures import images

Pixels = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Preparation:
    """The part of a `DumpRecipe` that decoding needs, and where the sources have `moved` since the dump was begun."""

    resize: Resize = 224
    crop: int | None = 224
    minimum_size: int = 1
    interpolation: Interpolation = "bilinear"
    moved: Move | None = None

    @classmethod
    def of(cls, recipe: DumpRecipe, moved: Move | None = None) -> "Preparation":
        """The preparation that `recipe` asks for."""
        return cls(recipe.resize, recipe.crop, recipe.minimum_size, recipe.interpolation, moved)


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A prepared picture: `pixels` (3, H, W) in [0, 1], or None and the reason in `error`.

    `sha256` and `size` describe the bytes of the file; they are empty and 0 if it could not be read.
    """

    sha256: str
    size: int
    pixels: Pixels | None
    error: str = ""


def prepare(item: Item, how: Preparation) -> Prepared:
    """Read `item` once, for its hash and its pixels. A bad file never raises: the reason is returned."""
    if item.error:
        return Prepared("", 0, None, item.error)
    digest, size = "", 0
    item = item if how.moved is None else how.moved.found(item)
    try:
        found = _read(item)
        data = found if isinstance(found, bytes) else found.tobytes()
        digest, size = hashlib.sha256(data).hexdigest(), len(data)
        picture = images.decode_picture(data, name=item.path) if isinstance(found, bytes) else _picture(found, item)
        del data, found
        pixels = fit(images.flatten(picture), how)
    except VggfeatError as error:
        return Prepared(digest, size, None, printable(str(error)))
    except MemoryError:
        return Prepared(digest, size, None, "it needs more memory than there is")
    return Prepared(digest, size, np.ascontiguousarray(pixels[0].numpy()))


def fit(rgb: Tensor, how: Preparation) -> Tensor:
    """Resize (1, 3, H, W), antialiased unless it is `nearest`, and crop the centre, as torchvision does.

    Raises `ImageError` if the picture is too small for the crop or for the network.
    """
    height, width = fitted(rgb.shape[2], rgb.shape[3], how)
    if how.resize is not None and max(height, width) > _LONGEST:
        raise ImageError(f"it is {rgb.shape[3]}x{rgb.shape[2]} and would become {width}x{height} pixels")
    if (height, width) != rgb.shape[2:]:
        rgb = images.resize(rgb, height, width, interpolation=how.interpolation)
    if how.crop is not None:
        if min(height, width) < how.crop:
            raise ImageError(f"it is {width}x{height}, too small to cut {how.crop}x{how.crop} from")
        top, left = (round((side - how.crop) / 2) for side in (height, width))
        rgb = rgb[:, :, top : top + how.crop, left : left + how.crop]
    if min(rgb.shape[2:]) < how.minimum_size:
        raise ImageError(
            f"it is {rgb.shape[3]}x{rgb.shape[2]}, the deepest layer needs {how.minimum_size} pixels a side"
        )
    return rgb


def fitted(height: int, width: int, how: Preparation) -> tuple[int, int]:
    """The (height, width) of a picture of `height` x `width` after resizing, before cropping."""
    if how.resize is None:
        return height, width
    if isinstance(how.resize, tuple):
        return how.resize[1], how.resize[0]
    short = min(height, width)
    return how.resize * height // short, how.resize * width // short


def side_of(item: Item, how: Preparation) -> tuple[int, int] | None:
    """The (height, width) that the network will receive, from the header of `item`; None if it cannot be read."""
    if item.error:
        return None
    item = item if how.moved is None else how.moved.found(item)
    try:
        found = _read(item)
        height, width = images.read_side(found) if isinstance(found, bytes) else found.shape[:2]
    except VggfeatError:
        return None
    return (how.crop, how.crop) if how.crop is not None else fitted(height, width, how)


# Without this limit, a picture one pixel high would be enlarged to its width times the short side.
_LONGEST = 65536


def _read(item: Item) -> bytes | npt.NDArray[np.generic]:
    return read_member(item) if item.member else images.read_bytes(item.path)


def _picture(pixels: npt.NDArray[np.generic], item: Item) -> images.Picture:
    """Convert (H, W) or (H, W, C), grey, RGB or RGBA: uint8, uint16, bool, or floating in [0, 1]."""
    white = {"uint8": 255, "uint16": 65535}.get(pixels.dtype.name, 1)
    if white == 1 and not (pixels.min() >= 0 and pixels.max() <= 1):  # true of NaN
        raise ImageError(f"cannot read '{item.place}': its values span [{pixels.min()}, {pixels.max()}], not [0, 1]")
    values = torch.from_numpy(np.divide(pixels, white, dtype=np.float32)).reshape(*pixels.shape[:2], -1)
    planes = values.permute(2, 0, 1)[None].contiguous()
    colours = planes[:, :3] if planes.shape[1] >= 3 else planes.expand(1, 3, -1, -1).contiguous()
    return images.Picture(colours, planes[:, 3:] if planes.shape[1] == 4 else None)
