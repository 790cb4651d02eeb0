"""Read and write colour PNG and TIFF with 16 bits a channel, which Pillow truncates to 8.

Uses imagecodecs and tifffile (the extra `deep`).

Arrays are (H, W, C) uint16. C is 3 (RGB), 4 (RGBA) or, read from a PNG, 2 (grey and alpha).
"""
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# imagecodecs is untyped, and tifffile in part.

import io
import json
import logging
import struct
import zlib
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, PngImagePlugin, TiffImagePlugin

from vggfeat.errors import ImageError, imported
from vggfeat.pictures.metadata import NOTHING, Metadata, as_exif, as_texts, exif_date

Pixels = npt.NDArray[np.uint16]

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # else its warnings about damaged files go to stderr

_PNG_MODES = frozenset({"RGB;16B", "RGBA;16B", "LA;16B"})
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339
_RGB, _UNSIGNED = 2, 1
_PREMULTIPLIED, _STRAIGHT = 1, 2
_METRES_PER_INCH = 0.0254
_CHANNELS = {3: 2, 4: 6}  # the colour types of PNG


def library(name: str) -> Any:
    """Import `tifffile` or `imagecodecs`. Raises `ImageError` if it is not installed."""
    return imported(name, f"16 bits a channel need {name}", "deep", kind=ImageError)


def is_deep(image: Image.Image) -> bool:
    """Whether `decode` can read more bits of an image than Pillow. `image` is opened, and not loaded yet.

    True for 16-bit RGB, RGBA or LA in non-interlaced PNG, and for 16-bit RGB TIFF of unsigned integers.
    """
    if isinstance(image, PngImagePlugin.PngImageFile):
        return bool(image.tile) and image.tile[0].args in _PNG_MODES and not image.info.get("interlace")
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return False
    tags = cast("Mapping[int, object]", image.tag_v2)
    return (
        tags.get(_PHOTOMETRIC) == _RGB
        and tags.get(_BITS) in {(16,) * 3, (16,) * 4}
        and set(cast("tuple[int, ...]", tags.get(_SAMPLE_FORMAT, (_UNSIGNED,)))) == {_UNSIGNED}
    )


def decode(image: Image.Image, data: bytes) -> Pixels:
    """Decode the file `data` of `image`. EXIF orientation is not applied; premultiplied alpha is divided out.

    Raises the decoder's own errors if the file is damaged, and `ImageError` if the decoder is not installed.
    """
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return _decode_tiff(data)
    return library("imagecodecs").png_decode(data)


def encode_png(
    pixels: Pixels,
    icc: bytes | None = None,
    text: Mapping[str, str] | None = None,
    metadata: Metadata = NOTHING,
) -> bytes:
    """Encode pixels as the bytes of a PNG, with a profile, iTXt texts and metadata.

    Implemented here because imagecodecs' encoder takes neither profile nor text.
    """
    height, width, channels = pixels.shape
    rows = pixels.astype(">u2").view(np.uint8).reshape(height, -1)
    filtered = np.full((height, 1 + rows.shape[1]), 2, np.uint8)  # filter 2 subtracts the row above
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    parts = [_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, _CHANNELS[channels], 0, 0, 0))]
    if icc:
        parts.append(_chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(icc)))
    if metadata.dpi:
        across, down = (round(each / _METRES_PER_INCH) for each in metadata.dpi)
        parts.append(_chunk(b"pHYs", struct.pack(">IIB", across, down, 1)))
    for name, value in {**as_texts(metadata), **(text or {})}.items():
        parts.append(_chunk(b"iTXt", name.encode("ascii") + b"\0\0\0\0\0" + value.encode()))
    parts += [_chunk(b"IDAT", zlib.compress(filtered.data)), _chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def encode_tiff(
    pixels: Pixels,
    icc: bytes | None = None,
    text: Mapping[str, str] | None = None,
    metadata: Metadata = NOTHING,
) -> bytes:
    """Encode pixels as the bytes of a deflated TIFF, with a profile, metadata, and texts as JSON in ImageDescription.

    Raises `ImageError` if tifffile is not installed.
    """
    buffer = io.BytesIO()
    tags = as_exif(metadata)
    tags.pop(ExifTags.Base.DateTime, None)
    library("tifffile").imwrite(
        buffer,
        pixels,
        photometric="rgb",
        extrasamples=["unassalpha"] if pixels.shape[2] == 4 else None,
        compression="zlib",
        predictor=True,
        iccprofile=icc,
        description=json.dumps(dict(text)) if text else None,
        metadata=None,
        software=False,
        datetime=exif_date(metadata),
        resolution=metadata.dpi,
        resolutionunit="INCH" if metadata.dpi else None,
        extratags=[(int(tag), "s", 0, value, True) for tag, value in tags.items()],
    )
    return buffer.getvalue()


def _decode_tiff(data: bytes) -> Pixels:
    with library("tifffile").TiffFile(io.BytesIO(data)) as file:
        page = file.pages.first
        pixels: Pixels = page.asarray().astype(np.uint16)  # converts to this machine's byte order
        if page.planarconfig == 2:  # channels are stored as separate planes
            pixels = np.moveaxis(pixels, 0, 2)
        extra = page.extrasamples[:1]
    if pixels.shape[2] == 4 and extra == (_PREMULTIPLIED,):
        colours = pixels[..., :3] * (65535 / np.maximum(pixels[..., 3:], 1, dtype=np.float64))
        return np.concatenate([np.clip(np.rint(colours), 0, 65535).astype(np.uint16), pixels[..., 3:]], axis=2)
    return pixels if extra == (_STRAIGHT,) else pixels[..., :3]


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
