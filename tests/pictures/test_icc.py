"""vggfeat.pictures.icc against lcms, which Pillow applies in 8 bits, and against the textbook."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from vggfeat.pictures import deep, icc
from vggfeat.pictures.images import read_picture, write_picture

# Adobe RGB (1998) adapted to D50: columns are the XYZ of red, green and blue.
ADOBE = np.array([[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322], [0.01947, 0.06087, 0.74457]])
SRGB = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])


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
def test_it_converts_as_lcms_does(name: str) -> None:
    data = profile(CURVES[name])
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    parsed = icc.parse(data)
    assert parsed is not None
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    other = ImageCms.ImageCmsProfile(io.BytesIO(data))
    ways = [(other, srgb, parsed, icc.srgb()), (srgb, other, icc.srgb(), parsed)]
    for source, aim, from_, to in ways[: 1 if name in {"para2", "para4"} else 2]:  # steps and flats have no inverse
        transform = ImageCms.buildTransform(source, aim, "RGB", "RGB", ImageCms.Intent.RELATIVE_COLORIMETRIC)
        expected = np.array(transform.apply(Image.fromarray(image)), int)
        came = icc.convert((image / np.float32(255)).astype(np.float32), from_, to) * 255
        wrong = np.abs(came - expected)
        assert np.quantile(wrong, 0.99) <= 1.1  # near black a code of 8 bits in lcms spans several here
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


def test_profiles_of_tables_are_left_to_pillow(tmp_path: Path) -> None:
    assert icc.parse(lut_profile()) is None
    image = np.random.default_rng(2).integers(20000, 45000, (4, 4, 3)).astype(np.uint16)
    (tmp_path / "deep.png").write_bytes(deep.encode_png(image, lut_profile()))
    Image.fromarray((image >> 8).astype(np.uint8)).save(tmp_path / "8.png", icc_profile=lut_profile())
    picture = read_picture(tmp_path / "deep.png")
    assert picture.bits == 8
    assert torch.equal(picture.rgb, read_picture(tmp_path / "8.png").rgb)
    assert picture.icc == lut_profile()


@pytest.mark.parametrize("data", [
    b"", b"not a profile", profile(GAMMA)[:200], profile(GAMMA)[:-20], profile(b"sf32" + bytes(20)), bytes(3000),
    profile(para(5, 1)), profile(curv(*range(100, 0, -1))), profile(GAMMA, ADOBE * 0), profile(para(1, 2.2)),
], ids=["empty", "text", "cut", "short", "kind", "zeros", "para5", "falling", "black", "few"])  # fmt: skip
def test_what_is_no_profile_of_curves(tmp_path: Path, data: bytes) -> None:
    assert icc.parse(data) is None
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
