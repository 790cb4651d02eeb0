"""Small pictures, profiles and damaged files, written out byte by byte, and what they must decode to."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vggfeat.errors import ImageError
from vggfeat.pictures.images import (
    Picture,
    read_picture,
)

COLOURS = np.array(
    [[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[10, 20, 30], [128, 128, 128], [250, 240, 230]]], np.uint8
)

ORIENTATION = 0x0112


def pixels(picture: Picture) -> np.ndarray:
    """The (H, W, 3) numbers of a picture, in 255ths."""
    assert picture.rgb.dtype == torch.float32
    assert picture.rgb.shape[:2] == (1, 3)
    assert picture.rgb.is_contiguous()
    return picture.rgb[0].permute(1, 2, 0).numpy() * 255


def alphas(picture: Picture) -> np.ndarray:
    assert picture.alpha is not None
    assert picture.alpha.dtype == torch.float32
    assert picture.alpha.shape == (1, 1, *picture.rgb.shape[2:])
    return picture.alpha[0, 0].numpy() * 255


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *before: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(before) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff_rgb16(*values: int) -> bytes:
    """A TIFF of one row of 16-bit RGB."""
    data = struct.pack(f"<{len(values)}H", *values)
    width, bits, strip = len(values) // 3, 8, 14
    fields = [(256, 3, 1, width), (257, 3, 1, 1), (258, 3, 3, bits), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, strip)]
    fields += [(277, 3, 1, 3), (278, 3, 1, 1), (279, 4, 1, len(data))]
    start = strip + len(data)
    table = struct.pack("<H", len(fields)) + b"".join(struct.pack("<HHII", *row) for row in fields) + bytes(4)
    return b"II*\0" + struct.pack("<I", start) + struct.pack("<3H", 16, 16, 16) + data + table


def profile(space: bytes, kind: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    """An ICC profile of version 2.1 from its tags (ICC.1:2001-04, clauses 6.1 and 6.2)."""
    offset, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, data in tags.items():
        table += struct.pack(">4sII", name, offset + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    white = struct.pack(">3i", *(round(v * 65536) for v in (0.9642, 1, 0.8249)))
    header = struct.pack(
        ">I4sI4s4s4s12s4s", offset + len(body), bytes(4), 0x02100000, kind, space, connection, bytes(12), b"acsp"
    )
    header = header.ljust(68, b"\0") + white
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def xyz(*values: float) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(v * 65536) for v in values))


def gamma(value: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(value * 256))


# Adobe RGB (1998) and sRGB, both adapted to D50: columns are the XYZ of red, green and blue.
ADOBE = np.array([[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322], [0.01947, 0.06087, 0.74457]])

SRGB = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])

ADOBE_GAMMA = 563 / 256


def matrix_profile(matrix: np.ndarray) -> bytes:
    curves = {name: gamma(ADOBE_GAMMA) for name in (b"rTRC", b"gTRC", b"bTRC")}
    columns = {name: xyz(*column) for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), matrix.T, strict=True)}
    return profile(b"RGB ", b"mntr", b"XYZ ", {b"wtpt": xyz(0.9642, 1, 0.8249), **columns, **curves})


def cmyk_profile(black: float = 0) -> bytes:
    """Neutral inks: L* = 100 (1 - K) (1 - (C + M + Y) / 3), at least `black`, a* = b* = 0: the table of 16 corners."""
    corners = bytearray()
    for corner in range(16):
        c, m, y, k = (corner >> shift & 1 for shift in (3, 2, 1, 0))
        corners += bytes((round(255 * max((1 - k) * (1 - (c + m + y) / 3), black / 100)), 128, 128))
    identity = struct.pack(">9i", *(65536 * (i % 4 == 0) for i in range(9)))
    table = (
        b"mft1" + bytes(4) + bytes((4, 3, 2, 0)) + identity + bytes(range(256)) * 4 + corners + bytes(range(256)) * 3
    )
    return profile(b"CMYK", b"scnr", b"Lab ", {b"wtpt": xyz(0.9642, 1, 0.8249), b"A2B0": table, b"A2B1": table})


ADOBE_ICC = matrix_profile(ADOBE)

GREY_ICC = profile(b"GRAY", b"mntr", b"XYZ ", {b"wtpt": xyz(0.9642, 1, 0.8249), b"kTRC": gamma(1.0)})

CMYK_ICC = cmyk_profile()


def srgb_curve(linear: np.ndarray) -> np.ndarray:
    linear = np.clip(linear, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def adobe_to_srgb(values: np.ndarray) -> np.ndarray:
    """The textbook way from 8-bit Adobe RGB to sRGB, both in 255ths."""
    linear = (values / 255.0) ** ADOBE_GAMMA
    return 255 * srgb_curve(linear @ (np.linalg.inv(SRGB) @ ADOBE).T)


RGB = torch.from_numpy(COLOURS).permute(2, 0, 1)[None].float() / 255

ALPHA = torch.tensor([[[[0, 100, 200], [255, 1, 50]]]]) / 255


def refusal(path: Path) -> str:
    with pytest.raises(ImageError) as caught:
        read_picture(path)
    message = str(caught.value)
    assert message.startswith(f"cannot read {str(path)!r}: ")
    assert message.isprintable()
    return message.partition(f"{str(path)!r}: ")[2]
