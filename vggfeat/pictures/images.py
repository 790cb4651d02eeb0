"""The only place that opens or saves picture files.

Whatever a file holds (grey, palette, CMYK, Lab, 1, 8 or 16 bits, any EXIF orientation, any ICC profile) comes in as
upright sRGB. PNG that is not interlaced keeps 16 bits a channel, and so does TIFF that is uncompressed or deflated,
unless it has a profile made of tables. Elsewhere Pillow's limits are ours: colour of 16 bits is cut to its upper 8
(grey keeps all 16), profiles are applied in 8 bits, and the one transparent colour that a PNG of 2 or 4 bits may name
is not seen.
The PNG chunks gAMA and cHRM are not applied. Pillow's warnings are not shown; what libtiff itself says of a damaged
TIFF on the process's stderr is.
"""

import difflib
import io
import itertools
import json
import math
import os
import stat
import textwrap
import threading
import warnings
from collections.abc import Callable, Collection, Generator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch
from PIL import ExifTags, Image, ImageCms, ImageFile, PngImagePlugin, UnidentifiedImageError
from torch.nn.functional import interpolate

from vggfeat import files
from vggfeat.errors import ImageError, InputError
from vggfeat.pictures import deep
from vggfeat.pictures import icc as profiles


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture, upright and in sRGB.

    `rgb`: (1, 3, H, W), float32 in [0, 1]. Where `alpha` is 0 it holds the colour that the file has there.
    `alpha`: (1, 1, H, W), float32 in [0, 1], 1 is opaque; None where the file has no transparency.
    `icc`: the profile the colours were converted from; None where they were taken as sRGB.
    `bits`: 16 where each channel has more than 8, else 8.
    """

    rgb: torch.Tensor
    alpha: torch.Tensor | None = None
    icc: bytes | None = field(default=None, repr=False)
    bits: int = 8


class _Kind(NamedTuple):
    """How files of one ending are saved."""

    format: str
    options: Mapping[str, object]
    alpha: bool = True
    deep: "Callable[[deep.Pixels, bytes | None, Mapping[str, str]], bytes] | None" = None


_JPEG = _Kind("JPEG", {"quality": 95, "subsampling": 0}, alpha=False)
_TIFF = _Kind("TIFF", {"compression": "tiff_adobe_deflate"}, deep=deep.encode_tiff)
_KINDS = {
    ".png": _Kind("PNG", {}, deep=deep.encode_png),
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".webp": _Kind("WEBP", {"lossless": True, "exact": True}),  # lossy WebP halves the resolution of the colour
    ".tif": _TIFF,
    ".tiff": _TIFF,
}

_DRAWINGS = frozenset({"EPS", "WMF"})  # Pillow renders these by running Ghostscript or Windows
_STANDING = (Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.FLIP_TOP_BOTTOM, Image.Transpose.ROTATE_180)

_SILENT = frozenset({"JPEG", "MPO"})  # formats whose decoding cannot warn
_COLOURLESS = frozenset({"1", "L", "LA", "La"})
_WHITES = {"L": 255, "RGB": (255, 255, 255), "CMYK": (0, 0, 0, 0)}
_WHITE_ENOUGH = 192
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TURNS: Mapping[Image.Transpose, Callable[[deep.Pixels], deep.Pixels]] = {
    Image.Transpose.FLIP_LEFT_RIGHT: np.fliplr,
    Image.Transpose.ROTATE_180: lambda pixels: pixels[::-1, ::-1],
    Image.Transpose.FLIP_TOP_BOTTOM: np.flipud,
    Image.Transpose.TRANSPOSE: lambda pixels: pixels.swapaxes(0, 1),
    Image.Transpose.ROTATE_270: lambda pixels: np.rot90(pixels, 3),
    Image.Transpose.TRANSVERSE: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    Image.Transpose.ROTATE_90: np.rot90,
}


def read_picture(path: str | os.PathLike[str], *, max_pixels: int = 200_000_000) -> Picture:
    """Read the first frame of the file at `path`, in any raster format that Pillow and its plugins know.

    A profile that is broken, or made for another kind of colour, counts as absent, and so does unreadable EXIF.
    Grey of 16 bits is divided by 65535, of 32-bit integers likewise; floats are taken as they are.
    Raises ImageError, and nothing else, if the file is missing, unreadable, damaged, truncated, not a picture, larger
    than `max_pixels` (told from its header, before it is decoded), or holds integers outside [0, 65535] or floats
    outside [0, 1].
    """
    path = Path(path)
    with _refusing(f"cannot read {str(path)!r}", "the file is damaged"):
        _check_readable(path)
        with path.open("rb") as file, _opened(file, max_pixels) as image:
            return _picture(image, max_pixels)


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a file that `decode_picture` may read. Raises ImageError for what `read_picture` would not open."""
    path = Path(path)
    with _refusing(f"cannot read {str(path)!r}", "the file cannot be read"):
        _check_readable(path)
        return path.read_bytes()


