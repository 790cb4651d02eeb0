"""vggfeat.pictures.deep and its callers: PNG and TIFF of 16 bits a channel."""

import struct
import sys
import zlib
from pathlib import Path

import kornia_rs
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from vggfeat.errors import ImageError, InputError
from vggfeat.pictures import deep
from vggfeat.pictures.images import Picture, check_writable, from_pil, read_picture, read_text, write_picture

RANDOM = np.random.default_rng(0)


def noise(*shape: int) -> np.ndarray:
    return RANDOM.integers(0, 65536, shape).astype(np.uint16)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, colour: int, rows: bytes, *before: bytes, interlace: int = 0) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, interlace))
    packed = zlib.compress(rows)
    parts = chunk(b"IDAT", packed[:9]) + chunk(b"IDAT", packed[9:])
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(before) + parts + chunk(b"IEND", b"")


def tiff(image: np.ndarray, order: str = "<", *, packed: bool = False, tile: int = 0, **changes: object) -> bytes:
    """A TIFF by the book: strips of three rows, or square tiles; `changes` are fields by number, `None` removes one."""
    height, width, channels = image.shape
    squares = [(top, left) for top in range(0, height, tile or 3) for left in range(0, width, tile or width)]
    data, places, sizes = b"", [], []
    for top, left in squares:
        part = image[top : top + (tile or 3), left : left + (tile or width)]
        if tile:
            part = np.pad(part, [(0, tile - part.shape[0]), (0, tile - part.shape[1]), (0, 0)], mode="edge")
        if changes.get("f317") == [2]:
            part = np.diff(part.astype(int), axis=1, prepend=0).astype(np.uint16)
        stored = part.astype(f"{order}u2").tobytes()
        stored = zlib.compress(stored) if packed else stored
        places.append(8 + len(data))
        sizes.append(len(stored))
        data += stored
    fields = {256: [width], 257: [height], 258: [16] * channels, 259: [8 if packed else 1], 262: [2], 277: [channels]}
    fields |= {322: [tile], 323: [tile], 324: places, 325: sizes} if tile else {273: places, 278: [3], 279: sizes}
    fields |= {338: [2]} if channels == 4 else {}
    fields |= {int(name[1:]): values for name, values in changes.items()}
    fields = {tag: fields[tag] for tag in sorted(fields) if fields[tag] is not None}
    data += bytes(len(data) % 2)
    extra, table = b"", struct.pack(f"{order}H", len(fields))
    start = 8 + len(data) + 2 + 12 * len(fields) + 4
    for tag, values in fields.items():
        value = struct.pack(f"{order}{len(values)}I", *values)
        if len(value) > 4:
            value, extra = struct.pack(f"{order}I", start + len(extra)), extra + value
        table += struct.pack(f"{order}HHI", tag, 4, len(values)) + value
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return mark + struct.pack(f"{order}I", 8 + len(data)) + data + table + bytes(4) + extra


def pixels(picture: Picture) -> np.ndarray:
    """The (H, W, 3 or 4) numbers of a picture, in 65535ths."""
    channels = picture.rgb if picture.alpha is None else torch.cat([picture.rgb, picture.alpha], 1)
    numbers = channels[0].permute(1, 2, 0).double().numpy() * 65535
    assert np.abs(numbers - np.rint(numbers)).max() < 0.01
    return np.rint(numbers).astype(int)


def read(path: Path, data: bytes) -> Picture:
    path.write_bytes(data)
    return read_picture(path)


# ---------------------------------------------------------------------------------------------------- reading


