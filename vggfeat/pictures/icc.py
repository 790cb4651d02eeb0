"""ICC profiles of three curves and a matrix, applied in floating point: Pillow's way applies any profile in 8 bits.

sRGB, Adobe RGB, Display P3, ProPhoto and most profiles of cameras and screens are
of this kind; those of printers are not.
"""

import struct
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import ImageCms

Floats = npt.NDArray[np.float32]
_Doubles = npt.NDArray[np.float64]

_CODES = np.linspace(0, 1, 65536)
_AT_ONCE = 2**20


@dataclass(frozen=True, eq=False)
class Profile:
    """`curves`: (3, 65536), light for each code of a channel. `matrix`: (3, 3), from light to XYZ under D50."""

    curves: _Doubles
    matrix: _Doubles


def parse(icc: bytes) -> Profile | None:
    """The profile, or None if it is of another kind or damaged."""
    try:
        if icc[16:24] != b"RGB XYZ ":
            return None
        (count,) = struct.unpack_from(">I", icc, 128)
        rows = (struct.unpack_from(">4sII", icc, 132 + 12 * index) for index in range(min(count, 1000)))
        tags: dict[bytes, bytes] = {name: icc[place : place + size] for name, place, size in rows}
        if b"A2B0" in tags:
            return None
        columns = [struct.unpack_from(">3i", tags[name], 8) for name in (b"rXYZ", b"gXYZ", b"bXYZ")]
        curves = np.stack([_curve(tags[name]) for name in (b"rTRC", b"gTRC", b"bTRC")])
        matrix = np.array(columns, np.float64).T / 65536
    except (struct.error, KeyError, ValueError, OverflowError):
        return None
    rising = np.isfinite(curves).all() and bool((np.diff(curves) >= 0).all()) and bool((curves[:, -1] > 0.5).all())
    return Profile(curves, matrix) if rising and abs(np.linalg.det(matrix)) > 1e-6 else None


def convert(rgb: Floats, source: Profile, aim: Profile) -> Floats:
    """(H, W, 3) in [0, 1] from one profile to the other: relative colorimetric, what has no room is clipped."""
    matrix = np.linalg.solve(aim.matrix, source.matrix)
    pixels = rgb.reshape(-1, 3)
    converted = np.empty_like(pixels)
    for start in range(0, len(pixels), _AT_ONCE):
        part = pixels[start : start + _AT_ONCE]
        light = np.empty(part.shape)
        for i in range(3):
            light[:, i] = np.interp(part[:, i], _CODES, source.curves[i])
        light = light @ matrix.T
        for i in range(3):
            converted[start : start + _AT_ONCE, i] = np.interp(light[:, i], aim.curves[i], _CODES)
    return converted.reshape(rgb.shape)


@cache
def srgb() -> Profile:
    """The profile of sRGB."""
    profile = parse(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType] - Pillow leaves it untyped
    assert profile is not None  # noqa: S101 (lcms makes it of curves and a matrix)
    return profile


def _curve(tag: bytes) -> _Doubles:
    if tag[:4] == b"curv":
        (count,) = struct.unpack_from(">I", tag, 8)
        if count == 0:
            return _CODES
        values = np.frombuffer(tag, ">u2", count, 12)
        if count == 1:
            return _CODES ** (float(values[0]) / 256)
        return np.interp(_CODES, np.linspace(0, 1, count), values / 65535)
    if tag[:4] != b"para" or tag[8:10] > b"\0\4":
        raise ValueError("an unknown kind of curve")
    (kind,) = struct.unpack_from(">H", tag, 8)
    names = ("g", "gab", "gabc", "gabcd", "gabcdef")[kind]
    given = (number / 65536 for number in struct.unpack_from(f">{len(names)}i", tag, 12))
    p = dict.fromkeys("bcdef", 0.0) | {"a": 1.0} | dict(zip(names, given, strict=True))
    power = np.maximum(p["a"] * _CODES + p["b"], 0) ** p["g"]
    if kind < 3:
        return power + p["c"]
    return np.where(p["d"] <= _CODES, power + p["e"], p["c"] * _CODES + p["f"])
