"""From an item to what the network sees: read, decode, resize, crop. Whatever goes wrong becomes a reason, in words."""

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from vggfeat.dumps.recipe import DumpRecipe, Resize
from vggfeat.dumps.sources import Item, printable
from vggfeat.errors import ImageError, VggfeatError
from vggfeat.pictures import images

Pixels = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Preparation:
    """How pictures are brought to the network: the part of a recipe that decoding needs."""

    resize: Resize = 224
    crop: int | None = 224
    minimum_size: int = 1

    @classmethod
    def of(cls, recipe: DumpRecipe) -> "Preparation":
        """What `recipe` says of it."""
        return cls(recipe.resize, recipe.crop, recipe.minimum_size)


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A picture that was read: `pixels` (3, H, W) in [0, 1], or None and the reason in `error`.

    `sha256` and `size` are those of the file's bytes; empty and 0 where it has none that could be read.
    """

    sha256: str
    size: int
    pixels: Pixels | None
    error: str = ""


def prepare(item: Item, how: Preparation) -> Prepared:
    """Read `item` once: its hash and its pixels. Raises nothing that a file can cause."""
    if item.error:
        return Prepared("", 0, None, item.error)
    digest, size = "", 0
    try:
        data = _read(item)
        digest, size = hashlib.sha256(data).hexdigest(), len(data)
        picture = images.decode_picture(data, name=item.path)
        del data
        pixels = fit(images.flatten(picture), how)
    except VggfeatError as error:
        return Prepared(digest, size, None, printable(str(error)))
    except MemoryError:
        return Prepared(digest, size, None, "it needs more memory than there is")
    return Prepared(digest, size, np.ascontiguousarray(pixels[0].numpy()))


def fit(rgb: Tensor, how: Preparation) -> Tensor:
    """Resize (1, 3, H, W) as `how` says, bilinear and antialiased, and cut out the middle: to the pixel as torchvision.

    Raises `ImageError` for a picture that is too small to be cut or for the network.
    """
    height, width = fitted(rgb.shape[2], rgb.shape[3], how)
    if how.resize is not None and max(height, width) > _LONGEST:
        raise ImageError(f"it is {rgb.shape[3]}x{rgb.shape[2]} and would become {width}x{height} pixels")
    if (height, width) != rgb.shape[2:]:
        rgb = images.resize(rgb, height, width)
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
    """(height, width) of a picture of `height` x `width` once it is resized, before it is cut."""
    if how.resize is None:
        return height, width
    if isinstance(how.resize, tuple):
        return how.resize[1], how.resize[0]
    short = min(height, width)
    return how.resize * height // short, how.resize * width // short


def side_of(item: Item, how: Preparation) -> tuple[int, int] | None:
    """(height, width) that the network will see of `item`, told from its header; None where that cannot be read."""
    if item.error:
        return None
    try:
        height, width = images.read_side(_read(item))
    except VggfeatError:
        return None
    return (how.crop, how.crop) if how.crop is not None else fitted(height, width, how)


# A picture of one row would otherwise be enlarged to whatever its length times the short side is.
_LONGEST = 65536


def _read(item: Item) -> bytes:
    if not item.member:
        return images.read_bytes(item.path)
    try:
        with open(item.path, "rb") as archive:  # noqa: PTH123 (the path may hold what a Path would tidy)
            archive.seek(item.offset)
            data = archive.read(item.length)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ImageError(f"cannot read '{item.place}': {(reason or 'the file cannot be read').lower()}") from error
    if len(data) < item.length:
        raise ImageError(f"cannot read '{item.place}': the tar file ends within it")
    return data
