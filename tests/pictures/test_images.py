"""vggfeat.pictures.images: every kind of file, every way to fail."""

import errno
import io
import json
import os
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, JpegImagePlugin

from vggfeat.errors import ImageError, InputError
from vggfeat.pictures.images import (
    Picture,
    check_writable,
    fit,
    from_pil,
    read_picture,
    read_text,
    resize,
    to_pil,
    write_picture,
)

COLOURS = np.array(
    [[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[10, 20, 30], [128, 128, 128], [250, 240, 230]]], np.uint8
)
ORIENTATION = 0x0112


# ---------------------------------------------------------------------------------------------------- sample files


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


# Adobe RGB (1998) adapted to D50, and sRGB likewise: columns are the XYZ of red, green and blue.
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


# ---------------------------------------------------------------------------------------------------- kinds of file


@pytest.mark.parametrize("ending", ["png", "bmp", "gif", "tiff", "webp", "ppm", "tga"])
def test_rgb_is_read_exactly(tmp_path: Path, ending: str) -> None:
    options = {"lossless": True} if ending == "webp" else {}
    picture = read_picture(saved(tmp_path / f"a.{ending}", Image.fromarray(COLOURS), **options))
    assert np.allclose(pixels(picture), COLOURS, atol=1e-4)
    assert picture.alpha is None
    assert picture.icc is None


def test_jpeg_is_read(tmp_path: Path) -> None:
    flat = Image.new("RGB", (16, 8), (200, 100, 50))
    picture = read_picture(str(saved(tmp_path / "a.JPG", flat, format="JPEG", quality=100)))
    assert picture.rgb.shape == (1, 3, 8, 16)
    assert np.abs(pixels(picture) - (200, 100, 50)).max() <= 2


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("ending", ["png", "webp", "tiff"])
def test_orientation_turns_colour_and_alpha(tmp_path: Path, ending: str, orientation: int) -> None:
    upright = {
        2: np.fliplr,
        3: lambda a: a[::-1, ::-1],
        4: np.flipud,
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90,
    }.get(orientation, lambda a: a)
    rgba = np.dstack([COLOURS, np.array([[255, 200, 150], [100, 50, 1]], np.uint8)])
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options = {"lossless": True, "exact": True} if ending == "webp" else {}
    picture = read_picture(saved(tmp_path / f"a.{ending}", Image.fromarray(rgba), exif=exif, **options))
    assert np.allclose(pixels(picture), upright(rgba)[..., :3], atol=1e-4)
    assert np.allclose(alphas(picture), upright(rgba)[..., 3], atol=1e-4)


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0junk", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 40]
)
def test_absurd_exif_leaves_the_picture_as_it_is(tmp_path: Path, exif: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded(Image.fromarray(COLOURS), "PNG", exif=exif))
    assert np.allclose(pixels(read_picture(path)), COLOURS, atol=1e-4)


def test_partly_damaged_exif_still_tells_the_orientation(tmp_path: Path) -> None:
    fields = (
        struct.pack(">H", 2)
        + struct.pack(">HHIHH", ORIENTATION, 3, 1, 6, 0)
        + struct.pack(">HHII", 0x010F, 2, 99, 9999)
    )
    path = tmp_path / "a.png"
    path.write_bytes(encoded(Image.fromarray(COLOURS), "PNG", exif=b"Exif\0\0MM\0*\0\0\0\x08" + fields + bytes(4)))
    with pytest.warns(UserWarning, match="(?i)exif|tag"), Image.open(path) as image:
        image.getexif()
    assert np.allclose(pixels(read_picture(path)), np.rot90(COLOURS, -1), atol=1e-4)


def test_grey_and_bits(tmp_path: Path) -> None:
    grey = np.array([[0, 1, 127, 255]], np.uint8)
    picture = read_picture(saved(tmp_path / "l.png", Image.fromarray(grey)))
    assert np.allclose(pixels(picture), grey[..., None].repeat(3, -1), atol=1e-4)
    picture = read_picture(saved(tmp_path / "1.png", Image.fromarray(grey).convert("1", dither=Image.Dither.NONE)))
    assert pixels(picture)[0, :, 1].tolist() == [0, 0, 0, 255]


def test_grey_with_alpha(tmp_path: Path) -> None:
    pair = np.array([[[7, 0], [90, 128], [255, 255]]], np.uint8)
    picture = read_picture(
        saved(tmp_path / "la.png", Image.merge("LA", [Image.fromarray(band) for band in (pair[..., 0], pair[..., 1])]))
    )
    assert np.allclose(pixels(picture), pair[..., :1].repeat(3, -1), atol=1e-4)
    assert np.allclose(alphas(picture), pair[..., 1], atol=1e-4)


@pytest.mark.parametrize(
    ("colour", "row", "clear", "expected"),
    [
        (0, bytes((5, 9)), struct.pack(">H", 9), [[5] * 3, [9] * 3]),
        (2, bytes((1, 2, 3, 4, 5, 6)), struct.pack(">3H", 4, 5, 6), [[1, 2, 3], [4, 5, 6]]),
    ],
)
def test_one_transparent_colour(
    tmp_path: Path, colour: int, row: bytes, clear: bytes, expected: list[list[int]]
) -> None:
    (tmp_path / "a.png").write_bytes(png(2, 1, 8, colour, b"\0" + row, chunk(b"tRNS", clear)))
    picture = read_picture(tmp_path / "a.png")
    assert np.allclose(pixels(picture), [expected], atol=1e-4)
    assert alphas(picture).tolist() == [[255, 0]]


