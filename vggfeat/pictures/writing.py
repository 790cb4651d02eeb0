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
from vggfeat.pictures.metadata import NOTHING, Metadata, as_exif, as_texts, exif_date
from vggfeat.pictures.ranges import check_tensor

_Levels = npt.NDArray[np.float32]
_Encoder = Callable[[deep.Pixels, bytes | None, Mapping[str, str], Metadata], bytes]


class _Labels(NamedTuple):
    """The texts and metadata that a file stores beside its pixels."""

    text: Mapping[str, str]
    metadata: Metadata


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
    return _image(_levels(rgb, 255), None if alpha is None else _levels(alpha, 255))


def check_writable(
    path: str | os.PathLike[str], *, bits: int = 8, size: tuple[int, int] | None = None, icc: bytes | None = None
) -> None:
    """Raise the `ImageError` that `write_picture` would raise for a picture of (height, width) `size`.

    `bits` and `icc` are those of `write_picture`. Call it before long work.
    """
    _target(Path(path))
    kind = _KINDS[Path(path).suffix.lower()]
    with refusing(f"cannot write {str(path)!r}", ""):
        if size:
            _check_size(kind, *size)
        if bits == 16 and kind.deep:
            if kind.deep is deep.encode_tiff:
                deep.library("tifffile")
            if icc and profiles.transform(icc, "RGB", back=True):
                deep.library("imagecodecs")


def left_out(path: str | os.PathLike[str], *, bits: int = 8, alpha: bool = False) -> list[str]:
    """Messages about the parts of a picture that are lost when it is written to `path`.

    >>> left_out("a.jpg", alpha=True)
    ["JPEG has no transparency: 'a.jpg' will be opaque"]
    """
    kind = _KINDS[Path(path).suffix.lower()]
    opaque = f"{kind.format} has no transparency: {str(path)!r} will be opaque"
    rounded = f"{kind.format} has 8 bits a channel: {str(path)!r} will be rounded from {bits}"
    return [opaque] * (alpha and not kind.alpha) + [rounded] * (bits > 8 and not kind.deep)


def _check_size(kind: _Kind, height: int, width: int) -> None:
    if max(height, width) > kind.most:
        raise ImageError(
            f"{kind.format} holds at most {kind.most} pixels a side, not {width}x{height}; PNG and TIFF hold more"
        )