def decode_picture(data: bytes, *, name: str = "the picture", max_pixels: int = 200_000_000) -> Picture:
    """The picture in the bytes of a file, as `read_picture` gives it. Raises ImageError, which calls it `name`."""
    with _refusing(f"cannot read {name!r}", "the file is damaged"):
        if not data:
            raise ImageError("it is empty")
        with _opened(io.BytesIO(data), max_pixels) as image:
            return _picture(image, max_pixels)


def read_side(data: bytes) -> tuple[int, int]:
    """(height, width) of the upright picture in the bytes of a file, told from its header. Raises `ImageError`."""
    with _refusing("cannot read the picture", "the file is damaged"), _opened(io.BytesIO(data), 200_000_000) as image:
        turn = _orientation(image)
        sideways = turn is not None and turn not in _STANDING
        return (image.width, image.height) if sideways else (image.height, image.width)


def read_text(path: str | os.PathLike[str], *, max_pixels: int = 200_000_000) -> dict[str, str]:
    """The texts that `write_picture` put into the file at `path`; empty where it has none.

    Of a PNG these are all its text chunks, whoever wrote them. Raises what `read_picture` does.
    """
    path = Path(path)
    with _refusing(f"cannot read {str(path)!r}", "the file is damaged"):
        _check_readable(path)
        with path.open("rb") as file, _opened(file, max_pixels) as image, _quiet(max_pixels):
            return _texts(image)


def from_pil(image: Image.Image) -> Picture:
    """Convert `image`, with the EXIF orientation and the ICC profile it carries, as `read_picture` does a file.

    Raises ImageError if it has no pixels, if its file turns out damaged, or if its values are out of range.
    """
    with _refusing("cannot read the PIL image", "its file is damaged"):
        return _picture(image)


def flatten(picture: Picture) -> torch.Tensor:
    """The colours of a picture, (1, 3, H, W), with the mean of what is visible where it is transparent."""
    if picture.alpha is None:
        return picture.rgb
    visible = (picture.rgb * picture.alpha).sum((2, 3), keepdim=True)
    mean = visible / picture.alpha.sum().clamp_min(1e-6)
    return picture.rgb * picture.alpha + mean * (1 - picture.alpha)