@pytest.mark.parametrize("transparency", [None, 1, bytes((255, 0, 77))])
def test_palette(tmp_path: Path, transparency: int | bytes | None) -> None:
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8)).convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    options = {} if transparency is None else {"transparency": transparency}
    picture = read_picture(saved(tmp_path / "p.png", image, **options))
    assert np.allclose(pixels(picture), [[[10, 20, 30], [40, 50, 60], [70, 80, 90]]], atol=1e-4)
    if transparency is None:
        assert picture.alpha is None
    else:
        assert np.allclose(alphas(picture), [[255, 0, 255 if transparency == 1 else 77]], atol=1e-4)


def test_cmyk_without_a_profile(tmp_path: Path) -> None:
    cmyk = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    assert pixels(read_picture(saved(tmp_path / "a.tiff", cmyk)))[3, 3].tolist() == [0, 255, 255]
    path = saved(tmp_path / "a.jpg", cmyk, quality=100)  # Pillow writes Adobe's inverted inks
    assert b"Adobe" in path.read_bytes()
    assert np.abs(pixels(read_picture(path))[3, 3] - [0, 255, 255]).max() <= 3


@pytest.mark.parametrize("ending", ["tiff", "jpg"])
def test_cmyk_with_a_profile(tmp_path: Path, ending: str) -> None:
    cmyk = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    options = {"quality": 100} if ending == "jpg" else {}
    picture = read_picture(saved(tmp_path / f"a.{ending}", cmyk, icc_profile=CMYK_ICC, **options))
    luminance = ((170 / 255 * 100 + 16) / 116) ** 3  # L* of full cyan is 170 / 255 of 100
    assert np.abs(pixels(picture)[3, 3] - 255 * srgb_curve(np.array(luminance))).max() <= 2
    assert picture.icc == CMYK_ICC


def test_the_black_of_a_print_becomes_black(tmp_path: Path) -> None:
    path = tmp_path / "a.tiff"
    for ink, expected in ((255, 0), (0, 255)):
        inks = Image.new("CMYK", (1, 1), (ink, ink, ink, ink))
        picture = read_picture(saved(path, inks, icc_profile=cmyk_profile(black=20)))
        assert np.abs(pixels(picture)[0, 0] - expected).max() <= 2


def test_premultiplied_alpha_is_divided_out() -> None:
    picture = from_pil(Image.merge("LA", [Image.new("L", (1, 1), 200), Image.new("L", (1, 1), 51)]).convert("La"))
    assert pixels(picture)[0, 0].tolist() == [200, 200, 200]
    assert alphas(picture).tolist() == [[51]]
    picture = from_pil(Image.new("RGBA", (1, 1), (200, 100, 0, 51)).convert("RGBa"))
    assert pixels(picture)[0, 0].tolist() == [200, 100, 0]


def test_lab(tmp_path: Path) -> None:
    picture = read_picture(saved(tmp_path / "a.tiff", Image.new("LAB", (1, 1), (137, 128, 128))))
    luminance = ((137 / 255 * 100 + 16) / 116) ** 3
    assert np.abs(pixels(picture)[0, 0] - 255 * srgb_curve(np.array(luminance))).max() <= 1.5


@pytest.mark.parametrize("order", ["<u2", ">u2"])
@pytest.mark.parametrize("ending", ["png", "tiff"])
def test_grey_of_16_bits_keeps_them(tmp_path: Path, ending: str, order: str) -> None:
    values = np.array([[0, 1, 257, 300, 65535]], np.uint16)
    mode = "I;16" if order == "<u2" else "I;16B"
    image = Image.frombytes(mode, (5, 1), values.astype(order).tobytes())
    picture = read_picture(saved(tmp_path / f"a.{ending}", image))
    assert np.allclose(pixels(picture)[..., 2], values / 257, atol=1e-4)
    assert np.allclose(pixels(from_pil(image))[..., 0], values / 257, atol=1e-4)


def test_transparent_grey_of_16_bits(tmp_path: Path) -> None:
    rows = b"\0" + struct.pack(">2H", 300, 301)
    (tmp_path / "a.png").write_bytes(png(2, 1, 16, 0, rows, chunk(b"tRNS", struct.pack(">H", 300))))
    assert alphas(read_picture(tmp_path / "a.png")).tolist() == [[0, 255]]


def test_integers_and_floats(tmp_path: Path) -> None:
    integers = Image.fromarray(np.array([[0, 300, 65535]], np.int32))
    assert np.allclose(
        pixels(read_picture(saved(tmp_path / "i.tiff", integers)))[0, :, 0], [0, 300 / 257, 255], atol=1e-4
    )
    floats = np.array([[0, 0.1234567, 1]], np.float32)
    picture = read_picture(saved(tmp_path / "f.tiff", Image.fromarray(floats)))
    assert np.allclose(picture.rgb[0, 1].numpy(), floats, atol=1e-7)


