"""Colour profiles: of 8 bits against the definition, of 16 bits against Pillow's conversion and the textbook."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from picture_files import (
    ADOBE,
    ADOBE_ICC,
    CMYK_ICC,
    COLOURS,
    GREY_ICC,
    SRGB,
    adobe_to_srgb,
    matrix_profile,
    pixels,
    saved,
    srgb_curve,
)
from PIL import Image, ImageCms

from vggfeat.pictures import deep
from vggfeat.pictures.images import read_picture, write_picture


def fixed(*values: float) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))


def para(kind: int, *values: float) -> bytes:
    return b"para" + bytes(4) + struct.pack(">HH", kind, 0) + fixed(*values)


def curv(*values: int) -> bytes:
    return b"curv" + bytes(4) + struct.pack(f">I{len(values)}H", len(values), *values)


GAMMA = curv(563)


def profile(curve: bytes, matrix: np.ndarray = ADOBE, **more: bytes) -> bytes:
    tags = {b"wtpt": b"XYZ " + bytes(4) + fixed(0.9642, 1, 0.8249)}
    tags |= {
        name: b"XYZ " + bytes(4) + fixed(*column)
        for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), matrix.T, strict=True)
    }
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve) | {name.encode(): tag for name, tag in more.items()}
    table, body, offset = b"", b"", 132 + 12 * len(tags)
    for name, data in tags.items():
        table += struct.pack(">4sII", name, offset + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    kinds = (0x04200000, b"mntr", b"RGB ", b"XYZ ", bytes(12), b"acsp")
    header = struct.pack(">I4sI4s4s4s12s4s", offset + len(body), bytes(4), *kinds).ljust(68, b"\0")
    return (header + fixed(0.9642, 1, 0.8249)).ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


CURVES = {
    "identity": curv(),
    "gamma": GAMMA,
    "table": curv(*(round(65535 * (i / 99) ** 1.8) for i in range(100))),
    "para0": para(0, 2.2),
    "para1": para(1, 2.2, 1.1, -0.1),
    "para2": para(2, 2.4, 0.95, -0.05, 0.1),
    "para3": para(3, 2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045),
    "para4": para(4, 2.4, 0.9, 0.05, 0.07, 0.04, 0.05, 0.01),
}


@pytest.mark.parametrize("name", CURVES)
def test_curves_are_converted_as_in_8_bits(tmp_path: Path, name: str) -> None:
    data = profile(CURVES[name])
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    other = ImageCms.ImageCmsProfile(io.BytesIO(data))
    how = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
    transform = ImageCms.buildTransform(other, srgb, "RGB", "RGB", *how)
    expected = np.array(transform.apply(Image.fromarray(image)), int)
    (tmp_path / "a.png").write_bytes(deep.encode_png(image.astype(np.uint16) * 257, data))
    picture = read_picture(tmp_path / "a.png")
    assert picture.bits == 16
    wrong = np.abs(picture.rgb[0].permute(1, 2, 0).numpy() * 255 - expected)
    # Curves with an offset are steep near black, where a code of 8 bits spans several.
    assert np.quantile(wrong, 0.99) <= (3 if name in {"para2", "para4"} else 1.1)
    assert wrong.mean() < 0.4


def test_it_is_the_textbooks_to_16_bits(tmp_path: Path) -> None:
    image = np.random.default_rng(1).integers(20000, 45000, (8, 8, 3)).astype(np.uint16)
    light = np.clip((image / 65535) ** (563 / 256) @ ADOBE.T @ np.linalg.inv(SRGB).T, 0, 1)
    expected = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    for name, encode in (("a.png", deep.encode_png), ("a.tif", deep.encode_tiff)):
        (tmp_path / name).write_bytes(encode(image, profile(GAMMA)))
        picture = read_picture(tmp_path / name)
        assert (picture.bits, picture.icc) == (16, profile(GAMMA))
        assert np.abs(picture.rgb[0].permute(1, 2, 0).numpy() - expected).max() < 2e-4
        assert np.abs(expected - image / 65535).max() > 0.02


@pytest.mark.parametrize("ending", ["png", "tiff"])
@pytest.mark.parametrize("alpha", [None, torch.rand(1, 1, 30, 40)])
def test_a_profile_survives_with_16_bits(tmp_path: Path, ending: str, alpha: torch.Tensor | None) -> None:
    rgb = torch.rand(1, 3, 30, 40) * 0.6 + 0.2
    path = tmp_path / f"a.{ending}"
    write_picture(path, rgb, alpha=alpha, icc=profile(GAMMA), bits=16)
    picture = read_picture(path)
    assert picture.icc == profile(GAMMA)
    assert (picture.rgb - rgb).abs().max() < 3 / 65535
    assert alpha is None or (picture.alpha - alpha).abs().max() < 1 / 65535
    with Image.open(path) as image:
        assert image.info["icc_profile"] == profile(GAMMA)
    again = tmp_path / f"b.{ending}"
    write_picture(again, picture.rgb, alpha=picture.alpha, icc=picture.icc, bits=16)
    assert (read_picture(again).rgb - picture.rgb).abs().max() < 1.5 / 65535


def lut_profile() -> bytes:
    """The colours of Adobe RGB, with an (unusual) table of them beside curves and matrix."""
    grid = 2
    corners = b"".join(
        struct.pack(">3H", *(round(min(1, v * 32768 / 65535) * 65535) for v in (ADOBE @ (r, g, b))))
        for r in range(grid) for g in range(grid) for b in range(grid)
    )  # fmt: skip
    ramp = struct.pack(">2H", 0, 65535)
    head = b"mft2" + bytes(4) + bytes((3, 3, grid, 0)) + fixed(1, 0, 0, 0, 1, 0, 0, 0, 1) + struct.pack(">2H", 2, 2)
    return profile(GAMMA, A2B0=head + ramp * 3 + corners + ramp * 3)


def test_profiles_of_tables_keep_16_bits(tmp_path: Path) -> None:
    image = np.random.default_rng(2).integers(20000, 45000, (4, 4, 3)).astype(np.uint16)
    (tmp_path / "deep.png").write_bytes(deep.encode_png(image, lut_profile()))
    Image.fromarray((image >> 8).astype(np.uint8)).save(tmp_path / "8.png", icc_profile=lut_profile())
    picture = read_picture(tmp_path / "deep.png")
    assert (picture.bits, picture.icc) == (16, lut_profile())
    assert (picture.rgb - read_picture(tmp_path / "8.png").rgb).abs().max() < 2 / 255
    assert (picture.rgb - picture.rgb.mul(255).round().div(255)).abs().max() > 1e-3


@pytest.mark.parametrize("data", [
    b"", b"not a profile", profile(GAMMA)[:200], profile(GAMMA)[:-20], profile(b"sf32" + bytes(20)), bytes(3000),
    profile(para(5, 1)), profile(curv(*range(100, 0, -1))), profile(GAMMA, ADOBE * 0), profile(para(1, 2.2)),
], ids=["empty", "text", "cut", "short", "kind", "zeros", "para5", "falling", "black", "few"])  # fmt: skip
def test_damaged_profiles_still_give_a_picture(tmp_path: Path, data: bytes) -> None:
    image = np.random.default_rng(3).integers(0, 65536, (4, 4, 3)).astype(np.uint16)
    (tmp_path / "a.png").write_bytes(deep.encode_png(image, data))
    assert read_picture(tmp_path / "a.png").rgb.isfinite().all()


def test_a_broken_profile_leaves_16_bits_of_srgb(tmp_path: Path) -> None:
    image = np.random.default_rng(4).integers(0, 65536, (4, 4, 3)).astype(np.uint16)
    (tmp_path / "a.png").write_bytes(deep.encode_png(image, b"not a profile"))
    picture = read_picture(tmp_path / "a.png")
    assert (picture.bits, picture.icc) == (16, None)
    assert np.abs(picture.rgb[0].permute(1, 2, 0).numpy() * 65535 - image).max() < 0.01
    write_picture(tmp_path / "b.png", picture.rgb, icc=b"not a profile", bits=16)
    with Image.open(tmp_path / "b.png") as written:
        assert "icc_profile" not in written.info


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
