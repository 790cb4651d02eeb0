"""Every kind of picture file is decoded to the pixels that it holds."""

import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from picture_files import (
    ADOBE_ICC,
    CMYK_ICC,
    COLOURS,
    ORIENTATION,
    RGB,
    adobe_to_srgb,
    alphas,
    chunk,
    cmyk_profile,
    encoded,
    pixels,
    png,
    refusal,
    saved,
    srgb_curve,
)
from PIL import Image

from vggfeat.errors import ImageError
from vggfeat.pictures.images import (
    Picture,
    from_pil,
    read_picture,
)


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
    assert 'a.heic\': HEIC needs pillow-heif: pip install "vggfeat[heic]"' in done.stderr