@pytest.mark.parametrize("values", [
    np.array([[0, 65536]], np.int32), np.array([[-1, 5]], np.int32),
    np.array([[0, 1.01]], np.float32), np.array([[-0.1, 1]], np.float32), np.array([[0, np.nan]], np.float32),
])  # fmt: skip
def test_values_without_a_known_range_are_refused(tmp_path: Path, values: np.ndarray) -> None:
    with pytest.raises(ImageError, match=r"a\.tiff.*its values span \[.*\], not \[0, (1|65535)\]"):
        read_picture(saved(tmp_path / "a.tiff", Image.fromarray(values)))


@pytest.mark.parametrize("ending", ["gif", "png", "webp", "tiff"])
def test_animation_gives_its_first_frame(tmp_path: Path, ending: str) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ((255, 0, 0), (0, 255, 0))]
    options = {"lossless": True} if ending == "webp" else {}
    path = saved(tmp_path / f"a.{ending}", frames[0], save_all=True, append_images=frames[1:], **options)
    assert pixels(read_picture(path))[0, 0].tolist() == [255, 0, 0]


# ---------------------------------------------------------------------------------------------------- colour


def test_profile_is_converted_to_srgb(tmp_path: Path) -> None:
    inside = np.array([[[100, 150, 120], [200, 100, 90], [128, 128, 128], [255, 255, 255]]], np.uint8)
    expected = adobe_to_srgb(inside)
    assert np.abs(expected - inside).max() > 20  # the conversion is not a matter of rounding
    for mode in ("RGB", "RGBA", "P"):
        image = Image.fromarray(inside).convert(mode, palette=Image.Palette.ADAPTIVE)
        picture = read_picture(saved(tmp_path / f"{mode}.png", image, icc_profile=ADOBE_ICC))
        assert np.abs(pixels(picture) - expected).max() < 1.5
        assert picture.icc == ADOBE_ICC
        assert (picture.alpha is not None) == (mode == "RGBA")


def test_grey_profile(tmp_path: Path) -> None:
    grey = np.array([[0, 60, 128, 255]], np.uint8)
    expected = 255 * srgb_curve(grey / 255.0)
    picture = read_picture(saved(tmp_path / "8.png", Image.fromarray(grey), icc_profile=GREY_ICC))
    assert np.abs(pixels(picture)[..., 0] - expected).max() < 1.5
    deep = Image.frombytes("I;16", (4, 1), (grey.astype("<u2") * 257).tobytes())
    picture = read_picture(saved(tmp_path / "16.png", deep, icc_profile=GREY_ICC))
    assert np.abs(pixels(picture)[..., 0] - expected).max() < 1.5


def test_grey_that_kept_the_profile_of_its_colours(tmp_path: Path) -> None:
    grey = np.array([[60, 128, 255]], np.uint8)
    picture = read_picture(saved(tmp_path / "a.png", Image.fromarray(grey), icc_profile=ADOBE_ICC))
    assert np.abs(pixels(picture) - adobe_to_srgb(grey[..., None].repeat(3, -1))).max() < 1.5


@pytest.mark.parametrize("icc", [
    b"not a profile", ADOBE_ICC[:200], ADOBE_ICC[:-20], GREY_ICC, CMYK_ICC, matrix_profile(ADOBE * 0.01), b"\0" * 3000,
], ids=["text", "cut", "short", "grey", "cmyk", "dark", "zeros"])  # fmt: skip
def test_unusable_profile_counts_as_srgb(tmp_path: Path, icc: bytes) -> None:
    picture = read_picture(saved(tmp_path / "a.tiff", Image.fromarray(COLOURS), icc_profile=icc))
    assert np.allclose(pixels(picture), COLOURS, atol=1e-4)
    assert picture.icc is None
    write_picture(tmp_path / "b.png", picture.rgb, icc=icc)
    with Image.open(tmp_path / "b.png") as image:
        assert "icc_profile" not in image.info
        assert np.array_equal(np.array(image), COLOURS)


@pytest.mark.parametrize("ending", ["png", "tif", "webp", "jpeg"])
def test_profile_is_kept_on_writing(tmp_path: Path, ending: str) -> None:
    inside = np.array([[100, 150, 120], [200, 100, 90], [128, 128, 128]], np.uint8).repeat(16, 0).reshape(3, 16, 3)
    inside = inside.repeat(16, 0)  # blocks that JPEG keeps
    first = read_picture(saved(tmp_path / "a.png", Image.fromarray(inside), icc_profile=ADOBE_ICC))
    path = tmp_path / f"b.{ending}"
    write_picture(path, first.rgb, alpha=torch.ones(1, 1, 48, 16), icc=first.icc)
    with Image.open(path) as image:
        assert image.info["icc_profile"] == ADOBE_ICC
        assert np.abs(np.array(image.convert("RGB")).astype(int) - inside).max() <= 2
    assert (read_picture(path).rgb - first.rgb).abs().max() <= 2.5 / 255