def unfiltered(filters: list[int], rows: np.ndarray, size: int) -> np.ndarray:
    """The PNG specification, byte by byte."""
    plain = np.zeros((rows.shape[0] + 1, rows.shape[1] + size), int)
    for y, kind in enumerate(filters, 1):
        for x in range(size, plain.shape[1]):
            a, b, c = plain[y, x - size], plain[y - 1, x], plain[y - 1, x - size]
            p = a + b - c
            nearest = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
            plain[y, x] = (rows[y - 1, x - size] + (0, a, b, (a + b) // 2, nearest)[kind]) % 256
    return plain[1:, size:]


@pytest.mark.parametrize(("colour", "channels"), [(2, 3), (6, 4), (4, 2)])
@pytest.mark.parametrize("filters", [[0], [1], [2], [3], [4], [4, 3, 0, 2, 1]])
def test_png_with_every_filter(tmp_path: Path, colour: int, channels: int, filters: list[int]) -> None:
    height, width = 11, 7
    kinds = (filters * height)[:height]
    stored = RANDOM.integers(0, 256, (height, width * channels * 2))
    expected = unfiltered(kinds, stored, channels * 2).reshape(height, width, channels, 2) @ [256, 1]
    rows = b"".join(bytes([kind, *row]) for kind, row in zip(kinds, stored.tolist(), strict=True))
    picture = read(tmp_path / "a.png", png(width, height, colour, rows))
    assert picture.bits == 16
    assert np.array_equal(pixels(picture), expected[..., [0, 0, 0, 1]] if channels == 2 else expected)


def test_one_transparent_colour_of_16_bits(tmp_path: Path) -> None:
    image = np.array([[[1, 2, 3], [1, 2, 4]]], np.uint16)
    rows = b"\0" + image.astype(">u2").tobytes()
    picture = read(tmp_path / "a.png", png(2, 1, 2, rows, chunk(b"tRNS", struct.pack(">3H", 1, 2, 3))))
    assert pixels(picture).tolist() == [[[1, 2, 3, 0], [1, 2, 4, 65535]]]


def test_interlaced_png_comes_in_8_bits(tmp_path: Path) -> None:
    rows = b"\0" + struct.pack(">3H", 0x1234, 0xFFFF, 0x00FF)
    picture = read(tmp_path / "a.png", png(1, 1, 2, rows, interlace=1))
    assert (picture.bits, pixels(picture).tolist()) == (8, [[[0x1212, 0xFFFF, 0]]])


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("tile", [0, 16])
@pytest.mark.parametrize(("packed", "predictor"), [(False, 1), (True, 1), (True, 2)])
@pytest.mark.parametrize("channels", [3, 4])
def test_tiff(tmp_path: Path, order: str, tile: int, packed: bool, predictor: int, channels: int) -> None:
    image = noise(20, 37, channels)
    picture = read(tmp_path / "a.tif", tiff(image, order, packed=packed, tile=tile, f317=[predictor]))
    assert picture.bits == 16
    assert np.array_equal(pixels(picture), image)


@pytest.mark.parametrize(("kind", "expected"), [(0, [100, 200, 300]), (1, [200, 400, 600, 32767]), (2, None)])
def test_the_fourth_channel_of_a_tiff(tmp_path: Path, kind: int, expected: list[int] | None) -> None:
    image = np.array([[[100, 200, 300, 32767]]], np.uint16)
    picture = read(tmp_path / "a.tif", tiff(image, f338=[kind]))
    assert np.abs(pixels(picture)[0, 0] - (expected or image[0, 0].astype(int))).max() <= 1
    assert pixels(picture).shape[2] == (3 if kind == 0 else 4)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_that_of_8_bits(tmp_path: Path, orientation: int) -> None:
    image = noise(5, 8, 4)
    exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0" + bytes([orientation, 0, 0, 0, 0, 0, 0, 0])
    data = deep.encode_png(image)
    turned_png = data[:33] + chunk(b"eXIf", exif) + data[33:]
    for name, turned in (("a.png", turned_png), ("a.tif", tiff(image, packed=True, f274=[orientation]))):
        picture = read(tmp_path / name, turned)
        small = Image.fromarray((image >> 8).astype(np.uint8))
        small.getexif()[0x0112] = orientation
        small.save(tmp_path / "small.png", exif=small.getexif())
        assert np.array_equal(pixels(picture) >> 8, pixels(read_picture(tmp_path / "small.png")) // 257)
        assert picture.bits == 16


def test_what_has_8_bits_and_what_has_more(tmp_path: Path) -> None:
    for mode in ("1", "L", "P", "RGB", "RGBA", "CMYK"):
        Image.new(mode, (2, 2)).save(tmp_path / "a.tiff")
        assert read_picture(tmp_path / "a.tiff").bits == 8
    for values in (np.zeros((2, 2), np.uint16), np.zeros((2, 2), np.float32), np.zeros((2, 2), np.int32)):
        Image.fromarray(values).save(tmp_path / "a.tiff")
        assert read_picture(tmp_path / "a.tiff").bits == 16


def test_pil_images_that_are_not_loaded_are_read_at_their_depth(tmp_path: Path) -> None:
    image = noise(4, 4, 3)
    (tmp_path / "a.png").write_bytes(deep.encode_png(image))
    with Image.open(tmp_path / "a.png") as opened:
        assert np.array_equal(pixels(from_pil(opened)), image)
        assert from_pil(opened).bits == 8  # now it is loaded, and cut


@pytest.mark.parametrize("kind", ["png", "tif"])
def test_damage_is_refused_or_shows_nothing_else(tmp_path: Path, kind: str) -> None:
    whole = deep.encode_png(noise(9, 9, 3)) if kind == "png" else tiff(noise(9, 9, 3), packed=True, f317=[2])
    path = tmp_path / f"a.{kind}"
    refused = 0
    for place in range(8, len(whole), 7):
        for data in (whole[:place], whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :]):
            path.write_bytes(data)
            try:
                assert read_picture(path).rgb.isfinite().all()
            except ImageError:
                refused += 1
    assert refused > 50


# ---------------------------------------------------------------------------------------------------- writing


@pytest.mark.parametrize("ending", ["png", "tif", "tiff"])
@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("size", [(1, 1), (5, 7), (300, 2000)])
def test_what_is_written_comes_back(tmp_path: Path, ending: str, channels: int, size: tuple[int, int]) -> None:
    image = noise(*size, channels)
    tensor = torch.from_numpy(image.astype(np.float32) / np.float32(65535)).permute(2, 0, 1)[None]
    path, texts = tmp_path / f"a.{ending}", {"Software": "vggfeat", "vggfeat": "ü \U0001f3a8"}
    write_picture(path, tensor[:, :3], alpha=tensor[:, 3:] if channels == 4 else None, bits=16, text=texts)
    picture = read_picture(path)
    assert picture.bits == 16
    assert np.array_equal(pixels(picture), image)
    assert read_text(path) == texts
    # Other readers: Pillow sees the upper halves, kornia's library all of it.
    with Image.open(path) as opened:
        assert opened.mode == ("RGBA" if channels == 4 else "RGB")
        assert np.array_equal(np.array(opened), image >> 8)
    if channels == 3:
        other = kornia_rs.io.read_image_png_u16 if ending == "png" else kornia_rs.io.read_image_tiff_u16
        assert np.array_equal(other(str(tmp_path / f"a.{ending}"), "rgb"), image)


def test_8_bits_where_16_do_not_fit(tmp_path: Path) -> None:
    rgb = torch.rand(1, 3, 8, 8)
    for ending in ("jpg", "webp"):
        write_picture(tmp_path / f"16.{ending}", rgb, bits=16)
        write_picture(tmp_path / f"8.{ending}", rgb)
        assert (tmp_path / f"16.{ending}").read_bytes() == (tmp_path / f"8.{ending}").read_bytes()
        assert read_picture(tmp_path / f"16.{ending}").bits == 8
    with pytest.raises(InputError, match="bits is 12: a channel has 8 or 16"):
        write_picture(tmp_path / "a.png", rgb, bits=12)


def test_16_bits_of_what_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="1 of the picture's 12 values are NaN or infinite"):
        write_picture(tmp_path / "a.png", torch.tensor([float("nan")] + [0.0] * 11).view(1, 3, 2, 2), bits=16)
    with pytest.raises(InputError, match="alpha is a"):
        write_picture(tmp_path / "a.png", torch.rand(1, 3, 2, 2), alpha=torch.rand(1, 1, 3, 2), bits=16)
    assert not list(tmp_path.iterdir())


def test_values_are_clamped_and_rounded(tmp_path: Path) -> None:
    values = torch.tensor([-1.0, 2.0, 0.5 / 65535, 1.5 / 65535, 2.4 / 65535, 2.6 / 65535]).view(1, 3, 1, 2)
    write_picture(tmp_path / "a.png", values, bits=16)
    assert pixels(read_picture(tmp_path / "a.png"))[0].T.ravel().tolist() == [0, 65535, 0, 2, 2, 3]


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_without_the_extra_the_error_names_it(tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / f"a.{ending}"
    write_picture(path, torch.rand(1, 3, 2, 2), bits=16)
    for name in ("imagecodecs", "tifffile"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImageError, match=r'cannot read .*: 16 bits a channel need \w+: pip install "vggfeat\[deep\]"$'):
        read_picture(path)
    write_picture(tmp_path / "b.png", torch.rand(1, 3, 2, 2), bits=16)  # PNG is written without it
    with pytest.raises(ImageError, match=r"^cannot write '.*': 16 bits a channel need tifffile"):
        check_writable(tmp_path / "b.tif", bits=16)
    with pytest.raises(ImageError, match=r"^cannot write '.*': 16 bits a channel need tifffile"):
        write_picture(tmp_path / "b.tif", torch.rand(1, 3, 2, 2), bits=16)


@pytest.mark.parametrize("compression", ["lzw", "zstd"])
def test_tiff_of_other_compressions(tmp_path: Path, compression: str) -> None:
    image = noise(20, 30, 3)
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb", compression=compression)
    picture = read_picture(tmp_path / "a.tif")
    assert picture.bits == 16
    assert np.array_equal(pixels(picture), image)


def test_tiff_of_planes(tmp_path: Path) -> None:
    image = noise(20, 30, 3)
    tifffile.imwrite(tmp_path / "a.tif", np.moveaxis(image, 2, 0), photometric="rgb", planarconfig="separate")
    assert np.array_equal(pixels(read_picture(tmp_path / "a.tif")), image)
