"""Read picture files into tensors.

Grey, palette, CMYK and Lab pictures of 1, 8 or 16 bits, with any EXIF orientation and ICC profile, become upright sRGB.
Grey keeps 16 bits. Colour keeps 16 bits a channel in non-interlaced PNG and in RGB TIFF; in other files it is truncated
to 8. The transparent colour of a PNG with 2 or 4 bits, and the PNG chunks gAMA and cHRM, are ignored. Pillow's warnings
are suppressed; libtiff and libpng may still print messages about a damaged file to stderr.
"""

import io
import json
import os
import re
import stat
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import numpy.typing as npt
import torch
from PIL import ExifTags, Image, ImageFile, PngImagePlugin, UnidentifiedImageError

from vggfeat import files
from vggfeat.errors import ImageError, imported
from vggfeat.pictures import deep, metadata, profiles
from vggfeat.pictures.guard import quiet, refusing
from vggfeat.pictures.metadata import Metadata

MAX_PIXELS = 200_000_000
"""The most pixels of a picture that is read, unless the caller says otherwise."""

_limits = [MAX_PIXELS]

_HEIC = re.compile(rb"....ftyp(heic|heix|hevc|heim|heis|mif1|msf1)", re.DOTALL)
_DRAWINGS = frozenset({"EPS", "WMF"})  # Pillow renders these by running Ghostscript or Windows
_SILENT = frozenset({"JPEG", "MPO"})  # formats whose decoding cannot warn
_COLOURLESS = frozenset({"1", "L", "LA", "La"})

# {EXIF orientation: axes to flip to make the picture upright}. From 5 on, height and width are swapped first.
_UPRIGHT, _SIDEWAYS = 1, 5
_FLIPS = {2: (3,), 3: (2, 3), 4: (2,), 5: (), 6: (3,), 7: (2, 3), 8: (2,)}


@dataclass(frozen=True, eq=False)
class Picture:
    """An upright picture in sRGB.

    Attributes:
        rgb: (1, 3, H, W), float32 in [0, 1]. Where `alpha` is 0, it holds the colour stored in the file.
        alpha: (1, 1, H, W), float32 in [0, 1], 1 is opaque; None if the file has no transparency.
        icc: the profile that the colours were converted from; None if they were taken as sRGB.
        bits: 16 if a channel has more than 8, else 8.

    >>> Picture(torch.rand(1, 3, 4, 6)).bits
    8
    """

    rgb: torch.Tensor
    alpha: torch.Tensor | None = None
    icc: bytes | None = field(default=None, repr=False)
    bits: int = 8