def test_srgb_profile_changes_nothing(tmp_path: Path) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture = read_picture(saved(tmp_path / "a.png", Image.fromarray(COLOURS), icc_profile=srgb))
    assert np.allclose(pixels(picture), COLOURS, atol=1e-4)
    assert picture.icc == srgb


# ---------------------------------------------------------------------------------------------------- broken files


def refusal(path: Path) -> str:
    with pytest.raises(ImageError) as caught:
        read_picture(path)
    message = str(caught.value)
    assert message.startswith(f"cannot read {str(path)!r}: ")
    assert message.isprintable()
    return message.partition(f"{str(path)!r}: ")[2]


def test_what_is_not_a_picture_file(tmp_path: Path) -> None:
    for name, data, reason in [
        ("empty.png", b"", "it is empty"),
        ("text.png", b"Dear reader,\n" * 100, "it is not a picture Pillow can read"),
        ("a.svg", b'<svg xmlns="http://www.w3.org/2000/svg"/>', "it is not a picture Pillow can read"),
        (
            "a.eps",
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n",
            "it is a vector drawing, not a raster picture",
        ),
        ("a\nb.png", b"no", "it is not a picture Pillow can read"),
    ]:
        (tmp_path / name).write_bytes(data)
        assert refusal(tmp_path / name) == reason
    assert refusal(tmp_path) == "it is a folder"
    os.mkfifo(tmp_path / "pipe.png")
    assert refusal(tmp_path / "pipe.png") == "it is not a regular file"
    (tmp_path / "loop.png").symlink_to("loop.png")
    assert "symbolic links" in refusal(tmp_path / "loop.png")
    assert "name too long" in refusal(tmp_path / ("x" * 300))
    assert "null" in refusal(tmp_path / "a\0b.png")


def test_a_missing_file_names_what_is_near(tmp_path: Path) -> None:
    assert refusal(tmp_path / "Photo.jpg") == "no such file"
    saved(tmp_path / "photo.jpeg", Image.fromarray(COLOURS))
    assert refusal(tmp_path / "Photo.jpg") == "no such file; did you mean 'photo.jpeg'?"
    saved(tmp_path / "PHOTO.JPG", Image.fromarray(COLOURS))
    assert refusal(tmp_path / "Photo.jpg") == "no such file; did you mean 'PHOTO.JPG' or 'photo.jpeg'?"
    assert refusal(tmp_path / "none" / "a.jpg") == "no such file"
    assert refusal(tmp_path / "photo.jpeg" / "a.jpg") == "no such file"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_truncated(tmp_path: Path, kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    whole = encoded(Image.fromarray(noise), kind)
    path = tmp_path / "a.bin"
    path.write_bytes(whole[: len(whole) // 2])
    reason = refusal(path)
    assert reason.startswith("the file is ")
    if kind in {"JPEG", "PNG"}:
        assert reason == "the file is truncated"


PLAIN = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "TGA", "ICO", "JPEG2000", "PCX", "SGI", "DDS")
BROKEN = [*((kind, {}) for kind in PLAIN), *(("TIFF", {"compression": name}) for name in ("tiff_lzw", "jpeg"))]


@pytest.mark.parametrize(("kind", "options"), BROKEN, ids=[" ".join((kind, *o.values())) for kind, o in BROKEN])
def test_any_bytes_give_a_picture_or_an_image_error(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], kind: str, options: dict[str, str]
) -> None:
    generator = np.random.default_rng(7)
    exif = {} if kind in {"BMP", "PPM", "TGA", "ICO", "PCX", "SGI", "DDS", "GIF"} else {"exif": Image.Exif()}
    if exif:
        exif["exif"][ORIENTATION] = 6
    smooth = np.add.outer(np.arange(30), np.arange(20))[..., None].repeat(3, -1).astype(np.uint8)
    whole = encoded(Image.fromarray(smooth), kind, **options, **exif)
    path, refused = tmp_path / "broken.bin", 0
    cuts = [whole[: int(len(whole) * part)] for part in np.linspace(0, 1, 14)[:-1]]
    flips = []
    for count in (1, 1, 1, 1, 2, 2, 3, 5, 8, 13, 21, 34):
        data = np.frombuffer(whole, np.uint8).copy()
        reach = len(data) if count % 2 else min(len(data), 200)  # headers are where parsers break
        data[generator.integers(0, reach, count)] = generator.integers(0, 256, count)
        flips.append(data.tobytes())
    for data in (*cuts, *flips, generator.bytes(500), whole[:20] + generator.bytes(500)):
        path.write_bytes(data)
        try:
            picture = read_picture(path, max_pixels=1_000_000)
        except ImageError as error:
            refused += 1
            assert str(error).startswith(f"cannot read {str(path)!r}: ")  # noqa: PT017 - only some are refused
            assert str(error).isprintable()  # noqa: PT017 - likewise
        else:
            assert 0 <= pixels(picture).min() <= pixels(picture).max() <= 255
    assert refused >= 5
    if kind != "TIFF":  # libtiff itself speaks on the process's stderr
        assert capfd.readouterr() == ("", "")


def test_corrupt_png_chunks(tmp_path: Path) -> None:
    whole = encoded(Image.fromarray(COLOURS), "PNG")
    path = tmp_path / "a.png"
    for name in (b"IHDR", b"IDAT"):
        at = whole.index(name) + 4
        path.write_bytes(whole[:at] + b"\xff\xff" + whole[at + 2 :])
        assert len(refusal(path)) > 10


def test_no_pixels(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(0, 5, 8, 2, b""))
    refusal(tmp_path / "a.png")
    with pytest.raises(ImageError, match="cannot read the PIL image: it has no pixels: its size is 0 x 5"):
        from_pil(Image.new("RGB", (0, 5)))


def test_too_many_pixels_are_refused_before_decoding(tmp_path: Path) -> None:
    limit, path = Image.MAX_IMAGE_PIXELS, tmp_path / "a.png"
    path.write_bytes(png(15000, 15000, 8, 2, b""))  # no data: decoding would call it truncated
    assert refusal(path) == "it has 15000 x 15000 = 225000000 pixels, the limit is 200000000"
    path.write_bytes(png(100000, 100000, 8, 2, b""))
    assert refusal(path) == "it has more than 400000000 pixels, the limit is 200000000"
    saved(path, Image.fromarray(COLOURS))
    assert read_picture(path, max_pixels=6).rgb.shape == (1, 3, 2, 3)
    with pytest.raises(ImageError, match="it has 3 x 2 = 6 pixels, the limit is 5"):
        read_picture(path, max_pixels=5)
    assert limit == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("ending", ["png", "tiff", "jpg"])
def test_the_limit_given_counts_instead_of_pillows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    path = saved(tmp_path / f"a.{ending}", Image.fromarray(COLOURS))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2)
    assert read_picture(path).rgb.shape == (1, 3, 2, 3)
    assert Image.MAX_IMAGE_PIXELS == 2


