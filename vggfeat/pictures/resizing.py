"""Change the size of (N, C, H, W) tensors."""

import math

import torch
from torch.nn.functional import interpolate

from vggfeat.errors import check_number
from vggfeat.pictures.ranges import check_tensor
from vggfeat.pictures.sizes import Interpolation


def fit(height: int, width: int, long_side: int, *, enlarge: bool = False) -> tuple[int, int]:
    """The (height, width) of a picture shrunk to at most `long_side`, each at least 1.

    A smaller picture keeps its size, unless `enlarge` is true.

    Raises `InputError` unless all three are at least 1.

    >>> fit(300, 600, 100)
    (50, 100)
    """
    for name, side in (("height", height), ("width", width), ("long_side", long_side)):
        check_number(name, side, 1)
    longest = max(height, width)
    scale = long_side / longest if enlarge else min(1.0, long_side / longest)
    return max(1, round(height * scale)), max(1, round(width * scale))


def resize(
    rgb: torch.Tensor, height: int, width: int, *, wrap: bool = False, interpolation: Interpolation = "bilinear"
) -> torch.Tensor:
    """Resize (N, C, H, W) in [0, 1] to (N, C, height, width) in [0, 1], bilinear and antialiased by default.

    Matches Pillow's BILINEAR and BICUBIC, and torchvision's transforms, whose NEAREST_EXACT is `nearest`. Bicubic is
    antialiased too, and cut to [0, 1]. With `wrap`, pixels beyond an edge are taken from the opposite edge, so a
    seamless tile stays seamless; it is bilinear. Raises `InputError` if `rgb` is not a floating tensor of that shape,
    or `height` or `width` is less than 1.
    """
    check_tensor("rgb", rgb, ("N", "C", "H", "W"))
    for name, side in (("height", height), ("width", width)):
        if side < 1:  # a side may be symbolic
            check_number(name, side, 1)
    if interpolation == "nearest":
        return interpolate(rgb, (height, width), mode="nearest-exact")
    if interpolation == "bicubic":
        return interpolate(rgb, (height, width), mode="bicubic", antialias=True).clamp_(0, 1)
    if not wrap:
        return interpolate(rgb, (height, width), mode="bilinear", antialias=True)
    for axis, after in ((2, height), (3, width)):
        # The narrowest border that is a whole number of pixels at both sizes, doubled to span the filter.
        before = rgb.shape[axis]
        shared = math.gcd(before, after)
        border = min(before, 2 * before // shared)
        grown = torch.cat([rgb.narrow(axis, before - border, border), rgb, rgb.narrow(axis, 0, border)], dim=axis)
        cut = border * after // before
        sides = (after + 2 * cut, rgb.shape[3]) if axis == 2 else (rgb.shape[2], after + 2 * cut)
        rgb = interpolate(grown, sides, mode="bilinear", antialias=True).narrow(axis, cut, after)
    return rgb.contiguous()


def middle_square(rgb: torch.Tensor, shorter: int, side: int) -> torch.Tensor:
    """Resize the shorter side of (N, C, H, W) to `shorter` pixels, then cut out the middle `side` x `side`.

    torchvision's presets do this with 256 and 224 pixels. Raises `InputError` as `resize` does.
    """
    check_tensor("rgb", rgb, ("N", "C", "H", "W"))
    height, width = rgb.shape[2:]
    least = min(height, width)
    return middle(resize(rgb, int(shorter * height / least), int(shorter * width / least)), side)


def middle(rgb: torch.Tensor, side: int) -> torch.Tensor:
    """The middle `side` x `side` pixels of (N, C, H, W), whose sides are at least `side`."""
    top, left = (round((length - side) / 2) for length in rgb.shape[2:])
    return rgb[:, :, top : top + side, left : left + side]