def read_picture(path: str | os.PathLike[str], *, max_pixels: int | None = None) -> Picture:
    """Read the first frame of the file at `path`, in any raster format that Pillow and its plugins read.

    A profile that is broken or of another colour space is ignored, and so is unreadable EXIF. Grey of 16-bit and 32-bit
    integers is divided by 65535; floats are kept as they are.

    Args:
        path: the file.
        max_pixels: a larger picture is refused after its header is read, before it is decoded; None allows
            200 million, or what `--max-megapixels` of a command says.

    Raises:
        ImageError: the file is missing, unreadable, damaged, truncated, not a picture or too large, holds integers
            outside [0, 65535] or floats outside [0, 1], or has 16-bit colour and the extra `deep` is not installed.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     Image.new("RGB", (6, 4), "white").save(f"{folder}/a.png")
    ...     picture = read_picture(f"{folder}/a.png")
    >>> picture.rgb.shape, picture.alpha, picture.bits
    (torch.Size([1, 3, 4, 6]), None, 8)
    """
    with opened(path, max_pixels=max_pixels) as image:
        return _picture(image, max_pixels or _limits[-1])


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a picture file, for `decode_picture`. Raises `ImageError` for a file that cannot be read."""
    _check_no_url(path)
    path = Path(path)
    with refusing(f"cannot read {str(path)!r}", "the file cannot be read"):
        _check_readable(path)
        return path.read_bytes()


def decode_picture(data: bytes, *, name: str = "the picture", max_pixels: int | None = None) -> Picture:
    """Decode the bytes of a picture file, as `read_picture` does. Raises `ImageError`, which names it `name`."""
    with refusing(f"cannot read {name!r}", "the file is damaged"):
        if not data:
            raise ImageError("it is empty")
        with _opened(io.BytesIO(data), max_pixels) as image:
            return _picture(image, max_pixels or _limits[-1])


def read_side(data: bytes) -> tuple[int, int]:
    """(height, width) of the upright picture in the bytes of a file, from its header. Raises `ImageError`."""
    with refusing("cannot read the picture", "the file is damaged"), _opened(io.BytesIO(data), None) as image:
        return (image.width, image.height) if _orientation(image) >= _SIDEWAYS else (image.height, image.width)


def read_text(path: str | os.PathLike[str], *, max_pixels: int | None = None) -> dict[str, str]:
    """The texts that `write_picture` stored in the file at `path`; empty if there are none.

    For a PNG these are all its text chunks, whichever program wrote them. Raises `ImageError` as `read_picture` does.
    """
    with opened(path, max_pixels=max_pixels) as image, quiet(max_pixels or _limits[-1]):
        return _texts(image)


def read_metadata(path: str | os.PathLike[str], *, max_pixels: int | None = None) -> Metadata:
    """Author, copyright, date and resolution of the file at `path`. Raises `ImageError` as `read_picture` does.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     Image.new("RGB", (6, 4)).save(f"{folder}/a.tif", dpi=(300, 300))
    ...     read_metadata(f"{folder}/a.tif").dpi
    (300.0, 300.0)
    """
    with opened(path, max_pixels=max_pixels) as image, quiet(max_pixels or _limits[-1]):
        return metadata.of_image(image)


def from_pil(image: Image.Image) -> Picture:
    """Convert a PIL image with its EXIF orientation and ICC profile, as `read_picture` converts a file.

    Raises `ImageError` if it has no pixels, its file is damaged, or its values are out of range.

    >>> from_pil(Image.new("L", (6, 4))).rgb.shape
    torch.Size([1, 3, 4, 6])
    """
    with refusing("cannot read the PIL image", "its file is damaged"):
        return _picture(image)


def flatten(picture: Picture) -> torch.Tensor:
    """The colours of a picture without transparency, (1, 3, H, W): transparent parts become the mean visible colour."""
    if picture.alpha is None:
        return picture.rgb
    visible = (picture.rgb * picture.alpha).sum((2, 3), keepdim=True)
    mean = visible / picture.alpha.sum().clamp_min(1e-6)
    return picture.rgb * picture.alpha + mean * (1 - picture.alpha)


@contextmanager
def pixel_limit(most: int) -> Generator[None]:
    """Read pictures of up to `most` pixels inside the block, in all threads, where the caller names no limit."""
    _limits.append(most)
    try:
        yield
    finally:
        _limits.remove(most)


@contextmanager
def opened(path: str | os.PathLike[str], *, max_pixels: int | None = None) -> Generator[Image.Image]:
    """Open a picture file for the block: only its header is read. Raises `ImageError` as `read_picture` does.

    Errors in the block count as damage of the file.
    """
    _check_no_url(path)
    path = Path(path)
    with refusing(f"cannot read {str(path)!r}", "the file is damaged"):
        _check_readable(path)
        with path.open("rb") as file, _opened(file, max_pixels) as image:
            yield image


@contextmanager
def _opened(file: BinaryIO, max_pixels: int | None) -> Generator[Image.Image]:
    """Open an image and read only its header. Raises `ImageError` if it is too large or a vector drawing."""
    hint = "" if max_pixels else " (max_pixels, or --max-megapixels, allows more)"
    max_pixels = max_pixels or _limits[-1]
    try:
        files.picture_endings()  # registers the plugin for HEIC, if it is installed
        with quiet(max_pixels):
            try:
                image = Image.open(file)
            except UnidentifiedImageError:
                file.seek(0)
                if _HEIC.match(file.read(12)):
                    imported("pillow_heif", "HEIC needs pillow-heif", "heic", kind=ImageError)
                raise
        if image.format in _DRAWINGS:
            raise ImageError("it is a vector drawing, not a raster picture")
        if (pixels := image.width * image.height) > max_pixels:
            raise ImageError(
                f"it has {image.width} x {image.height} = {pixels} pixels, the limit is {max_pixels}{hint}"
            )
        yield image
    except Image.DecompressionBombError as error:
        raise ImageError(f"it has more than {2 * max_pixels} pixels, the limit is {max_pixels}{hint}") from error


def _texts(image: Image.Image) -> dict[str, str]:
    if isinstance(image, PngImagePlugin.PngImageFile):
        return {key: str(value) for key, value in image.text.items()}
    try:
        texts = json.loads(image.getexif().get(ExifTags.Base.ImageDescription, ""))
    except Exception:  # noqa: BLE001 - another program's text, or EXIF that Pillow cannot parse
        return {}
    if not isinstance(texts, dict):
        return {}
    named = cast("dict[str, object]", texts)
    return {key: value for key, value in named.items() if isinstance(value, str)}


def _check_no_url(path: str | os.PathLike[str]) -> None:
    """Raise `ImageError` for a URL. As a path it would lose a slash."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text := os.fspath(path)):
        raise ImageError(f"cannot read {text!r}: it is a URL, download it first")


def _check_readable(path: Path) -> None:
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        link = f": it is a link to {str(path.readlink())!r}" if path.is_symlink() else files.similar_names(path)
        raise ImageError(f"no such file{link}") from None
    if stat.S_ISDIR(status.st_mode):
        raise ImageError("it is a folder")
    if not stat.S_ISREG(status.st_mode):
        raise ImageError("it is not a regular file")
    if not status.st_size:
        raise ImageError("it is empty")