def test_pillows_warnings_stay_inside_in_many_threads(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(1, 1, 8, 0, b"\0\x80", chunk(b"acTL", bytes(8))))
    with pytest.warns(UserWarning, match="Invalid APNG"), Image.open(path):
        pass
    filters, limit, failures = list(warnings.filters), Image.MAX_IMAGE_PIXELS, []

    def work() -> None:
        try:
            for _ in range(20):
                read_picture(path, max_pixels=9)
        except Exception as error:  # noqa: BLE001 - told to the main thread
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert list(warnings.filters) == filters
    assert limit == Image.MAX_IMAGE_PIXELS


def test_from_pil_shares_the_conversion(tmp_path: Path) -> None:
    image = Image.fromarray(COLOURS)
    image.info["icc_profile"] = ADOBE_ICC
    image.getexif()[ORIENTATION] = 6
    picture = from_pil(image)
    assert np.abs(pixels(picture) - np.rot90(adobe_to_srgb(COLOURS), -1)).max() < 1.5
    assert image.size == (3, 2)
    whole = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)), "JPEG")
    (tmp_path / "a.jpg").write_bytes(whole[:1200])
    with Image.open(tmp_path / "a.jpg") as lazy, pytest.raises(ImageError, match="PIL image: the file is truncated"):
        from_pil(lazy)


# ---------------------------------------------------------------------------------------------------- writing

RGB = torch.from_numpy(COLOURS).permute(2, 0, 1)[None].float() / 255
ALPHA = torch.tensor([[[[0, 100, 200], [255, 1, 50]]]]) / 255


@pytest.mark.parametrize("name", ["a.png", "a.WEBP", "a.tif", "a.TIFF"])
def test_written_pixels_come_back(tmp_path: Path, name: str) -> None:
    write_picture(tmp_path / name, RGB, alpha=ALPHA)
    picture = read_picture(tmp_path / name)
    assert torch.equal(picture.rgb, RGB)
    assert picture.alpha is not None
    assert torch.equal(picture.alpha, ALPHA)
    write_picture(str(tmp_path / name), RGB)
    assert read_picture(tmp_path / name).alpha is None
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["a.jpg", "a.JPEG"])
def test_jpeg_is_95_without_subsampling_and_drops_alpha(tmp_path: Path, name: str) -> None:
    rgb = RGB.repeat_interleave(16, 2).repeat_interleave(16, 3)
    write_picture(tmp_path / name, rgb, alpha=torch.zeros(1, 1, 32, 48))
    reference = Image.open(io.BytesIO(encoded(to_pil(rgb), "JPEG", quality=95)))
    with Image.open(tmp_path / name) as image:
        assert image.format == "JPEG"
        assert JpegImagePlugin.get_sampling(image) == 0
        assert image.quantization == reference.quantization
    assert (read_picture(tmp_path / name).rgb - rgb).abs().max() <= 3 / 255


def test_the_same_picture_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg", "a.webp", "a.tif"):
        write_picture(tmp_path / name, RGB, icc=ADOBE_ICC)
        first = (tmp_path / name).read_bytes()
        write_picture(tmp_path / name, RGB, icc=ADOBE_ICC)
        assert (tmp_path / name).read_bytes() == first


TEXTS = {
    "Title": "Größe \u65e5\u672c \U0001f3a8 'single' \"double\" \\",
    "lines and tabs": "\n\t\r\n\x01 x " * 50,
    "empty": "",
    "a" * 79: "{}",
}


