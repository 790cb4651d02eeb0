"""Convert colours between an ICC profile and sRGB, by Little CMS with relative colorimetric intent.

Pillow converts 8 bits a channel, imagecodecs (the extra `deep`) floating point.
"""
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
# Pillow's ImageCms is typed in part, and imagecodecs not at all.

import io

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

from vggfeat.pictures.deep import library

Floats = npt.NDArray[np.float32]

_INTENT, _FLAGS = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
_WHITES = {"L": 255, "RGB": (255, 255, 255), "CMYK": (0, 0, 0, 0)}
_WHITE_ENOUGH = 192


def transform(icc: bytes, mode: str, *, back: bool = False) -> ImageCms.ImageCmsTransform | None:
    """The transform from the profile `icc` to sRGB, or `back`; None if the profile is broken or not one for `mode`."""
    try:
        srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        source, target = (srgb, profile) if back else (profile, srgb)
        found = ImageCms.buildTransform(source, target, mode, "RGB", _INTENT, _FLAGS)
        # Little CMS accepts some damaged profiles. A sound profile maps white to white.
        whitest = np.array(found.apply(Image.new(mode, (1, 1), _WHITES[mode])))
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None
    return found if whitest.min() > _WHITE_ENOUGH else None


def to_srgb(image: Image.Image, icc: bytes | None) -> tuple[Image.Image, bytes | None]:
    """Convert mode L, RGB or CMYK to sRGB. Also returns `icc`, or None if it was not used."""
    if icc and (found := transform(icc, image.mode)):
        return found.apply(image), icc
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    if icc and image.mode == "L" and (found := transform(icc, "RGB")):  # im.convert("L").save keeps the RGB profile
        return found.apply(rgb), icc
    return rgb, None


def convert(rgb: Floats, icc: bytes, *, back: bool = False) -> Floats:
    """Convert (H, W, 3) in [0, 1] from the RGB profile `icc` to sRGB, or `back`. Clips colours out of gamut."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    source, target = (srgb, icc) if back else (icc, srgb)
    options = {"colorspace": "rgb", "outcolorspace": "rgb", "intent": int(_INTENT), "flags": int(_FLAGS)}
    return np.clip(library("imagecodecs").cms_transform(rgb, source, target, **options), 0, 1)