def to_pil(rgb: torch.Tensor, alpha: torch.Tensor | None = None) -> Image.Image:
    """Round a picture to 8 bits, mode RGB or, with `alpha`, RGBA.

    `rgb`: (1, 3, H, W) and `alpha`: (1, 1, H, W), floating, any device. Values are clamped to [0, 1], multiplied by
    255 and rounded half to even. Raises InputError on another shape or type, ImageError on NaN and infinity.
    """
    _check_picture(rgb, alpha)
    image = Image.fromarray(_eight_bits(rgb))
    if alpha is not None:
        image.putalpha(Image.fromarray(_eight_bits(alpha)[..., 0]))
    return image


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise the ImageError that `write_picture` would raise because of `path`; call it before long work."""
    _target(Path(path))


def write_picture(
    path: str | os.PathLike[str],
    rgb: torch.Tensor,
    *,
    alpha: torch.Tensor | None = None,
    icc: bytes | None = None,
    text: Mapping[str, str] | None = None,
    bits: int = 8,
) -> None:
    """Write a picture as its ending says: .png, .jpg, .jpeg (quality 95, 4:4:4), .webp (lossless), .tif, .tiff.

    `rgb` and `alpha`: as in `to_pil`, the colours in sRGB. JPEG has no transparency: there `alpha` is dropped and
    `rgb` is written as it stands.
    `icc`: the profile to write in, such as `Picture.icc`: the colours are converted to it and it is embedded. A profile
    that is broken or not of RGB (that of a CMYK or grey original) is left out. Without one the file is plain sRGB.
    `text`: what `read_text` gives back: names of 1 to 79 printable ASCII characters, and any text without the character
    NUL. PNG has an iTXt chunk each; elsewhere they are one JSON object in the EXIF tag ImageDescription.
    `bits`: 8, or 16 a channel in PNG and TIFF; JPEG and WebP have 8.
    The file appears whole or not at all: it is written beside its place, then renamed. It keeps
    the mode of the file it replaces; a symbolic link stays, and what it points to is replaced.
    Raises ImageError if the file cannot be written, InputError on a bad `text` or `bits`, and what `to_pil` raises.
    """
    target = _target(Path(path))
    _check_text(text or {})
    if bits not in {8, 16}:
        raise InputError(f"bits is {bits}: a channel has 8 or 16")
    kind = _KINDS[Path(path).suffix.lower()]
    if bits == 16 and kind.deep:
        _check_picture(rgb, alpha)
        levels = _levels(rgb, 65535), None if alpha is None else _levels(alpha, 65535)
        with _refusing(f"cannot write {str(path)!r}", "it cannot be encoded"):
            files.write(target, _encode_deep(*levels, kind.deep, icc, text or {}))
        return
    image = to_pil(rgb, alpha)
    with _refusing(f"cannot write {str(path)!r}", "Pillow refuses it"):
        files.write(target, _encode(image, kind, icc, text or {}))


def fit(height: int, width: int, long_side: int) -> tuple[int, int]:
    """Return the (height, width) of a picture shrunk to at most `long_side`: never enlarged, each at least 1.

    Raises InputError unless all three are at least 1.
    """
    if min(height, width, long_side) < 1:
        raise InputError(f"sizes are at least 1, not height {height}, width {width}, long_side {long_side}")
    longest = max(height, width)
    scale = min(1.0, long_side / longest)
    return max(1, round(height * scale)), max(1, round(width * scale))


def resize(rgb: torch.Tensor, height: int, width: int, *, wrap: bool = False) -> torch.Tensor:
    """Resize (N, C, H, W) in [0, 1] to (N, C, height, width) in [0, 1]: bilinear, antialiased.

    As Pillow's BILINEAR and torchvision's transforms do it, so that style targets and metrics compare with theirs.
    With `wrap` the pixels beyond an edge are those at the opposite one, so that what tiles goes on tiling.
    Raises InputError if `rgb` is not a floating tensor of that shape, or `height` or `width` is less than 1.
    """
    _check_tensor("rgb", rgb, ("N", "C", "H", "W"))
    if min(height, width) < 1:
        raise InputError(f"height and width are at least 1, not {height} and {width}")
    if not wrap:
        return interpolate(rgb, (height, width), mode="bilinear", antialias=True)
    for axis, after in ((2, height), (3, width)):
        # The least border that is a whole number of pixels at either size, twice to span the filter.
        before = rgb.shape[axis]
        shared = math.gcd(before, after)
        border = min(before, 2 * before // shared)
        grown = torch.cat([rgb.narrow(axis, before - border, border), rgb, rgb.narrow(axis, 0, border)], dim=axis)
        cut = border * after // before
        sides = (after + 2 * cut, rgb.shape[3]) if axis == 2 else (rgb.shape[2], after + 2 * cut)
        rgb = interpolate(grown, sides, mode="bilinear", antialias=True).narrow(axis, cut, after)
    return rgb.contiguous()


def middle_square(rgb: torch.Tensor, shorter: int, side: int) -> torch.Tensor:
    """Bring the shorter side of (N, C, H, W) to `shorter` pixels, and cut out the middle `side` x `side`.

    As torchvision's presets do it, of 256 and 224 pixels. Raises InputError as `resize` does.
    """
    _check_tensor("rgb", rgb, ("N", "C", "H", "W"))
    height, width = rgb.shape[2:]
    least = min(height, width)
    return middle(resize(rgb, int(shorter * height / least), int(shorter * width / least)), side)


def middle(rgb: torch.Tensor, side: int) -> torch.Tensor:
    """The middle `side` x `side` pixels of (N, C, H, W), neither side of which is less."""
    top, left = (round((length - side) / 2) for length in rgb.shape[2:])
    return rgb[:, :, top : top + side, left : left + side]


@contextmanager
def _refusing(what: str, otherwise: str) -> Generator[None]:
    """Make of whatever goes wrong inside one ImageError of one line: `what`, then the reason."""
    try:
        yield
    except Exception as error:
        raise ImageError(f"{what}: {_reason(error, otherwise)}") from error


def _reason(error: Exception, otherwise: str) -> str:
    text = textwrap.shorten(str(error), 160, placeholder="...") or type(error).__name__
    if isinstance(error, ImageError):
        return str(error)
    if isinstance(error, UnidentifiedImageError):
        return "it is not a picture Pillow can read"
    if isinstance(error, MemoryError):
        return "it needs more memory than there is"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    if "truncated" in text.lower():
        return "the file is truncated"
    return f"{otherwise} ({text})"


_PILLOW = threading.RLock()


@contextmanager
def _quiet(max_pixels: int | None = None) -> Generator[None]:
    """Ignore Pillow's warnings and, for a while, let `max_pixels` be its limit; one thread at a time.

    Both are settings of the whole process: two threads that saved and restored them in turn would leave them changed.
    """
    with _PILLOW, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        limit = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = limit if max_pixels is None else max_pixels
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


@contextmanager
def _opened(file: BinaryIO, max_pixels: int) -> Generator[Image.Image]:
    """The picture whose header is read, and inside one ImageError for what is too large."""
    try:
        with _quiet(max_pixels):
            image = Image.open(file)
        if image.format in _DRAWINGS:
            raise ImageError("it is a drawing, not a picture")
        if (pixels := image.width * image.height) > max_pixels:
            raise ImageError(f"it has {image.width} x {image.height} = {pixels} pixels, the limit is {max_pixels}")
        yield image
    except Image.DecompressionBombError as error:
        raise ImageError(f"it has more than {2 * max_pixels} pixels, the limit is {max_pixels}") from error


def _texts(image: Image.Image) -> dict[str, str]:
    if isinstance(image, PngImagePlugin.PngImageFile):
        return {key: str(value) for key, value in image.text.items()}
    try:
        texts = json.loads(image.getexif().get(ExifTags.Base.ImageDescription, ""))
    except Exception:  # noqa: BLE001 - whatever else the tag holds, or Pillow's EXIF parser makes of it, is not ours
        return {}
    if not isinstance(texts, dict):
        return {}
    named = cast("dict[str, object]", texts)
    return {key: value for key, value in named.items() if isinstance(value, str)}


def _check_readable(path: Path) -> None:
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise ImageError(f"no such file{_near(path)}") from None
    if stat.S_ISDIR(status.st_mode):
        raise ImageError("it is a folder")
    if not stat.S_ISREG(status.st_mode):
        raise ImageError("it is not a regular file")
    if not status.st_size:
        raise ImageError("it is empty")


def _near(path: Path) -> str:
    try:
        names = {name.name.lower(): name.name for name in itertools.islice(path.parent.iterdir(), 2000)}
    except OSError:
        return ""
    close = [names[match] for match in difflib.get_close_matches(path.name.lower(), names)]
    return f"; near {'is' if len(close) == 1 else 'are'} {', '.join(map(repr, close))}" if close else ""


def _picture(image: Image.Image, max_pixels: int | None = None) -> Picture:
    data = _whole_file(image) if deep.is_deep(image) else None
    turn = _orientation(image) if data else None  # Pillow turns a TIFF while it loads it
    with nullcontext() if image.format in _SILENT else _quiet(max_pixels):  # so that threads decode JPEGs side by side
        image.load()
    if not image.width * image.height:
        raise ImageError(f"it has no pixels: its size is {image.width} x {image.height}")
    if data:
        turn = _orientation(image) if turn is None else turn
        if picture := _deep_colour(image, data, turn):
            return picture
    image = _upright(image)
    icc: bytes | None = image.info.get("icc_profile")
    alpha = None
    if image.mode[0] in "IF":
        grey = _deep_grey(image)
        if isinstance(clear := image.info.get("transparency"), int):
            alpha = _tensor(np.array(image)[..., None] != clear, 1)
        # The profile is sampled at 256 greys and interpolated: applied to the pixels it would cut them to 8 bits.
        ramp, icc = _to_srgb(Image.fromarray(np.arange(256, dtype=np.uint8)[None]), icc)
        channels: list[npt.NDArray[np.float64]] = [
            np.interp(grey * 255, np.arange(256), curve) for curve in np.array(ramp)[0].T / 255
        ]
        return Picture(_tensor(np.stack(channels, axis=-1), 1), alpha, icc, 16)
    plain = "L" if image.mode in _COLOURLESS else "CMYK" if image.mode == "CMYK" else "RGB"
    if image.has_transparency_data and plain in {"L", "RGB"}:
        image = image.convert("LA" if plain == "L" else "RGBA")
        alpha = _tensor(np.array(image.getchannel("A"))[..., None], 255)
    image, icc = _to_srgb(_in_mode(image, plain), icc)
    return Picture(_tensor(np.array(image), 255), alpha, icc)


def _upright(image: Image.Image) -> Image.Image:
    method = _orientation(image)
    return image if method is None else image.transpose(method)


def _orientation(image: Image.Image) -> Image.Transpose | None:
    try:
        with _quiet():
            return _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 - Pillow's EXIF parser raises what it likes, and the pixels are good all the same
        return None


def _whole_file(image: Image.Image) -> bytes | None:
    if not (isinstance(image, ImageFile.ImageFile) and image.fp):
        return None
    place = image.fp.tell()
    image.fp.seek(0)
    data = image.fp.read()
    image.fp.seek(place)
    return data


def _deep_colour(image: Image.Image, data: bytes, turn: Image.Transpose | None) -> Picture | None:
    """The picture of a file of 16 bits a channel; None if its profile can only be applied in 8."""
    icc: bytes | None = image.info.get("icc_profile")
    if not (icc and _transform(icc, "RGB")):
        icc = None
    source = profiles.parse(icc) if icc else None
    if icc and not source:
        return None
    pixels = deep.decode(image, data)
    if turn is not None:
        pixels = _TURNS[turn](pixels)
    if pixels.shape[2] == 2:
        pixels = pixels[..., [0, 0, 0, 1]]
    clear = image.info.get("transparency")
    seen = (
        pixels[..., 3:] if pixels.shape[2] == 4 else (pixels != clear).any(2, keepdims=True) * 65535 if clear else None
    )
    rgb = (pixels[..., :3] / np.float32(65535)).astype(np.float32)
    if source:
        rgb = profiles.convert(rgb, source, profiles.srgb())
    return Picture(_tensor(rgb, 1), None if seen is None else _tensor(seen.astype(np.float32), 65535), icc, 16)


def _deep_grey(image: Image.Image) -> npt.NDArray[np.float64]:
    values = np.array(image, dtype=np.float64)
    most = 1 if image.mode == "F" else 65535
    if not (values.min() >= 0 and values.max() <= most):
        raise ImageError(f"its values span [{values.min():g}, {values.max():g}], not [0, {most}]")
    return values / most


def _tensor(pixels: npt.NDArray[np.generic], white: int) -> torch.Tensor:
    """(H, W, C) numbers -> (1, C, H, W) float32, divided by `white`."""
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)[None]  # pyright: ignore[reportUnknownMemberType] - torch leaves it untyped
    return tensor.to(torch.float32, memory_format=torch.contiguous_format).div_(white)


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    return image if image.mode == mode else image.convert(mode)  # Pillow would copy it


def _to_srgb(image: Image.Image, icc: bytes | None) -> tuple[Image.Image, bytes | None]:
    """Convert mode L, RGB or CMYK to RGB; give back `icc` where it was of use."""
    if icc and (transform := _transform(icc, image.mode)):
        return transform.apply(image), icc
    rgb = _in_mode(image, "RGB")
    if icc and image.mode == "L" and (transform := _transform(icc, "RGB")):  # what saving im.convert("L") leaves
        return transform.apply(rgb), icc
    return rgb, None


def _transform(icc: bytes, mode: str, *, back: bool = False) -> ImageCms.ImageCmsTransform | None:
    """Build the way from `mode` under the profile `icc` to sRGB, or `back`; None if it is broken or of another mode."""
    intent, flags = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
    try:
        srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType] - Pillow leaves it untyped
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        source, aim = (srgb, profile) if back else (profile, srgb)
        transform = ImageCms.buildTransform(source, aim, mode, "RGB", intent, flags)
        # Damage that lcms does not see shows in white, which a sound profile maps to white.
        whitest = np.array(transform.apply(Image.new(mode, (1, 1), _WHITES[mode])))
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None
    return transform if whitest.min() > _WHITE_ENOUGH else None


def _check_tensor(name: str, tensor: torch.Tensor, shape: tuple[int | str, ...]) -> None:
    came = tuple(tensor.shape)
    fits = len(came) == len(shape) and all(isinstance(b, str) or a == b for a, b in zip(came, shape, strict=True))
    if not (fits and tensor.numel() and tensor.is_floating_point()):
        known = f"({', '.join(map(str, shape))})"
        raise InputError(f"{name} is a {tensor.dtype} tensor of shape {came}, not a floating one of shape {known}")


def _check_picture(rgb: torch.Tensor, alpha: torch.Tensor | None) -> None:
    _check_tensor("rgb", rgb, (1, 3, "H", "W"))
    if alpha is not None:
        _check_tensor("alpha", alpha, (1, 1, *rgb.shape[2:]))


def _eight_bits(tensor: torch.Tensor) -> npt.NDArray[np.uint8]:
    return _levels(tensor, 255).astype(np.uint8)


def _levels(tensor: torch.Tensor, most: int) -> npt.NDArray[np.float32]:
    """(1, C, H, W) in [0, 1] -> (H, W, C), whole numbers up to `most`."""
    values = tensor.detach().to("cpu", torch.float32)
    if not (finite := values.isfinite()).all():
        raise ImageError(f"{int((~finite).sum())} of the picture's {values.numel()} values are NaN or infinite")
    return values[0].clamp(0, 1).mul(most).round().permute(1, 2, 0).contiguous().numpy()


def _target(path: Path) -> Path:
    """Return the file that writing to `path` replaces or creates, links followed."""
    return writable(path, _KINDS)


def writable(path: Path, endings: Collection[str]) -> Path:
    """The file that writing to `path` replaces or creates, links followed.

    Raises `ImageError` where it cannot be written, and where its ending is none of `endings`.
    """
    with _refusing(f"cannot write {str(path)!r}", "the name is bad"):
        if path.suffix.lower() not in endings:
            raise ImageError(f"unknown ending {path.suffix!r}, known are {', '.join(endings)}")
        target = path.resolve()
        if target.is_dir():
            raise ImageError("it is a folder")
        if not target.parent.is_dir():
            raise ImageError(f"no such folder {str(target.parent)!r}")
        if target.exists() and not target.is_file():
            raise ImageError("it is not a regular file")
        if not os.access(target.parent, os.W_OK | os.X_OK) or (target.exists() and not os.access(target, os.W_OK)):
            raise ImageError("permission denied")
        return target


def _check_text(text: Mapping[str, str]) -> None:
    for name, value in text.items():
        if not (name.isascii() and name.isprintable() and 0 < len(name) < 80 and " ".join(name.split()) == name):
            raise InputError(f"a text is called {name!r}: names are 1 to 79 printable ASCII characters")
        if "\0" in value:
            raise InputError(f"the text {name!r} has a NUL character")


def _encode(image: Image.Image, kind: _Kind, icc: bytes | None, text: Mapping[str, str]) -> bytes:
    alpha = image.getchannel("A") if image.mode == "RGBA" and kind.alpha else None
    image = image.convert("RGB")
    if transform := _transform(icc, "RGB", back=True) if icc else None:
        image = transform.apply(image)
    if alpha:
        image.putalpha(alpha)
    buffer = io.BytesIO()
    image.save(buffer, kind.format, icc_profile=icc if transform else None, **kind.options, **_labels(kind, text))
    return buffer.getvalue()


def _encode_deep(
    rgb: npt.NDArray[np.float32],
    alpha: npt.NDArray[np.float32] | None,
    encode: "Callable[[deep.Pixels, bytes | None, Mapping[str, str]], bytes]",
    icc: bytes | None,
    text: Mapping[str, str],
) -> bytes:
    transform = _transform(icc, "RGB", back=True) if icc else None
    if icc and transform:
        if profile := profiles.parse(icc):
            rgb = np.rint(profiles.convert(rgb / np.float32(65535), profiles.srgb(), profile) * 65535)
        else:
            image = transform.apply(Image.fromarray(np.rint(rgb / 257).astype(np.uint8)))
            rgb = np.array(image, np.float32) * 257
    pixels = rgb if alpha is None else np.concatenate([rgb, alpha], axis=2)
    return encode(pixels.astype(np.uint16), icc if transform else None, text)


def _labels(kind: _Kind, text: Mapping[str, str]) -> dict[str, object]:
    """Pillow's options that put `text` into a file."""
    if not text:
        return {}
    if kind.format == "PNG":
        chunks = PngImagePlugin.PngInfo()
        for name, value in text.items():
            chunks.add_itxt(name, value)
        return {"pnginfo": chunks}
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = json.dumps(dict(text))  # ASCII: all that the tag may hold
    return {"exif": exif}