def write_picture(
    path: str | os.PathLike[str],
    rgb: torch.Tensor,
    *,
    alpha: torch.Tensor | None = None,
    icc: bytes | None = None,
    text: Mapping[str, str] | None = None,
    bits: int = 8,
    metadata: Metadata | None = None,
) -> None:
    """Write a picture as .png, .jpg or .jpeg (quality 95, 4:4:4), .webp (lossless), .tif or .tiff.

    The file appears whole or not at all, and keeps the mode of the file that it replaces; a symbolic link is followed.
    If writing fails, for example because the picture is too large for the format, the picture is saved as an 8-bit PNG
    beside `path` if possible, under an unused name that the error states.

    Args:
        path: the file.
        rgb: (1, 3, H, W), floating, in sRGB; values are clamped to [0, 1].
        alpha: (1, 1, H, W), 1 is opaque. JPEG has no transparency: it drops `alpha` and stores `rgb` unchanged.
        icc: the profile to write in, such as `Picture.icc`: colours are converted to it, and it is embedded. A profile
            that is broken or not RGB (that of a CMYK or grey original) is left out. The default is plain sRGB.
        text: {name: text} for `read_text` to return: names of 1 to 79 printable ASCII characters, and texts without
            NUL. PNG stores each in an iTXt chunk, other formats one JSON object in the EXIF tag ImageDescription.
        bits: 8, or 16 a channel in PNG and TIFF; JPEG and WebP always have 8.
        metadata: author, copyright, date and resolution, as texts and pHYs of a PNG, and EXIF of the others.

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
    _check_picture(rgb, alpha)
    most = 65535 if bits == 16 and kind.deep else 255
    pixels = _levels(rgb, most), None if alpha is None else _levels(alpha, most)
    try:
        with refusing(f"cannot write {str(path)!r}", f"{kind.format} refuses it"):
            _check_size(kind, rgb.shape[2], rgb.shape[3])
            encode = _encode if most == 255 else _encode_deep
            files.write(target, encode(*pixels, kind, icc, _Labels(text or {}, metadata or NOTHING)))
    except ImageError as error:
        if (kind.format, most) == ("PNG", 255):
            raise
        spare = next(name for name in _spares(path) if not name.exists())
        try:
            write_picture(spare, rgb, alpha=alpha, text=text, metadata=metadata)
        except ImageError:
            raise error from error.__cause__
        raise ImageError(str(error), spare) from error


def _check_picture(rgb: torch.Tensor, alpha: torch.Tensor | None) -> None:
    check_tensor("rgb", rgb, (1, 3, "H", "W"))
    if alpha is not None:
        check_tensor("alpha", alpha, (1, 1, *rgb.shape[2:]))


def _image(rgb: _Levels, alpha: _Levels | None) -> Image.Image:
    """The PIL image, RGB or RGBA, of levels up to 255."""
    image = Image.fromarray(rgb.astype(np.uint8))
    if alpha is not None:
        image.putalpha(Image.fromarray(alpha[..., 0].astype(np.uint8)))
    return image


def _levels(tensor: torch.Tensor, most: int) -> _Levels:
    """Round (1, C, H, W) in [0, 1] to (H, W, C) whole numbers up to `most`."""
    values = tensor.detach().to("cpu", torch.float32)
    if not (finite := values.isfinite()).all():
        raise ImageError(f"{int((~finite).sum())} of the picture's {values.numel()} values are NaN or infinite")
    return values[0].clamp(0, 1).mul(most).round().permute(1, 2, 0).contiguous().numpy()


def _spares(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Names for a PNG beside `path`."""
    path = Path(path)
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


def _encode(rgb: _Levels, alpha: _Levels | None, kind: _Kind, icc: bytes | None, labels: _Labels) -> bytes:
    image = _image(rgb, None)
    if transform := profiles.transform(icc, "RGB", back=True) if icc else None:
        image = transform.apply(image)
    if alpha is not None and kind.alpha:
        image.putalpha(Image.fromarray(alpha[..., 0].astype(np.uint8)))
    buffer = io.BytesIO()
    options = {**kind.options, **_label_options(kind, *labels)}
    image.save(buffer, kind.format, icc_profile=icc if transform else None, **options)
    return buffer.getvalue()


def _encode_deep(rgb: _Levels, alpha: _Levels | None, kind: _Kind, icc: bytes | None, labels: _Labels) -> bytes:
    assert kind.deep is not None  # noqa: S101 (the caller has asked)
    if icc and not profiles.transform(icc, "RGB", back=True):
        icc = None
    if icc:
        rgb = np.rint(profiles.convert(rgb / np.float32(65535), icc, back=True) * 65535)
    pixels = rgb if alpha is None else np.concatenate([rgb, alpha], axis=2)
    return kind.deep(pixels.astype(np.uint16), icc, *labels)


def _label_options(kind: _Kind, text: Mapping[str, str], metadata: Metadata) -> dict[str, object]:
    """Pillow's options that store `text` and `metadata` in a file."""
    options: dict[str, object] = {"dpi": metadata.dpi} if metadata.dpi and kind.format != "WEBP" else {}
    if kind.format == "PNG":
        chunks = PngImagePlugin.PngInfo()
        for name, value in {**as_texts(metadata), **text}.items():
            chunks.add_itxt(name, value)
        return {**options, "pnginfo": chunks}
    exif = Image.Exif()
    for tag, value in as_exif(metadata, resolution=kind.format == "WEBP").items():
        exif[tag] = value
    if text:
        exif[ExifTags.Base.ImageDescription] = json.dumps(dict(text))  # the tag holds only ASCII, as JSON does
    if metadata.created and kind.format != "TIFF":
        exif[ExifTags.IFD.Exif] = {ExifTags.Base.DateTimeOriginal: exif_date(metadata)}
    return {**options, "exif": exif} if len(exif) else options
