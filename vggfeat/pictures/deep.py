"""Colour of 16 bits a channel, which Pillow cuts to 8: PNG and TIFF files, read and written as arrays.

Arrays are (H, W, C) uint16, C: 3 (RGB), 4 (RGBA) or, read from a PNG, 2 (grey and alpha).
"""

import json
import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from PIL import Image, PngImagePlugin, TiffImagePlugin

Pixels = npt.NDArray[np.uint16]
_Bytes = npt.NDArray[np.uint8]

_PNG_MODES = frozenset({"RGB;16B", "RGBA;16B", "LA;16B"})
_RAW, _DEFLATE, _OLD_DEFLATE = 1, 8, 32946
BAND = 256
"""Rows of a PNG that are unfiltered at once."""


def is_deep(image: Image.Image) -> bool:
    """Whether `decode` can read this image, opened and not loaded, at its full depth.

    So it is with PNG that is not interlaced, and with TIFF whose samples lie side by side, uncompressed or deflated.
    """
    if isinstance(image, PngImagePlugin.PngImageFile):
        return bool(image.tile) and image.tile[0].args in _PNG_MODES and not image.info.get("interlace")
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return False
    if not image.tile:
        return False
    tags = _Tags(image)
    samples = tags.number(277, 1)
    return (
        (tags.number(262), tags.number(284, 1), tags.number(266, 1)) == (2, 1, 1)  # RGB, chunky, bits in order
        and tags.numbers(258) == (16,) * samples
        and set(tags.numbers(339, (1,))) == {1}  # whole numbers
        and (samples == 3 or (samples == 4 and len(tags.numbers(338)) == 1))
        and tags.number(259, _RAW) in {_RAW, _DEFLATE, _OLD_DEFLATE}
        and tags.number(317, 1) in {1, 2}
    )


def decode(image: Image.Image, data: bytes) -> Pixels:
    """The pixels of the image whose file is `data`, as they lie there: not turned, premultiplied alpha divided out.

    Raises ValueError, zlib.error or struct.error if the file is damaged.
    """
    return _decode_tiff(_Tags(image), data) if isinstance(image, TiffImagePlugin.TiffImageFile) else _decode_png(data)