def _picture(image: Image.Image, max_pixels: int | None = None) -> Picture:
    data = _whole_file(image) if deep.is_deep(image) else None
    # getexif() loads a PNG and hides errors in its pixels, so other images are loaded first. For deep files it is
    # called before loading: Pillow rotates a TIFF as it loads it, but not `data`.
    orientation = _orientation(image) if data else _UPRIGHT
    # `quiet` holds a lock, without which threads decode JPEGs in parallel.
    with nullcontext() if image.format in _SILENT else quiet(max_pixels):
        image.load()
    if not image.width * image.height:
        raise ImageError(f"it has no pixels: its size is {image.width} x {image.height}")
    if orientation == _UPRIGHT:
        orientation = _orientation(image)
    picture = _deep_colour(image, data) if data else _colour(image)
    alpha = None if picture.alpha is None else _turned(picture.alpha, orientation)
    return replace(picture, rgb=_turned(picture.rgb, orientation), alpha=alpha)


def _colour(image: Image.Image) -> Picture:
    """Convert a loaded image, without applying its orientation."""
    icc: bytes | None = image.info.get("icc_profile")
    alpha = None
    if image.mode[0] in "IF":
        grey = _deep_grey(image)
        if isinstance(clear := image.info.get("transparency"), int):
            alpha = _tensor(np.array(image)[..., None] != clear, 1)
        # The profile is sampled at 256 greys and interpolated: applied to the pixels it would cut them to 8 bits.
        ramp, icc = profiles.to_srgb(Image.fromarray(np.arange(256, dtype=np.uint8)[None]), icc)
        channels: list[npt.NDArray[np.float64]] = [
            np.interp(grey * 255, np.arange(256), curve) for curve in np.array(ramp)[0].T / 255
        ]
        return Picture(_tensor(np.stack(channels, axis=-1), 1), alpha, icc, 16)
    plain = "L" if image.mode in _COLOURLESS else "CMYK" if image.mode == "CMYK" else "RGB"
    if image.has_transparency_data and plain in {"L", "RGB"}:
        image = image.convert("LA" if plain == "L" else "RGBA")
        alpha = _tensor(np.array(image.getchannel("A"))[..., None], 255)
    image, icc = profiles.to_srgb(image if image.mode == plain else image.convert(plain), icc)
    return Picture(_tensor(np.array(image), 255), alpha, icc)


def _orientation(image: Image.Image) -> int:
    try:
        with quiet():
            found = image.getexif().get(ExifTags.Base.Orientation, _UPRIGHT)
    except Exception:  # noqa: BLE001 - Pillow's EXIF parser raises many types of error; the pixels are still good
        return _UPRIGHT
    return found if found in _FLIPS else _UPRIGHT


def _turned(x: torch.Tensor, orientation: int) -> torch.Tensor:
    """Make (N, C, H, W) of an EXIF orientation upright."""
    if orientation >= _SIDEWAYS:
        x = x.transpose(2, 3)
    return x.flip(_FLIPS[orientation]).contiguous() if orientation in _FLIPS else x


def _whole_file(image: Image.Image) -> bytes | None:
    if not (isinstance(image, ImageFile.ImageFile) and image.fp):
        return None
    place = image.fp.tell()
    image.fp.seek(0)
    data = image.fp.read()
    image.fp.seek(place)
    return data


def _deep_colour(image: Image.Image, data: bytes) -> Picture:
    """Decode a file with 16 bits a channel, without applying its orientation."""
    icc: bytes | None = image.info.get("icc_profile")
    if icc and not profiles.transform(icc, "RGB"):
        icc = None
    pixels = deep.decode(image, data)
    if pixels.shape[2] == 2:
        pixels = pixels[..., [0, 0, 0, 1]]
    rgb = (pixels[..., :3] / np.float32(65535)).astype(np.float32)
    if icc:
        rgb = profiles.convert(rgb, icc)
    alpha = _tensor(pixels[..., 3:], 65535) if pixels.shape[2] == 4 else None
    return Picture(_tensor(rgb, 1), alpha, icc, 16)


def _deep_grey(image: Image.Image) -> npt.NDArray[np.float64]:
    values = np.array(image, dtype=np.float64)
    most = 1 if image.mode == "F" else 65535
    if not (values.min() >= 0 and values.max() <= most):
        raise ImageError(f"its values span [{values.min():g}, {values.max():g}], not [0, {most}]")
    return values / most


def _tensor(pixels: npt.NDArray[np.generic], white: int) -> torch.Tensor:
    """(H, W, C) numbers -> (1, C, H, W) float32, divided by `white`."""
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    return tensor.to(torch.float32, memory_format=torch.contiguous_format).div_(white)
