"""Write tensors as picture files."""

import io
import itertools
import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import ExifTags, Image, PngImagePlugin

from vggfeat import files
from vggfeat.errors import ImageError, InputError
from vggfeat.pictures import deep, profiles
from vggfeat.pictures.guard import refusing
from vggfeat.pictures.ranges import check_tensor

_Encoder = Callable[[deep.Pixels, bytes | None, Mapping[str, str]], bytes]


class _Kind(NamedTuple):
    """How files of one ending are saved."""

    format: str
    options: Mapping[str, object]
    alpha: bool = True
    most: int = 2**31 - 1  # pixels a side
    deep: _Encoder | None = None


_JPEG = _Kind("JPEG", {"quality": 95, "subsampling": 0}, alpha=False, most=65500)
_TIFF = _Kind("TIFF", {"compression": "tiff_adobe_deflate"}, deep=deep.encode_tiff)
_KINDS = {
    ".png": _Kind("PNG", {}, deep=deep.encode_png),
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".webp": _Kind(
        "WEBP", {"lossless": True, "exact": True}, most=16383
    ),  # lossy WebP halves the resolution of the colour
    ".tif": _TIFF,
    ".tiff": _TIFF,
}


def to_pil(rgb: torch.Tensor, alpha: torch.Tensor | None = None) -> Image.Image:
    """Convert a picture to a PIL image of 8 bits, mode RGB or, with `alpha`, RGBA.

    `rgb` is (1, 3, H, W) and `alpha` (1, 1, H, W), of any floating type and device. Values are clamped to [0, 1],
    multiplied by 255 and rounded half to even. Raises `InputError` for another shape or type, and `ImageError` for NaN
    and infinity.

    >>> to_pil(torch.rand(1, 3, 4, 6)).size
    (6, 4)
    """
    _check_picture(rgb, alpha)
    image = Image.fromarray(_eight_bits(rgb))
    if alpha is not None:
        image.putalpha(Image.fromarray(_eight_bits(alpha)[..., 0]))
    return image


def check_writable(path: str | os.PathLike[str], *, bits: int = 8, size: tuple[int, int] | None = None) -> None:
    """Raise the `ImageError` that `write_picture` would raise for a picture of (height, width) `size` with `bits`.

    Call it before long work.
    """
    _target(Path(path))
    kind = _KINDS[Path(path).suffix.lower()]
    if size and max(size) > kind.most:
        raise ImageError(f"cannot write {str(path)!r}: {_too_large(kind, *size)}")
    if bits == 16 and _KINDS[Path(path).suffix.lower()].deep is deep.encode_tiff:
        with refusing(f"cannot write {str(path)!r}", ""):
            deep.library("tifffile")


def _too_large(kind: _Kind, height: int, width: int) -> str:
    return f"{kind.format} holds at most {kind.most} pixels a side, not {height}x{width}; PNG and TIFF hold more"


def write_picture(
    path: str | os.PathLike[str],
    rgb: torch.Tensor,
    *,
    alpha: torch.Tensor | None = None,
    icc: bytes | None = None,
    text: Mapping[str, str] | None = None,
    bits: int = 8,
) -> None:
    """Write a picture as .png, .jpg or .jpeg (quality 95, 4:4:4), .webp (lossless), .tif or .tiff.

    The file appears whole or not at all, and keeps the mode of the file that it replaces; a symbolic link is followed.
    A picture that is too large for its format is written as PNG beside it, under an unused name that the error states.

    Args:
        path: the file.
        rgb: (1, 3, H, W), floating, in sRGB; values are clamped to [0, 1].
        alpha: (1, 1, H, W), 1 is opaque. JPEG has no transparency: it drops `alpha` and stores `rgb` unchanged.
        icc: the profile to write in, such as `Picture.icc`: colours are converted to it, and it is embedded. A profile
            that is broken or not RGB (that of a CMYK or grey original) is left out. The default is plain sRGB.
        text: {name: text} for `read_text` to return: names of 1 to 79 printable ASCII characters, and texts without
            NUL. PNG stores each in an iTXt chunk, other formats one JSON object in the EXIF tag ImageDescription.
        bits: 8, or 16 a channel in PNG and TIFF; JPEG and WebP always have 8.

    Raises:
        ImageError: the file cannot be written, a value is not finite, or the extra `deep`, which 16-bit TIFF and 16-bit
            profiles need, is not installed.
        InputError: a tensor has another shape or type, or `text` or `bits` is not allowed.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     write_picture(f"{folder}/a.png", torch.rand(1, 3, 4, 6), text={"Title": "noise"})
    """
    target = _target(Path(path))
    _check_text(text or {})
    if bits not in {8, 16}:
        raise InputError(f"bits is {bits}: a channel has 8 or 16")
    kind = _KINDS[Path(path).suffix.lower()]
    if max(rgb.shape[2:], default=0) > kind.most:
        spare = next(p for p in _spares(Path(path)) if not p.exists())
        write_picture(spare, rgb, alpha=alpha, icc=icc, text=text, bits=bits)
        reason = _too_large(kind, rgb.shape[2], rgb.shape[3])
        raise ImageError(f"cannot write {str(path)!r}: {reason}; it is saved as {str(spare)!r}")
    if bits == 16 and kind.deep:
        _check_picture(rgb, alpha)
        levels = _levels(rgb, 65535), None if alpha is None else _levels(alpha, 65535)
        with refusing(f"cannot write {str(path)!r}", "it cannot be encoded"):
            files.write(target, _encode_deep(*levels, kind.deep, icc, text or {}))
        return
    image = to_pil(rgb, alpha)
    with refusing(f"cannot write {str(path)!r}", "Pillow refuses it"):
        files.write(target, _encode(image, kind, icc, text or {}))