def encode_png(pixels: Pixels, icc: bytes | None = None, text: Mapping[str, str] | None = None) -> bytes:
    """The bytes of a PNG of these pixels, with a profile and iTXt texts."""
    height, width, channels = pixels.shape
    rows = pixels.astype(">u2").view(np.uint8).reshape(height, -1)
    filtered = np.full((height, 1 + rows.shape[1]), 2, np.uint8)  # 2: less the row above
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    header = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[channels], 0, 0, 0)
    parts = [_chunk(b"IHDR", header)]
    if icc:
        parts.append(_chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(icc)))
    for name, value in (text or {}).items():
        parts.append(_chunk(b"iTXt", name.encode("ascii") + b"\0\0\0\0\0" + value.encode()))
    parts += [_chunk(b"IDAT", zlib.compress(filtered.data)), _chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def encode_tiff(pixels: Pixels, icc: bytes | None = None, text: Mapping[str, str] | None = None) -> bytes:
    """The bytes of a deflated TIFF of these pixels, with a profile, and texts as JSON in ImageDescription.

    Raises ValueError above 4 GB.
    """
    height, width, channels = pixels.shape
    rows = min(height, max(1, 2**20 // (2 * width * channels)))
    data, offsets, counts = bytearray(8), list[int](), list[int]()
    for top in range(0, height, rows):
        strip = pixels[top : top + rows].astype("<u2")
        strip[:, 1:] -= strip[:, :-1].copy()  # predictor 2: less the pixel to the left
        packed = zlib.compress(strip.data)
        offsets.append(len(data))
        counts.append(len(packed))
        data += packed
    short, long, ascii_, undefined = 3, 4, 2, 7
    fields: list[tuple[int, int, list[int] | bytes]] = [
        (256, long, [width]),
        (257, long, [height]),
        (258, short, [16] * channels),
        (259, short, [_DEFLATE]),
        (262, short, [2]),
        *([(270, ascii_, json.dumps(dict(text)).encode() + b"\0")] if text else []),
        (273, long, offsets),
        (277, short, [channels]),
        (278, long, [rows]),
        (279, long, counts),
        (284, short, [1]),
        (317, short, [2]),
        *([(338, short, [2])] if channels == 4 else []),  # alpha, not premultiplied
        *([(34675, undefined, icc)] if icc else []),
    ]
    table = struct.pack("<H", len(fields))
    for tag, kind, values in fields:
        code = "H" if kind == short else "I"
        packed = values if isinstance(values, bytes) else struct.pack(f"<{len(values)}{code}", *values)
        if len(packed) > 4:
            data += bytes(len(data) % 2)
            place = len(data)
            data += packed
            packed = struct.pack("<I", place)
        table += struct.pack("<HHI", tag, kind, len(values)) + packed.ljust(4, b"\0")
    data += bytes(len(data) % 2)
    if len(data) + len(table) + 4 > 0xFFFFFFFF:
        raise ValueError("it is larger than the 4 GB of a TIFF")
    data[:8] = b"II*\0" + struct.pack("<I", len(data))
    return bytes(data + table + bytes(4))


class _Tags:
    """The numbers of a TIFF's directory."""

    def __init__(self, image: TiffImagePlugin.TiffImageFile) -> None:
        tags = cast("Any", image.tag_v2)
        self.order = "<" if tags.prefix == b"II" else ">"
        self._tags: Mapping[int, object] = tags

    def numbers(self, tag: int, otherwise: tuple[int, ...] = ()) -> tuple[int, ...]:
        value = self._tags.get(tag)
        values = cast("tuple[object, ...]", value if isinstance(value, tuple) else (value,))
        return otherwise if value is None else tuple(item if isinstance(item, int) else -1 for item in values)

    def number(self, tag: int, otherwise: int = -1) -> int:
        values = self.numbers(tag, (otherwise,))
        return values[0] if len(values) == 1 else -1


def _decode_png(data: bytes) -> Pixels:
    width, height, _, colour = struct.unpack_from(">IIBB", data, 16)
    channels = {2: 3, 4: 2, 6: 4}[colour]
    size = height * (1 + 2 * width * channels)
    rows = np.frombuffer(_inflated(b"".join(_png_pixels(data)), size), np.uint8).reshape(height, -1)
    filters, filtered = rows[:, 0], rows[:, 1:].reshape(height, width, 2 * channels)
    if filters.max() > 4:
        raise ValueError("a row has an unknown filter")
    plain = np.empty_like(filtered)
    for top in range(0, height, BAND):
        band = slice(top, top + BAND)
        above = plain[top - 1] if top else np.zeros_like(plain[0])
        plain[band] = _unfilter(filters[band], filtered[band], above)
    return plain.view(">u2").astype(np.uint16)


def _unfilter(filters: _Bytes, filtered: _Bytes, above: _Bytes) -> _Bytes:
    """Undo the filters of some rows, (R, W, bytes a pixel), under the row `above`.

    A pixel needs its left, upper and upper left neighbours, so that the pixels of a diagonal can be had at once:
    `skewed[d, r]` is the pixel of row r and column d - r, and `done[d + 2, r + 1]` what becomes of it.
    """
    rows, width, size = filtered.shape
    skewed = np.zeros((width + rows - 1, rows, size), np.int16)
    done = np.zeros((width + rows + 1, rows + 1, size), np.int16)
    for row in range(rows):
        skewed[row : row + width, row] = filtered[row]
    done[1 : width + 1, 0] = above
    kinds = np.broadcast_to(filters[:, None], (rows, size))
    paeth = bool((filters == 4).any())
    for diagonal, values in enumerate(skewed):
        left, up, corner = done[diagonal + 1, 1:], done[diagonal + 1, :-1], done[diagonal, :-1]
        near = left
        if paeth:
            to_left, to_up = np.abs(up - corner), np.abs(left - corner)
            to_corner = np.abs(left + up - 2 * corner)
            near = np.where(to_up <= to_corner, up, corner)
            near = np.where((to_left <= to_up) & (to_left <= to_corner), left, near)
        guess = np.choose(kinds, (np.int16(0), left, up, (left + up) >> 1, near))
        np.bitwise_and(values + guess, 255, out=done[diagonal + 2, 1:])
    return np.stack([done[row + 2 : row + 2 + width, row + 1] for row in range(rows)]).astype(np.uint8)


def _png_pixels(data: bytes) -> Iterator[bytes]:
    place = 8
    while place + 8 <= len(data):
        size, name = struct.unpack_from(">I4s", data, place)
        if name == b"IDAT":
            yield data[place + 8 : place + 8 + size]
        place += 12 + size


def _inflated(packed: bytes, size: int) -> bytes:
    data = zlib.decompressobj().decompress(packed, size)
    if len(data) < size:
        raise ValueError("it is truncated")
    return data


def _decode_tiff(tags: _Tags, data: bytes) -> Pixels:
    width, height, samples = tags.number(256), tags.number(257), tags.number(277)
    pixels = np.zeros((height, width, samples), np.uint16)
    for top, left, part in _parts(tags, data, width, height, samples):
        room = pixels[top : top + part.shape[0], left : left + part.shape[1]]
        room[:] = part[: room.shape[0], : room.shape[1]]
    if samples == 3:
        return pixels
    kind = tags.number(338)
    if kind == 0:
        return pixels[..., :3]
    if kind == 1:
        alpha = pixels[..., 3:].astype(np.float64)
        pixels[..., :3] = np.clip(np.rint(pixels[..., :3] * (65535 / np.maximum(alpha, 1))), 0, 65535)
    return pixels


def _parts(tags: _Tags, data: bytes, width: int, height: int, samples: int) -> Iterator[tuple[int, int, Pixels]]:
    """Each strip or tile with its top and its left."""
    across, down = tags.number(322), tags.number(323)
    tiled = across > 0
    if not tiled:
        across, down = width, min(height, tags.number(278, height))
    offsets, counts = (tags.numbers(324), tags.numbers(325)) if tiled else (tags.numbers(273), tags.numbers(279))
    places = [(top, left) for top in range(0, height, down) for left in range(0, width, across)]
    for (top, left), offset, count in zip(places, offsets, counts, strict=True):
        part = data[offset : offset + count]
        lines = down if tiled else min(down, height - top)
        size = 2 * lines * across * samples
        if tags.number(259, _RAW) != _RAW:
            part = _inflated(part, size)
        elif len(part) < size:
            raise ValueError("it is truncated")
        samples_there = np.frombuffer(part, f"{tags.order}u2", size // 2).reshape(lines, across, samples)
        pixels = samples_there.astype(np.uint16)
        yield top, left, pixels.cumsum(1, dtype=np.uint16) if tags.number(317, 1) == 2 else pixels


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