@pytest.mark.parametrize("ending", ["png", "jpg", "jpeg", "webp", "tif", "tiff"])
def test_texts_come_back(tmp_path: Path, ending: str) -> None:
    rgb, alpha = torch.rand(1, 3, 5, 7), torch.rand(1, 1, 5, 7)
    plain, path = tmp_path / f"plain.{ending}", tmp_path / f"a.{ending}"
    write_picture(plain, rgb, alpha=alpha, icc=ADOBE_ICC)
    write_picture(path, rgb, alpha=alpha, icc=ADOBE_ICC, text=TEXTS)
    assert read_text(path) == TEXTS
    assert list(read_text(path)) == list(TEXTS)
    assert read_text(plain) == {}
    before, after = read_picture(plain), read_picture(path)
    assert torch.equal(before.rgb, after.rgb)
    assert before.icc == after.icc == ADOBE_ICC
    assert ending.startswith("jp") or torch.equal(before.alpha, after.alpha)
    write_picture(path, rgb, text={})
    assert read_text(path) == {}


def test_other_programs_read_the_texts(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png", torch.rand(1, 3, 5, 7), text=TEXTS)
    data = (tmp_path / "a.png").read_bytes()
    assert chunk(b"iTXt", b"Title\0\0\0\0\0" + TEXTS["Title"].encode()) in data
    assert data.index(b"iTXt") < data.index(b"IDAT")
    write_picture(tmp_path / "a.jpg", torch.rand(1, 3, 5, 7), text=TEXTS)
    with Image.open(tmp_path / "a.jpg") as image:
        assert json.loads(image.getexif()[0x010E]) == TEXTS


@pytest.mark.parametrize("description", ["a plain caption", "[1]", "{", '{"a": 1}', "NaN"])
def test_what_others_describe_is_no_text_of_ours(tmp_path: Path, description: str) -> None:
    exif = Image.Exif()
    exif[0x010E] = description
    assert read_text(saved(tmp_path / "a.jpg", Image.fromarray(COLOURS), exif=exif)) == {}
    assert read_text(saved(tmp_path / "b.jpg", Image.fromarray(COLOURS), exif=b"Exif\0\0broken")) == {}


def test_a_text_behind_the_pixels_is_read(tmp_path: Path) -> None:
    end = chunk(b"IEND", b"")
    data = png(1, 1, 8, 0, b"\0\0").removesuffix(end) + chunk(b"tEXt", b"Comment\0late") + end
    (tmp_path / "a.png").write_bytes(data)
    assert read_text(tmp_path / "a.png") == {"Comment": "late"}


@pytest.mark.parametrize("name", ["", "a" * 80, "ü", " a", "a ", "a  b", "a\nb", "a\0b"])
def test_names_of_texts_that_png_cannot_hold(tmp_path: Path, name: str) -> None:
    for ending in ("png", "jpg"):
        with pytest.raises(InputError, match="names are 1 to 79 printable ASCII characters"):
            write_picture(tmp_path / f"a.{ending}", torch.rand(1, 3, 2, 2), text={name: ""})
    with pytest.raises(InputError, match="'a' has a NUL character"):
        write_picture(tmp_path / "a.png", torch.rand(1, 3, 2, 2), text={"a": "b\0c"})
    assert not list(tmp_path.iterdir())


def test_texts_of_what_is_no_picture(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"cannot read '.*a\.png': it is not a picture"):
        read_text(tmp_path / "a.png")
    with pytest.raises(ImageError, match="no such file"):
        read_text(tmp_path / "absent.png")
    write_picture(tmp_path / "b.png", torch.rand(1, 3, 8, 8))
    with pytest.raises(ImageError, match="the limit is 63"):
        read_text(tmp_path / "b.png", max_pixels=63)


def test_rounding_is_half_to_even_after_the_clamp() -> None:
    halves = (torch.arange(255) + 0.5) / 255
    halves = halves[(halves * 255) % 1 == 0.5]  # those that float32 can say
    assert len(halves) > 100
    row = np.array(to_pil(halves.expand(1, 3, 1, -1)))[0, :, 0]
    assert (row % 2 == 0).all()
    assert (np.abs(row - (halves * 255).numpy()) == 0.5).all()
    wild = torch.tensor([-3.0, -0.001, 1.001, 77.0, 0.4]).expand(1, 3, 1, -1)
    assert np.array(to_pil(wild))[0, :, 1].tolist() == [0, 0, 255, 255, 102]


def test_to_pil_takes_any_float_and_leaves_it_alone() -> None:
    for kind in (torch.float64, torch.float16, torch.bfloat16):
        assert np.array_equal(np.array(to_pil(RGB.to(kind).requires_grad_()))[0], COLOURS[0])
    wild = torch.full((1, 3, 1, 1), 2.0)
    to_pil(wild)
    assert wild.unique().tolist() == [2]
    both = to_pil(RGB, ALPHA)
    assert both.mode == "RGBA"
    assert np.array_equal(np.array(both)[..., 3], (ALPHA[0, 0] * 255).round().numpy())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_refused(tmp_path: Path, bad: float) -> None:
    for rgb, alpha in [(torch.full((1, 3, 2, 2), bad), None), (torch.zeros(1, 3, 2, 2), torch.full((1, 1, 2, 2), bad))]:
        with pytest.raises(ImageError, match="values are NaN or infinite"):
            write_picture(tmp_path / "a.png", rgb, alpha=alpha)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("rgb", [
    torch.zeros(3, 2, 2), torch.zeros(2, 3, 2, 2), torch.zeros(1, 1, 2, 2), torch.zeros(1, 3, 0, 2),
    torch.zeros(1, 3, 2, 2, dtype=torch.uint8),
])  # fmt: skip
def test_tensors_of_another_kind_are_refused(rgb: torch.Tensor) -> None:
    with pytest.raises(
        InputError, match=r"rgb is a torch\.\w+ tensor of shape .*not a floating one of shape \(1, 3, H, W\)"
    ):
        to_pil(rgb)
    with pytest.raises(InputError, match=r"alpha is .* of shape \(1, 1, 2, 3\)"):
        to_pil(RGB, torch.zeros(1, 1, 3, 2))


def unwritable(path: Path) -> str:
    """The reason that check_writable and write_picture both give, word for word."""
    with pytest.raises(ImageError) as early:
        check_writable(path)
    with pytest.raises(ImageError) as late:
        write_picture(path, RGB)
    assert str(early.value) == str(late.value)
    assert str(early.value).isprintable()
    assert str(early.value).startswith(f"cannot write {str(path)!r}: ")
    return str(early.value).partition(f"{str(path)!r}: ")[2]


def test_paths_that_cannot_be_written(tmp_path: Path) -> None:
    known = "choose from .png, .jpg, .jpeg, .webp, .tif, .tiff"
    assert unwritable(tmp_path / "a.gif") == f"unknown ending '.gif': {known}"
    assert unwritable(tmp_path / "png") == f"unknown ending '': {known}"
    assert unwritable(tmp_path / "no" / "a.png") == f"no such folder {str(tmp_path / 'no')!r}"
    (tmp_path / "folder.png").mkdir()
    assert unwritable(tmp_path / "folder.png") == "it is a folder"
    os.mkfifo(tmp_path / "pipe.png")
    assert unwritable(tmp_path / "pipe.png") == "it is not a regular file"
    (tmp_path / "loop.png").symlink_to("loop.png")
    assert "loop" in unwritable(tmp_path / "loop.png")
    assert "null" in unwritable(tmp_path / "a\0b.png")
    check_writable(tmp_path / "good.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.png", "loop.png", "pipe.png"]


@pytest.fixture
def someone() -> Iterator[Path]:
    """A folder of a user who is not root: root may do anything."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        if os.geteuid():
            yield Path(name)
            return
        Path(name).chmod(0o777)
        os.setresuid(65534, 65534, 0)
        try:
            yield Path(name)
        finally:
            os.setresuid(0, 0, 0)


def test_permissions(someone: Path) -> None:
    write_picture(someone / "a.png", RGB)
    (someone / "a.png").chmod(0o444)
    assert unwritable(someone / "a.png") == "permission denied"
    (someone / "a.png").chmod(0)
    assert refusal(someone / "a.png") == "permission denied"
    (someone / "closed").mkdir()
    (someone / "closed").chmod(0o555)
    assert unwritable(someone / "closed" / "a.png") == "permission denied"
    (someone / "closed").chmod(0)
    assert refusal(someone / "closed" / "a.png") == "permission denied"
    assert unwritable(someone / "closed" / "a.png") == "permission denied"


def test_mode_of_a_new_file_is_what_the_umask_leaves(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_picture(tmp_path / "a.png", RGB)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.png").stat().st_mode) == 0o640


def test_mode_of_an_old_file_is_kept(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"old")
    (tmp_path / "a.png").chmod(0o604)
    write_picture(tmp_path / "a.png", RGB)
    assert stat.S_IMODE((tmp_path / "a.png").stat().st_mode) == 0o604
    assert torch.equal(read_picture(tmp_path / "a.png").rgb, RGB)


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_stays_and_its_target_is_written(tmp_path: Path, *, exists: bool) -> None:
    (tmp_path / "deep").mkdir()
    target = tmp_path / "deep" / "target.png"
    if exists:
        target.write_bytes(b"old")
    (tmp_path / "link.png").symlink_to(target)
    write_picture(tmp_path / "link.png", RGB)
    assert (tmp_path / "link.png").is_symlink()
    assert torch.equal(read_picture(target).rgb, RGB)
    assert [path.name for path in target.parent.iterdir()] == ["target.png"]


@pytest.mark.parametrize("step", ["os.fsync", "shutil.copymode", "pathlib.Path.replace"])
def test_a_failing_save_leaves_everything_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "a.png").write_bytes(b"old")
    with monkeypatch.context() as patch:
        patch.setattr(step, full)
        with pytest.raises(ImageError, match=r"^cannot write '.*a\.png': no space left on device$"):
            write_picture(tmp_path / "a.png", RGB)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a.png", b"old")]


def test_an_interrupt_removes_the_temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_picture(tmp_path / "a.png", RGB)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("ending", "most"), [("webp", 16383), ("jpg", 65500)])
def test_what_a_format_cannot_hold_is_saved_as_png(tmp_path: Path, ending: str, most: int) -> None:
    path = tmp_path / f"a.{ending}"
    check_writable(path, size=(1, most))
    write_picture(path, torch.zeros(1, 3, 1, most))
    path.unlink()
    rgb = torch.arange(most + 1).remainder(256).div(255).expand(1, 3, 1, -1)
    told = f"at most {most} pixels a side, not 1x{most + 1}"
    with pytest.raises(ImageError, match=told):
        check_writable(path, size=(1, most + 1))
    (tmp_path / "a.png").write_bytes(b"another")
    with pytest.raises(ImageError, match=rf"cannot write '.*a\.{ending}': .*{told}.*; it is saved as '.*a-2\.png'"):
        write_picture(path, rgb)
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "a-2.png"}
    assert torch.equal(read_picture(tmp_path / "a-2.png").rgb, rgb)


def test_a_kill_in_mid_write_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"old")
    code = (
        "import os, sys, torch; from vggfeat.pictures.images import write_picture\n"
        "os.fsync = lambda fd: os.kill(os.getpid(), 9)\n"
        "write_picture(sys.argv[1], torch.rand(1, 3, 64, 64))"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "a.png"], check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "a.png").read_bytes() == b"old"
    left = [path.name for path in tmp_path.iterdir() if path.name != "a.png"]
    assert len(left) == 1
    assert left[0].startswith(".vggfeat-")


# ---------------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize(("size", "long_side", "expected"), [
    ((480, 640), 320, (240, 320)), ((640, 480), 320, (320, 240)), ((480, 640), 640, (480, 640)),
    ((480, 640), 9999, (480, 640)), ((1, 10000), 100, (1, 100)), ((333, 1000), 100, (33, 100)), ((1, 1), 1, (1, 1)),
])  # fmt: skip
def test_fit(size: tuple[int, int], long_side: int, expected: tuple[int, int]) -> None:
    assert fit(*size, long_side) == expected


@pytest.mark.parametrize("sizes", [(0, 5, 5), (5, -1, 5), (5, 5, 0)])
def test_fit_refuses_nothing(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(InputError, match="sizes must be at least 1"):
        fit(*sizes)


@pytest.mark.parametrize("size", [(7, 9), (20, 31), (40, 50)])
def test_resize_agrees_with_pillow(size: tuple[int, int]) -> None:
    generator = np.random.default_rng(1)
    soft = 0.3 + 0.4 * generator.random((20, 31), np.float32)
    ours = resize(torch.from_numpy(soft).expand(1, 3, -1, -1), *size)
    theirs = np.array(Image.fromarray(soft).resize(size[::-1], Image.Resampling.BILINEAR))
    assert ours.shape == (1, 3, *size)
    assert np.abs(ours[0, 2].numpy() - theirs).max() < 1e-5


@pytest.mark.parametrize("size", [(16, 24), (4, 6), (11, 9), (8, 12), (3, 31)])
def test_resize_that_wraps_is_the_middle_of_a_tiling(size: tuple[int, int]) -> None:
    picture = torch.rand(1, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    height, width = size
    tiled = resize(picture.repeat(1, 1, 5, 5), 5 * height, 5 * width)
    middle = tiled[:, :, 2 * height : 3 * height, 2 * width : 3 * width]
    assert (resize(picture, height, width, wrap=True) - middle).abs().max() < 1e-5


def test_resize_stays_in_range_and_refuses() -> None:
    steps = torch.tensor([0.0, 1.0]).repeat(1, 3, 8, 4)
    larger = resize(steps, 32, 32)
    assert larger.min() == 0
    assert larger.max() == 1
    with pytest.raises(InputError, match="height and width must be at least 1"):
        resize(steps, 0, 5)
    with pytest.raises(InputError, match=r"\(N, C, H, W\)"):
        resize(steps[0], 5, 5)


def test_a_picture_is_frozen_and_small_to_print() -> None:
    picture = Picture(RGB, icc=ADOBE_ICC)
    with pytest.raises(AttributeError):
        picture.icc = None  # type: ignore[misc] - that it fails is the point
    assert "icc" not in repr(picture)
    assert picture != Picture(RGB, icc=ADOBE_ICC)  # compared by identity: tensors have no one truth value


def test_heic_is_read_with_its_plugin(tmp_path: Path) -> None:
    pytest.importorskip("pillow_heif").register_heif_opener()
    saved(tmp_path / "a.heic", Image.new("RGB", (16, 8), (200, 100, 50)))
    assert np.abs(pixels(read_picture(tmp_path / "a.heic")) - (200, 100, 50)).max() < 5


def test_heic_without_its_plugin_names_it(tmp_path: Path) -> None:
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    code = (
        "import sys; sys.modules['pillow_heif'] = None\n"
        "from vggfeat.pictures.images import read_picture\nread_picture(sys.argv[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "a.heic"], capture_output=True, text=True, check=False
    )
    assert "a.heic': HEIC needs pillow-heif: pip install 'vggfeat[heic]'" in done.stderr