def _check_picture(rgb: torch.Tensor, alpha: torch.Tensor | None) -> None:
    check_tensor("rgb", rgb, (1, 3, "H", "W"))
    if alpha is not None:
        check_tensor("alpha", alpha, (1, 1, *rgb.shape[2:]))


def _eight_bits(tensor: torch.Tensor) -> npt.NDArray[np.uint8]:
    return _levels(tensor, 255).astype(np.uint8)


def _levels(tensor: torch.Tensor, most: int) -> npt.NDArray[np.float32]:
    """Round (1, C, H, W) in [0, 1] to (H, W, C) whole numbers up to `most`."""
    values = tensor.detach().to("cpu", torch.float32)
    if not (finite := values.isfinite()).all():
        raise ImageError(f"{int((~finite).sum())} of the picture's {values.numel()} values are NaN or infinite")
    return values[0].clamp(0, 1).mul(most).round().permute(1, 2, 0).contiguous().numpy()


def _spares(path: Path) -> Iterator[Path]:
    """Names of a PNG beside `path`."""
    yield path.with_suffix(".png")
    for number in itertools.count(2):
        yield path.with_name(f"{path.stem}-{number}.png")


def _target(path: Path) -> Path:
    """The file that writing to `path` replaces or creates, after following symbolic links."""
    return writable(path, _KINDS)


def writable(path: Path, endings: Collection[str]) -> Path:
    """The file that writing to `path` replaces or creates, after following symbolic links.

    Raises `ImageError` if it cannot be written, or its ending is not among `endings`.
    """
    with refusing(f"cannot write {str(path)!r}", "the name is not valid"):
        if path.suffix.lower() not in endings:
            raise ImageError(f"unknown ending {path.suffix!r}: choose from {', '.join(endings)}")
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
    if transform := profiles.transform(icc, "RGB", back=True) if icc else None:
        image = transform.apply(image)
    if alpha:
        image.putalpha(alpha)
    buffer = io.BytesIO()
    image.save(buffer, kind.format, icc_profile=icc if transform else None, **kind.options, **_labels(kind, text))
    return buffer.getvalue()


def _encode_deep(
    rgb: npt.NDArray[np.float32],
    alpha: npt.NDArray[np.float32] | None,
    encode: _Encoder,
    icc: bytes | None,
    text: Mapping[str, str],
) -> bytes:
    if icc and not profiles.transform(icc, "RGB", back=True):
        icc = None
    if icc:
        rgb = np.rint(profiles.convert(rgb / np.float32(65535), icc, back=True) * 65535)
    pixels = rgb if alpha is None else np.concatenate([rgb, alpha], axis=2)
    return encode(pixels.astype(np.uint16), icc, text)


def _labels(kind: _Kind, text: Mapping[str, str]) -> dict[str, object]:
    """Pillow's options that store `text` in a file."""
    if not text:
        return {}
    if kind.format == "PNG":
        chunks = PngImagePlugin.PngInfo()
        for name, value in text.items():
            chunks.add_itxt(name, value)
        return {"pnginfo": chunks}
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = json.dumps(dict(text))  # the tag holds only ASCII, as JSON does
    return {"exif": exif}
