"""The metadata of picture files: author, copyright, date and print resolution.

Location, camera, orientation and thumbnail are dropped, since they may be wrong for a picture made from the file.
"""

import contextlib
import math
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any
from xml.etree import ElementTree as ET

from PIL import ExifTags, Image, PngImagePlugin

_EXIF_DATE, _DATE = "%Y:%m:%d %H:%M:%S", "%Y-%m-%d %H:%M:%S"
_EXIF = {"author": ExifTags.Base.Artist, "copyright": ExifTags.Base.Copyright}
_PNG = {"author": "Author", "copyright": "Copyright", "created": "Creation Time"}
_XMP = {
    "author": ("{http://purl.org/dc/elements/1.1/}creator",),
    "copyright": ("{http://purl.org/dc/elements/1.1/}rights",),
    "created": (
        "{http://ns.adobe.com/exif/1.0/}DateTimeOriginal",
        "{http://ns.adobe.com/photoshop/1.0/}DateCreated",
        "{http://ns.adobe.com/xap/1.0/}CreateDate",
    ),
}
_INCH, _CENTIMETRE = 2, 3
_XMP_TAG = 700
_LONGEST = 1000  # characters of a text
_LONGEST_XMP = 1_000_000  # bytes


@dataclass(frozen=True, slots=True)
class Metadata:
    """The metadata of a picture. Fields that its file lacks are None.

    Attributes:
        author: who made it.
        copyright: who owns it, and how it may be used.
        created: when it was made, as `2024-05-31 18:30:00`, in local time.
        dpi: pixels per inch, across and down.

    >>> Metadata(author="A. Painter", dpi=(300.0, 300.0)).copyright
    """

    author: str | None = None
    copyright: str | None = None
    created: str | None = None
    dpi: tuple[float, float] | None = None


NOTHING = Metadata()
"""The metadata of a file that has none."""


def of_image(image: Image.Image) -> Metadata:
    """The metadata of a PIL image, from EXIF, then the texts of a PNG, then XMP. Damaged fields are left out."""
    found: dict[str, Any] = {}
    for read in (_from_exif, _from_png, _from_xmp):
        with contextlib.suppress(Exception):  # the parsers of Pillow raise many types of error
            found = {**{name: value for name, value in read(image).items() if value}, **found}
    dpi = None
    with contextlib.suppress(Exception):
        dpi = _dpi(image)
    return Metadata(
        author=_text(found.get("author")),
        copyright=_text(found.get("copyright")),
        created=_date(found.get("created")),
        dpi=dpi,
    )


def as_exif(metadata: Metadata, *, resolution: bool = False) -> dict[int, Any]:
    """The metadata as EXIF tags of the main directory, texts in UTF-8. `resolution` adds the print resolution."""
    tags: dict[int, Any] = {
        tag: value.encode() for name, tag in _EXIF.items() if (value := getattr(metadata, name)) is not None
    }
    if metadata.created is not None:
        tags[ExifTags.Base.DateTime] = exif_date(metadata)
    if resolution and metadata.dpi:
        tags[ExifTags.Base.XResolution], tags[ExifTags.Base.YResolution] = metadata.dpi
        tags[ExifTags.Base.ResolutionUnit] = _INCH
    return tags


def exif_date(metadata: Metadata) -> str | None:
    """The date as EXIF and TIFF write it."""
    return metadata.created and datetime.strptime(metadata.created, _DATE).strftime(_EXIF_DATE)  # noqa: DTZ007 (no zone is known)


def as_texts(metadata: Metadata) -> dict[str, str]:
    """The metadata as texts of a PNG, without the resolution."""
    return {key: value for name, key in _PNG.items() if (value := getattr(metadata, name)) is not None}


def _from_exif(image: Image.Image) -> dict[str, object]:
    exif = image.getexif()
    found: dict[str, object] = {name: exif.get(tag) for name, tag in _EXIF.items()}
    taken = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.DateTimeOriginal)
    return {**found, "created": taken or exif.get(ExifTags.Base.DateTime)}


def _from_png(image: Image.Image) -> dict[str, object]:
    if not isinstance(image, PngImagePlugin.PngImageFile):
        return {}
    return {name: image.text.get(key) for name, key in _PNG.items()}


def _from_xmp(image: Image.Image) -> dict[str, object]:
    tagged: Any = image.getexif()
    data: object = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or tagged.get(_XMP_TAG)
    data = data.encode() if isinstance(data, str) else data
    if not isinstance(data, bytes) or not data or len(data) > _LONGEST_XMP or b"<!" in data:  # no entities
        return {}
    tree = ET.fromstring(data.rstrip(b"\0"))  # noqa: S314 (entities were refused above)
    found: dict[str, object] = {}
    for name, tags in _XMP.items():
        for tag in tags:
            texts = [" ".join("".join(each.itertext()).split()) for each in tree.iter(tag)]
            texts += [each.attrib[tag] for each in tree.iter() if tag in each.attrib]
            if name not in found and any(texts):
                found[name] = next(filter(None, texts))
    return found


def _text(value: object) -> str | None:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if not isinstance(value, str):
        return None
    with contextlib.suppress(UnicodeError):  # Pillow reads EXIF as Latin-1; most programs write UTF-8
        value = value.encode("latin-1").decode()
    return " ".join(value.replace("\0", " ").split())[:_LONGEST] or None


def _date(value: object) -> str | None:
    text = _text(value)
    if text is None:
        return None
    for parse in (lambda: datetime.strptime(text, _EXIF_DATE), lambda: datetime.fromisoformat(text)):  # noqa: DTZ007
        with contextlib.suppress(ValueError):
            return parse().strftime(_DATE)
    with contextlib.suppress(ValueError):
        return parsedate_to_datetime(text).strftime(_DATE)
    return None


def _dpi(image: Image.Image) -> tuple[float, float] | None:
    exif: Any = image.getexif()
    dpi = image.info.get("dpi")
    if dpi is None:
        factor = {_INCH: 1.0, _CENTIMETRE: 2.54}.get(exif.get(ExifTags.Base.ResolutionUnit, _INCH))
        sides = [exif.get(tag) for tag in (ExifTags.Base.XResolution, ExifTags.Base.YResolution)]
        dpi = None if factor is None or None in sides else [float(side) * factor for side in sides if side]
    across, down = map(float, dpi or ())
    allowed = all(1 <= each <= 100_000 and math.isfinite(each) for each in (across, down))
    return (across, down) if allowed and (across, down) != (1, 1) else None
