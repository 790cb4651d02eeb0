#!/usr/bin/env python3
"""Paint the style pictures of this folder: `python make_styles.py [NAME ...] [--out FOLDER]`.

Every picture starts from a seed of its own, so a second run writes the same bytes. Fields are `float32` arrays on a
canvas `SCALE` times finer than the picture; positions are (row, column) in canvas pixels, and normalised coordinates
run over 0..1 down the picture and 0..width/height across it. Colours are sRGB values in 0..1.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Rng = np.random.Generator
Painter = Callable[[Rng, int, int], Floats]

SCALE = 2
STEP = 0.7  # spacing of the samples that make up a stroke, in canvas pixels: below 0.71 leaves no holes


# --- fields -----------------------------------------------------------------------------------------------------------


def rgb(*codes: str) -> Floats:
    """Turn `n` colours written "rrggbb" into an array (n, 3) in 0..1."""
    return np.array([[int(code[i : i + 2], 16) / 255 for i in (0, 2, 4)] for code in codes], np.float32)


def ramp(amount: Floats, colours: Floats) -> Floats:
    """Run `amount` (...), 0..1, along evenly spaced `colours` (n, 3); returns (..., 3)."""
    stops = np.linspace(0, 1, len(colours))
    return np.stack([np.interp(amount, stops, colours[:, c]) for c in range(3)], axis=-1).astype(np.float32)


def smooth(value: Floats, low: float, high: float) -> Floats:
    """Ease from 0 at `low` to 1 at `high`, any shape."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return (t * t * (3 - 2 * t)).astype(np.float32)


def blend(under: Floats, over: Floats, mask: Floats) -> Floats:
    """Lay `over` (h, w, 3) or (3,) on `under` (h, w, 3) where `mask` (h, w), 0..1, says so."""
    return (under + (over - under) * mask[..., None]).astype(np.float32)


def grid(height: int, width: int) -> tuple[Floats, Floats]:
    """Return normalised rows and columns, two fields (height, width)."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    return (y + 0.5) / height, (x + 0.5) / height


def blur(field: Floats, sigma: float) -> Floats:
    """Gaussian blur of `field` (h, w) by `sigma` canvas pixels, edges mirrored."""
    pad = int(3 * sigma) + 1
    padded = np.pad(field, pad, mode="reflect")
    h, w = padded.shape
    fy, fx = np.fft.fftfreq(h)[:, None], np.fft.rfftfreq(w)[None]
    kernel = np.exp(-2 * (np.pi * sigma) ** 2 * (fy**2 + fx**2))
    soft = np.fft.irfft2(np.fft.rfft2(padded) * kernel, s=(h, w))
    return soft[pad:-pad, pad:-pad].astype(np.float32)


def noise(rng: Rng, shape: tuple[int, int], size: float, slope: float = 2.0, stretch: float = 1.0) -> Floats:
    """Fractal noise of `shape`, mean 0 and deviation 1.

    `size` is the largest blob in canvas pixels, `slope` the fall-off above it (1 rough, 3 smooth), and `stretch`
    lengthens the blobs down the rows.
    """
    fy, fx = np.fft.fftfreq(shape[0])[:, None] * stretch, np.fft.rfftfreq(shape[1])[None]
    gain = (1 + (fy**2 + fx**2) * size**2) ** (-slope / 2)
    gain[0, 0] = 0
    field = np.fft.irfft2(np.fft.rfft2(rng.standard_normal(shape)) * gain, s=shape)
    return (field / field.std()).astype(np.float32)


def pick(field: Floats, points: Floats) -> Floats:
    """Read `field` (h, w, ...) at the pixels nearest to `points` (n, 2), clamped to the canvas; returns (n, ...)."""
    h, w = field.shape[:2]
    rows = np.clip(points[:, 0], 0, h - 1).astype(np.int64)
    columns = np.clip(points[:, 1], 0, w - 1).astype(np.int64)
    return field[rows, columns]


def shrink(picture: Floats) -> Floats:
    """Soften a canvas (h, w, 3) as a lens would and average its `SCALE` x `SCALE` blocks."""
    h, w = picture.shape[0] // SCALE, picture.shape[1] // SCALE
    soft = np.stack([blur(picture[..., c], 1.15) for c in range(3)], axis=-1)
    return soft.reshape(h, SCALE, w, SCALE, 3).mean(axis=(1, 3))


def shift(field: Floats, down: int, right: int) -> Floats:
    """Move `field` (h, w, ...) by whole pixels, repeating its edges."""
    h, w = field.shape[:2]
    rows = np.clip(np.arange(h) - down, 0, h - 1)
    return field[rows][:, np.clip(np.arange(w) - right, 0, w - 1)]


# --- brush ------------------------------------------------------------------------------------------------------------


@dataclass
class Canvas:
    """Wet paint: `colour` (h, w, 3) in 0..1 and `relief` (h, w), its thickness, about 0..2; `rng` moves the hand."""

    rng: Rng
    colour: Floats
    relief: Floats


@dataclass
class Brush:
    """How a brush leaves its paint.

    `bristles` and `streaks` (rows, columns), 0..1, are sheets that strokes cut their texture and their mixing of two
    paints from; `body` is the thickness of the paint, `dry` how much of it has run out by the end of a stroke,
    `ragged` how unevenly the bristles start and stop, `square` the power of the outline (2 round, 8 a knife).
    """

    bristles: Floats
    streaks: Floats
    body: float = 1.0
    dry: float = 0.5
    ragged: float = 0.5
    square: float = 2.0


def make_brush(rng: Rng, hair: float, **traits: float) -> Brush:
    """Make a brush whose hairs are `hair` canvas pixels wide; `traits` are fields of `Brush`."""
    sheets = []
    for size in (hair, 4 * hair):
        sheet = noise(rng, (1024, 2048), size, 2.2, stretch=26)
        sheets.append(np.clip(0.5 + 0.24 * sheet, 0, 1))
    return Brush(sheets[0], sheets[1], **traits)


def trace(angle: Floats, starts: Floats, length: float, wander: Floats | float = 0.0) -> Floats:
    """Follow `angle` (h, w), radians from the column axis, both ways from `starts` (n, 2).

    Returns paths (n, k, 2) that are `length` canvas pixels long and sampled every `STEP`. `wander` turns each path
    away from the field.
    """
    coarse = 4.0
    count = max(2, int(length / coarse / 2))
    halves = []
    for sign in (-1.0, 1.0):
        point, half = starts.copy(), []
        for _ in range(count):
            turn = pick(angle, point) + wander
            point = point + sign * coarse * np.stack([np.sin(turn), np.cos(turn)], axis=-1)
            half.append(point)
        halves.append(half)
    rough = np.stack([*reversed(halves[0]), starts, *halves[1]], axis=1)
    at = np.arange(0, 2 * count, STEP / coarse)
    low = at.astype(np.int64)
    part = (at - low)[None, :, None]
    return (rough[:, low] * (1 - part) + rough[:, low + 1] * part).astype(np.float32)


def lay(canvas: Canvas, brush: Brush, path: Floats, width: float, paints: Floats) -> None:
    """Drag `brush` along `path` (k, 2), `width` canvas pixels wide, loaded with two `paints` (2, 3)."""
    k, m = len(path), max(4, int(width / STEP))
    run = np.gradient(path, axis=0)
    run /= np.hypot(run[:, 0], run[:, 1])[:, None] + 1e-6
    side = np.stack([run[:, 1], -run[:, 0]], axis=-1)
    across = np.linspace(-1, 1, m, dtype=np.float32)
    along = np.linspace(0, 1, k, dtype=np.float32)[:, None]

    row, column = canvas.rng.integers(0, 1024 - min(k, 1000)), canvas.rng.integers(0, 2048 - m)
    grain = brush.bristles[row : row + k, column : column + m]
    mix = brush.streaks[row : row + k, column : column + m]
    if len(grain) < k:
        path, side, along, k = path[: len(grain)], side[: len(grain)], along[: len(grain)], len(grain)

    reach = (1 - np.abs(across) ** brush.square) ** (1 / brush.square)
    fringe = brush.ragged * brush.streaks[row, column : column + m]
    cap = width / STEP / k * (0.5 * (1 - reach) + 0.6 * fringe)
    fringe_end = brush.ragged * brush.streaks[(row + 400) % 1024, column : column + m]
    tail = 1 - width / STEP / k * (0.5 * (1 - reach) + 1.4 * fringe_end)
    keep = (along > cap) & (along < tail) & (grain > brush.dry * along**2 * 0.62)

    points = path[:, None] + side[:, None] * (across[None, :, None] * (width / 2))
    rows, columns = np.floor(points[..., 0]).astype(np.int64), np.floor(points[..., 1]).astype(np.int64)
    h, w = canvas.relief.shape
    keep &= (rows >= 0) & (rows < h) & (columns >= 0) & (columns < w)
    spot = (rows * w + columns)[keep]

    share = np.clip((mix[keep] - 0.5) * 1.8 + 0.35, 0, 1)[:, None]
    tone = 1 + 0.22 * (grain[keep][:, None] - 0.5)
    canvas.colour.reshape(-1, 3)[spot] = (paints[0] * (1 - share) + paints[1] * share) * tone
    ridge = 0.45 * np.abs(across) ** 6 + 0.35 * along**6
    relief = canvas.relief.reshape(-1)
    relief[spot] = 0.35 * relief[spot] + brush.body * (0.35 + 0.9 * grain + ridge)[keep] * min(1.0, width / 14)


def scatter(rng: Rng, shape: tuple[int, int], gap: float, overhang: float = 0.0) -> Floats:
    """Spread points (n, 2) over a canvas, one for every `gap` x `gap` square, in random order."""
    h, w = shape
    rows = np.arange(-overhang, h + overhang, gap)
    columns = np.arange(-overhang, w + overhang, gap)
    points = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
    points = points + rng.uniform(0, gap, points.shape)
    return rng.permutation(points).astype(np.float32)


def jitter(rng: Rng, colours: Floats, light: float, hue: float) -> Floats:
    """Vary `colours` (..., 3) in lightness and in hue, independently for each; stays in 0..1."""
    shift = rng.normal(0, light, (*colours.shape[:-1], 1)) + rng.normal(0, hue, colours.shape)
    return np.clip(colours + shift, 0, 1).astype(np.float32)


def paint_over(
    canvas: Canvas,
    brush: Brush,
    scene: Floats,
    angle: Floats,
    *,
    size: tuple[float, float],
    gap: float,
    where: Floats | None = None,
    light: float = 0.05,
    hue: float = 0.03,
    wander: float = 0.12,
) -> None:
    """Cover the canvas with strokes that take their colour from `scene` (h, w, 3) and run along `angle` (h, w).

    `size` is the length and width of a stroke and `gap` the distance between strokes, all in canvas pixels; `where`
    (h, w), 0..1, is the chance of a stroke.
    """
    rng = canvas.rng
    points = scatter(rng, angle.shape, gap, overhang=size[1])
    if where is not None:
        points = points[rng.random(len(points)) < pick(where, points)]
    if not len(points):
        return
    paths = trace(angle, points, size[0], rng.normal(0, wander, len(points)))
    aside = points + rng.normal(0, 0.6 * size[1], points.shape).astype(np.float32)
    paints = np.stack([pick(scene, points), pick(scene, aside)], axis=1)
    paints = jitter(rng, jitter(rng, paints, light, hue), light * 0.5, hue * 0.6)
    for path, pair in zip(paths, paints, strict=True):
        cut = rng.integers(0, max(1, len(path) // 3))
        lay(canvas, brush, path[cut:], size[1] * rng.uniform(0.7, 1.25), pair)


def gallery_light(canvas: Canvas, depth: float, gloss: float) -> Floats:
    """Light the relief from the upper left; returns colours (h, w, 3)."""
    soft = blur(canvas.relief, 1.1)
    down, right = np.gradient(soft)
    slope = np.tanh(depth * (0.75 * down + 0.65 * right))
    shade = 1 + 0.30 * slope
    shine = gloss * np.clip(slope - 0.25, 0, 1) ** 2
    return np.clip(canvas.colour * shade[..., None] + shine[..., None], 0, 1).astype(np.float32)


def ground(rng: Rng, shape: tuple[int, int], colour: Floats) -> Canvas:
    """Prime a canvas of `shape` with one `colour` (3,)."""
    return Canvas(rng, np.broadcast_to(colour, (*shape, 3)).astype(np.float32).copy(), np.zeros(shape, np.float32))


# --- subjects ---------------------------------------------------------------------------------------------------------


def swirl_field(rng: Rng, y: Floats, x: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the flow's angle, its stream function and the glow of the eddies' hearts, three fields like `y`."""
    eddies = [  # row, column, radius, turn
        (0.60, 0.45, 0.23, 1.0),
        (0.30, 1.02, 0.15, -1.0),
        (0.83, 1.08, 0.10, 1.0),
        (0.16, 0.22, 0.075, -1.0),
        (0.66, 0.93, 0.055, -1.0),
        (0.90, 0.12, 0.06, -1.0),
        (0.14, 0.63, 0.05, 1.0),
    ]
    drift_y, drift_x = -0.75 + 0.35 * np.cos(3.0 * x), np.ones_like(x)
    stream = y + 0.62 * x - 0.12 * np.sin(3.0 * x)
    glow = np.zeros_like(x)
    for row, column, radius, turn in eddies:
        dy, dx = y - row, x - column
        far = np.sqrt(dy**2 + dx**2) / radius
        pull = turn * 2.6 * np.exp(-0.5 * far**1.6) * far / (far**2 + 0.08)
        drift_y += pull * (dx + 0.18 * turn * dy) / radius
        drift_x -= pull * (dy - 0.18 * turn * dx) / radius
        stream += radius * 1.5 * np.exp(-0.5 * far**1.6)
        glow = np.maximum(glow, np.exp(-((far / 0.42) ** 2)))
    bend = noise(rng, y.shape, 500, 3)
    return (np.arctan2(drift_y, drift_x) + 0.14 * bend).astype(np.float32), stream, glow


def swirls(rng: Rng, height: int, width: int) -> Floats:
    """Whirlpools of several sizes in a river at dusk: deep blues, golden hearts, wine-dark banks; returns (h, w, 3)."""
    y, x = grid(height, width)
    angle, stream, glow = swirl_field(rng, y, x)
    bands = 0.5 + 0.5 * np.sin(46 * stream + 1.1 * noise(rng, y.shape, 260, 2.5))
    course = y + 0.62 * x - 0.12 * np.sin(3.0 * x)
    river = np.exp(-(((course - 0.93) / 0.30) ** 2))
    tone = 0.06 + 0.40 * bands**1.7 + 0.09 * noise(rng, y.shape, 300, 2.5) + 0.34 * river * bands
    scene = ramp(np.clip(tone, 0, 0.93), rgb("0a1230", "12225c", "1b3c8c", "2a66b8", "4f9dc9", "a9d3cf", "f2e9b8"))
    shore = smooth(np.abs(course - 0.93 + 0.05 * noise(rng, y.shape, 420, 3)), 0.46, 0.60)
    earth = ramp(np.clip(0.15 + 0.75 * bands, 0, 1), rgb("150a26", "371040", "6d1a4a", "a8324a", "e0763f"))
    scene = blend(scene, earth, shore)
    scene = blend(scene, rgb("f6a92c")[0], smooth(glow, 0.22, 0.7))
    scene = blend(scene, rgb("fff3c4")[0], smooth(glow, 0.78, 0.97))

    canvas = ground(rng, (height, width), rgb("101a3c")[0])
    brush = make_brush(rng, 7.0, dry=0.7, ragged=0.7)
    fine = make_brush(rng, 5.0, dry=0.5, ragged=0.5, body=1.25)
    paint_over(canvas, brush, scene, angle, size=(260, 52), gap=44)
    paint_over(canvas, brush, scene, angle, size=(200, 32), gap=35, light=0.05, hue=0.04)
    detail = np.clip(0.25 + glow + 0.35 * bands, 0, 1)
    paint_over(canvas, fine, scene, angle, size=(130, 19), gap=28, where=detail, light=0.06, hue=0.04)
    accents = blend(scene, ramp(bands, rgb("d9761e", "f4bb3f", "fbeec0")), np.clip(0.30 + glow, 0, 0.9))
    sparks = np.clip(0.9 * smooth(glow, 0.06, 0.4) + 0.30 * smooth(bands, 0.75, 1) * river, 0, 1)
    paint_over(canvas, fine, accents, angle, size=(96, 13), gap=27, where=sparks, light=0.05)
    return gallery_light(canvas, 2.4, 0.28)


def wood(rng: Rng, y: Floats, x: Floats, horizon: float) -> tuple[Floats, Floats]:
    """Paint far hills and autumn trees above `horizon`; returns colours (h, w, 3) and where trees are (h, w)."""
    drift = noise(rng, y.shape, 500, 2.5)
    scene = ramp(np.clip(y / horizon + 0.10 * drift, 0, 1), rgb("2f8f98", "6fb7b0", "bcd6bd", "f3e3b3", "f6c98a"))
    hill = horizon - 0.13 - 0.05 * np.sin(3.4 * x + 0.8) - 0.02 * np.sin(9 * x)
    haze = ramp(np.clip(0.5 + 0.3 * drift, 0, 1), rgb("3d4f7c", "68729c", "a58aa0"))
    scene = blend(scene, haze, smooth(y - hill, 0, 0.01))
    trees = [  # column, row and size of the crown, paints from shade to light
        (0.50, 0.40, 0.10, rgb("4a1730", "98283a", "d0522f", "e98a3a")),
        (0.78, 0.41, 0.09, rgb("5a2a1c", "b0571f", "e39a2c", "f5cf5e")),
        (0.64, 0.43, 0.07, rgb("1b4a4c", "2f6f5c", "7a9a4a", "cfc25a")),
        (0.27, 0.33, 0.17, rgb("5c1a1e", "b23a1c", "ec7a1e", "fbb13c")),
        (0.06, 0.40, 0.13, rgb("3c1430", "7c1f3c", "bd3a34", "ea7440")),
        (1.00, 0.36, 0.14, rgb("6a2c12", "c2651a", "f2a325", "fde07a")),
        (1.25, 0.33, 0.18, rgb("4b1226", "a12a24", "e25a22", "f9a03c")),
    ]
    cover = np.zeros_like(y)
    for column, row, size, paints in trees:
        clump = noise(rng, y.shape, 150, 1.9)
        far = np.hypot((y - row) / size / 1.2, (x - column) / size)
        crown = smooth(1.0 - far + 0.20 * clump, 0.0, 0.06) * smooth(horizon - y, 0, 0.01)
        sun = 0.42 + 0.22 * clump - 0.75 * (y - row) - 0.9 * (x - column) * (1 - 0.6 * (column > 0.9))
        scene = blend(scene, ramp(np.clip(sun, 0, 1), paints), crown)
        cover = np.maximum(cover, crown)
    bank = smooth(y - horizon + 0.028 + 0.008 * drift, 0, 0.006) * smooth(horizon - y, -0.004, 0.004)
    return blend(scene, ramp(np.clip(0.5 + 0.35 * drift, 0, 1), rgb("3a1a22", "8a3b22", "d98a2e")), bank), cover


def birches(canvas: Canvas, brush: Brush, horizon: float) -> None:
    """Stand birch trunks on the bank and drag their reflections into the water of `canvas`."""
    rng, h = canvas.rng, canvas.relief.shape[0]
    trunks = [  # column, foot below the horizon, row of the top, thickness
        (0.17, 0.03, -0.05, 28.0),
        (0.325, 0.02, 0.14, 18.0),
        (0.40, 0.05, -0.05, 36.0),
        (0.90, 0.02, 0.16, 18.0),
        (1.13, 0.04, -0.05, 34.0),
        (1.20, 0.02, 0.10, 18.0),
    ]
    dusk, bark, mark, twig, gleam = (
        rgb(*pair.split())
        for pair in ("54405a 7d6a76", "f3e2c4 c9a9a0", "241a26 3c2a33", "3b2433 6d5460", "dcc9a8 8a9c98")
    )
    for column, foot, top, thick in trunks:
        base = horizon + foot
        run = np.arange(0, (base - top) * h, STEP, dtype=np.float32)
        lean = rng.normal(0, 0.05) * run + 13 * np.sin(run / rng.uniform(130, 210)) + column * h
        trunk = np.stack([base * h - run, lean], axis=-1).astype(np.float32)
        for start in range(0, len(trunk) - 120, 150):
            piece = trunk[start : start + rng.integers(200, 300)]
            width = thick * (1 - 0.5 * start / len(trunk))
            lay(canvas, brush, piece + np.array([0, 0.22 * width]), width, jitter(rng, dusk, 0.03, 0.02))
            lay(canvas, brush, piece - np.array([0, 0.18 * width]), 0.7 * width, jitter(rng, bark, 0.03, 0.03))
            if rng.random() < 0.8:
                spot = piece[len(piece) // 2] + rng.normal(0, 3, 2)
                dash = spot + np.linspace(-0.5, 0.5, int(width * 1.3))[:, None] * [2.0, 0.9 * width]
                lay(canvas, brush, dash, 7, mark)
        for start in rng.uniform(0.35, 0.8, 7):
            fork = trunk[int(start * len(trunk))]
            side = rng.choice([-1.0, 1.0])
            reach = np.linspace(0, rng.uniform(60, 120), 180)[:, None]
            bough = fork + reach * [-0.75, 0.66 * side] + (reach / 60) ** 2 * [-3.0, 2.0 * side]
            lay(canvas, brush, bough, 0.22 * thick, jitter(rng, twig, 0.03, 0.02))
        for _ in range(6):
            row = base * h + rng.uniform(0.01, 0.22) * h
            dash = np.stack([np.full(130, row), column * h + np.linspace(-45, 45, 130) + rng.normal(0, 10)], axis=-1)
            lay(canvas, brush, dash, 13, jitter(rng, gleam, 0.05, 0.03))


def autumn_oil(rng: Rng, height: int, width: int) -> Floats:
    """Birches in autumn over a teal lake, laid on with a palette knife; returns (h, w, 3)."""
    y, x = grid(height, width)
    horizon = 0.60
    scene, cover = wood(rng, y, x, horizon)
    mirror = np.clip((horizon - (y[:, 0] - horizon) * 1.05) * height, 0, height - 1).astype(np.int64)
    depth = np.clip((y - horizon) / (1 - horizon), 0, 1)
    lake = ramp(np.clip(depth + 0.14 * noise(rng, y.shape, 300, 2), 0, 1), rgb("5fb3ad", "1f8a90", "11606f", "0c3550"))
    sheen = np.clip(0.80 - 0.50 * depth + 0.12 * noise(rng, y.shape, 200, 2), 0, 1)
    water = smooth(y - horizon, 0, 0.003)
    echo = scene[mirror]
    echo = np.clip(echo.mean(axis=-1, keepdims=True) + 1.25 * (echo - echo.mean(axis=-1, keepdims=True)), 0, 1)
    scene = blend(scene, blend(lake, echo, sheen), water)

    turn = noise(rng, y.shape, 260, 2)
    angle = np.where(cover > 0.4, 0.75 * turn - 0.9, -0.35 + 0.30 * turn)
    angle = np.where(water > 0.5, 0.07 * turn, angle).astype(np.float32)
    canvas = ground(rng, (height, width), rgb("7a2f1c")[0])
    knife = make_brush(rng, 22.0, dry=0.75, ragged=0.35, square=9.0, body=1.5)
    edge = make_brush(rng, 12.0, dry=0.6, ragged=0.4, square=7.0, body=1.8)
    paint_over(canvas, knife, scene, angle, size=(190, 84), gap=58, light=0.04, hue=0.03, wander=0.2)
    paint_over(canvas, knife, scene, angle, size=(130, 48), gap=46, light=0.05, hue=0.035, wander=0.25)
    birches(canvas, edge, horizon)
    paint_over(canvas, edge, scene, angle, size=(70, 27), gap=36, where=0.75 * cover, light=0.07, hue=0.04, wander=0.6)
    ripples = water * np.clip(0.30 + 0.25 * noise(rng, y.shape, 180, 2), 0, 1)
    paint_over(canvas, edge, scene, angle, size=(120, 15), gap=36, where=ripples, light=0.09)
    leaves = ramp(np.clip(0.5 + 0.4 * turn, 0, 1), rgb("c8361c", "f08a1e", "fcd257"))
    fallen = np.clip(0.20 * water * smooth(depth, 0.1, 0.9) + 0.20 * cover, 0, 1)
    paint_over(canvas, edge, leaves, angle, size=(46, 15), gap=50, where=fallen, light=0.05, hue=0.05, wander=0.7)
    return gallery_light(canvas, 1.9, 0.34)


def near_edge(labels: Ints, sigma: float) -> Floats:
    """Return how close each pixel of `labels` (h, w) lies to a border: about 1 on it, falling off over `sigma`."""
    edge = np.zeros(labels.shape, np.float32)
    edge[:, 1:] += labels[:, 1:] != labels[:, :-1]
    edge[1:] += labels[1:] != labels[:-1]
    return np.clip(blur(np.minimum(edge, 1), sigma) * sigma * 2.2, 0, 2).astype(np.float32)


def vine(y: Floats, x: Floats, labels: Ints, stem: Floats, leaves: Sequence[tuple[float, float, float, float]]) -> Ints:
    """Cut leaves into `labels` (h, w) along a `stem` field (h, w) that is 0 on its line; returns the new labels.

    A leaf is (row, column, length, angle) in normalised coordinates and radians; each has two halves, labelled from
    -2 downwards, and the stem is -1.
    """
    labels = np.where(np.abs(stem) < 0.0075, -1, labels)
    for index, (row, column, length, turn) in enumerate(leaves):
        dy, dx = y - row, x - column
        along = (dx * np.cos(turn) + dy * np.sin(turn)) / length
        aside = (-dx * np.sin(turn) + dy * np.cos(turn)) / length + 0.10 * np.sin(np.pi * along)
        leaf = (along > 0) & (along < 1) & (np.abs(aside) < 0.30 * np.sin(np.pi * np.clip(along, 0, 1) ** 0.8))
        labels = np.where(leaf, -2 - 2 * index - (aside > 0), labels)
    return labels


def window_panes(rng: Rng, y: Floats, x: Floats) -> tuple[Ints, Ints]:
    """Cut the window; returns the pane of each pixel and the palette it takes its colour from, both (h, w)."""
    bend_y, bend_x = 0.006 * noise(rng, y.shape, 400, 3), 0.006 * noise(rng, y.shape, 400, 3)
    y, x = y + bend_y, x + bend_x
    radius, turn = np.hypot(y - 0.37, x - 0.60), np.arctan2(y - 0.37, x - 0.60) / (2 * np.pi) + 0.5

    rays = 28
    spoke = turn * rays + 0.9 * radius
    ray = np.floor(spoke).astype(np.int64) % rays
    cuts = np.cumsum(rng.uniform(0.06, 0.15, (rays, 14)), axis=1) + 0.255
    depth = (radius[..., None] + 0.05 * np.sin(9 * turn + ray)[..., None] > cuts[ray]).sum(axis=-1)
    panes, palette = 1000 + 20 * ray + depth, np.choose(np.minimum(depth, 4), [4, 13, 5, 5, 14])
    inner, ring = 0.075, 0
    for outer, count, skew in [(0.150, 11, 0.0), (0.232, 18, 0.5), (0.262, 48, 0.0)]:
        wave = outer + (0.012 * np.cos(2 * np.pi * (turn * count + skew)) if ring == 1 else 0)
        here = (radius < wave) & (radius >= inner)
        panes = np.where(here, 2000 + 100 * ring + np.floor(turn * count + skew).astype(np.int64) % count, panes)
        palette = np.where(here, ring + 1, palette)
        inner, ring = wave, ring + 1
    disc = radius < 0.075
    facet = np.where(radius < 0.034, 0, 1 + np.floor(turn * 7 + 6 * radius).astype(np.int64) % 7)
    panes, palette = np.where(disc, 2900 + facet, panes), np.where(disc, 0, palette)

    hills = [
        (0.64 + 0.07 * np.sin(4.2 * x + 0.5), 6, 0.12, 0.9),
        (0.70 + 0.06 * np.sin(4.6 * x + 0.9), 6, 0.09, -0.8),
        (0.75 - 0.06 * np.sin(3.6 * x + 0.2), 7, 0.10, -0.7),
        (0.79 + 0.05 * np.sin(5.0 * x + 2.4), 8, 0.13, 0.5),
        (0.845 + 0.03 * np.sin(6.0 * x + 2.4), 9, 0.17, -1.1),
        (0.880 + 0.03 * np.sin(6.0 * x + 2.8), 9, 0.13, 1.0),
        (0.92 + 0.03 * np.sin(6.0 * x + 3.2), 8, 0.11, 0.8),
        (0.96 + 0.02 * np.sin(5.0 * x + 4.2), 10, 0.08, -0.5),
    ]
    for index, (crest, paint, gap, lean) in enumerate(hills):
        slant = (x + lean * (y - crest) + 0.03 * np.sin(14 * y + index)) / gap + 0.37 * index
        here = y > crest
        panes = np.where(here, 3000 + 100 * index + np.floor(slant).astype(np.int64), panes)
        palette = np.where(here, paint, palette)
    return panes, palette


def grisaille(y: Floats, x: Floats, palette: Ints, streak: Floats, cloud: Floats) -> Floats:
    """Draw the dark lines that are fired on the glass: in petals, leaves and hills, 0..1, a field like `y`."""
    radius, turn = np.hypot(y - 0.37, x - 0.60), np.arctan2(y - 0.37, x - 0.60)
    hairs = smooth(np.sin(126 * turn + 2 * cloud), 0.80, 0.95) * smooth(streak + 6 * (0.21 - radius), -0.4, 0.3)
    hairs = hairs * smooth(radius, 0.150, 0.158) * smooth(0.226 - radius, 0, 0.006)
    beams = smooth(np.sin(84 * turn + cloud), 0.90, 0.97) * smooth(0.145 - radius, 0, 0.01) * smooth(radius, 0.085, 0.1)
    furrow = smooth(np.sin(330 * (y - 0.04 * np.sin(5.0 * x + 2.4)) + 3 * cloud), 0.86, 0.96)
    furrow = furrow * smooth(streak, -0.6, 0.6) * ((palette >= 6) & (palette <= 10))
    vein_way = y - 0.75 * np.abs(x - 0.13 - 0.05 * np.sin(5.2 * y + 0.4))
    veins = smooth(np.sin(420 * vein_way), 0.88, 0.97) * (palette == 11)
    return np.clip(hairs + 0.8 * beams + 0.7 * furrow + 0.8 * veins, 0, 1)


def stained_glass(rng: Rng, height: int, width: int) -> Floats:
    """Leaded window: a sun with petals and rays over hills and a river, behind a vine; returns (h, w, 3)."""
    y, x = grid(height, width)
    panes, palette = window_panes(rng, y, x)
    stem = x - 0.13 - 0.05 * np.sin(5.2 * y + 0.4) - 0.25 * np.clip(0.25 - y, 0, 1) ** 1.2
    leaves = []
    for index, row in enumerate(np.linspace(0.93, 0.07, 12)):
        column = 0.13 + 0.05 * np.sin(5.2 * row + 0.4) + 0.25 * max(0.25 - row, 0) ** 1.2
        leaves.append((row, column, 0.15 - 0.03 * (index % 3), (-0.65, -2.45)[index % 2] + rng.normal(0, 0.2)))
    panes = vine(y, x, panes, stem, leaves)
    palette = np.where(panes == -1, 12, np.where(panes < -1, 11, palette))

    paints = [
        rgb("fff6c9", "ffe991"),
        rgb("ffd23f", "ffb01f", "ffe27a"),
        rgb("f7781f", "e8541b", "fb9a2c"),
        rgb("b3122a", "8a0f33", "d8303a"),
        rgb("f7b9a0", "f4d58a", "ec8f8a", "f9e3b0"),
        rgb("2b6fc4", "1d4fa6", "4f9fd8", "6b5bbd", "173a86", "7cc4dc"),
        rgb("4b3a8c", "6a4aa0", "8a5cae"),
        rgb("1f7d55", "3f9d4f", "166650"),
        rgb("8fbf3f", "c4cf45", "5fa545"),
        rgb("1b8fb0", "3fb8c4", "8fdcd8", "1573a0"),
        rgb("0f5a48", "17734a", "0b4a52"),
        rgb("2f9a3f", "67b83a", "1b7a44", "a3cc3f"),
        rgb("6b4a1f", "7d5a24"),
        rgb("e9836f", "c9628a", "f2b27a", "8f6cc0", "6fb3d8"),
        rgb("16307c", "1f3f9c", "2b2a78", "123a6e", "2f6ab8"),
    ]
    _, pane = np.unique(panes, return_inverse=True)
    pane = pane.reshape(panes.shape)
    count = int(pane.max()) + 1
    kind = np.zeros(count, np.int64)
    kind[pane.ravel()] = palette.ravel()
    tints = np.stack([ramp(np.float32(rng.random()), paints[k]) for k in kind])
    tints = jitter(rng, tints, 0.045, 0.025)
    deep = tints**1.9 * 0.8

    flow = [noise(rng, y.shape, 90, 2.0, stretch=5), noise(rng, y.shape[::-1], 90, 2.0, stretch=5).T]
    cloud = noise(rng, y.shape, 340, 2.6)
    upright = (rng.random(count) < 0.5)[pane]
    streak = np.where(upright, *flow)
    tilt = rng.normal(0, 1, (count, 2))[pane]
    fade = tilt[..., 0] * np.sin(7 * y) + tilt[..., 1] * np.sin(7 * x)
    density = np.clip(0.30 + 0.16 * streak + 0.16 * cloud + 0.16 * fade, 0, 1)
    glass = blend(tints[pane], deep[pane], density.astype(np.float32))
    sun = np.exp(-((np.hypot(y - 0.37, x - 0.60) / 0.42) ** 2))
    glass = glass * (0.80 + 0.42 * sun)[..., None]
    seeds = smooth(noise(rng, y.shape, 7, 2.5), 2.6, 3.2)
    ripple = np.gradient(blur(streak + 0.8 * cloud, 5), axis=0) * 2.0
    glass = glass * (1 + np.clip(ripple, -0.2, 0.25) + 0.22 * seeds)[..., None]

    drawing = grisaille(y, x, palette, streak, cloud)
    glass = glass * (1 - 0.62 * drawing)[..., None]

    rim = near_edge(pane, 15)
    glass = glass * (1 - 0.42 * smooth(rim, 0.25, 1.0))[..., None]
    wide = near_edge(pane, 5.5)
    wobble = 0.05 * noise(rng, y.shape, 60, 2)
    lead = smooth(wide + wobble, 0.40, 0.52)
    bead = blur(np.minimum(wide, 1.2), 2.0)
    down, right = np.gradient(bead)
    shine = np.clip(-(down + right) * 5, -0.05, 0.30) + 0.03 * noise(rng, y.shape, 12, 1.5)
    came = rgb("17161c")[0] + np.clip(shine, 0, 1)[..., None] * rgb("9aa0a8")[0]
    halo = np.stack([blur(glass[..., c] * (1 - lead), 22) for c in range(3)], axis=-1)
    window = blend(glass, came, lead) + 0.20 * np.clip(halo - 0.25, 0, 1)
    return np.clip(window, 0, 1).astype(np.float32)


def fish(y: Floats, x: Floats, head: float) -> tuple[Floats, Floats, Floats]:
    """Shape a carp that swims round the centre of the picture, its nose at the angle `head`.

    Returns its outline (below 0 inside, in normalised units), the place along it (0 nose, 1 end of the tail) and the
    place across it (-1..1 inside), all (h, w).
    """
    dy, dx = y - 0.5, x - 0.667
    radius = np.hypot(dy * 1.08, dx * 0.93)
    turn = (np.arctan2(dy, dx) - head) % (2 * np.pi)
    along = np.where(turn > 1.6 * np.pi, turn - 2 * np.pi, turn) / 2.45
    across = radius - 0.285 - 0.012 * np.sin(8 * along)
    places = [0, 0.015, 0.05, 0.12, 0.22, 0.34, 0.5, 0.66, 0.77, 0.84, 0.92, 1]
    halves = [0, 0.020, 0.036, 0.053, 0.066, 0.072, 0.063, 0.041, 0.023, 0.046, 0.088, 0.118]
    half = np.interp(along, places, halves)
    notch = 0.12 * np.clip(1 - np.abs(across) / 0.09, 0, 1)
    edge = np.maximum(np.abs(across) - half, np.maximum(-along, along - 1 + notch) * 0.7)
    swept = along - 1.45 * (np.abs(across) - 0.06)
    fin = np.maximum(
        np.abs(across) - 0.150 + 0.3 * np.abs(swept - 0.28),
        0.7 * (np.abs(swept - 0.28) - 0.060 + 0.6 * np.clip(np.abs(across) - 0.06, 0, 1)),
    )
    return np.minimum(edge, fin).astype(np.float32), along, across / np.maximum(half, 0.01)


def pond(rng: Rng, y: Floats, x: Floats) -> tuple[Floats, Floats, Ints, Floats]:
    """Draw the mosaic's cartoon: colours (h, w, 3), rows for the tiles (h, w), shapes (h, w), size of tiles (h, w)."""
    drift = noise(rng, y.shape, 300, 2.5)
    dy, dx = y - 0.5, x - 0.667
    radius = np.hypot(dy * 1.08, dx * 0.93)
    outlines = []
    scene = np.zeros((*y.shape, 3), np.float32)
    shape = np.zeros(y.shape, np.int64)
    paints = [rgb("8c1f14", "d8431b", "f2812a", "ffc15a"), rgb("c9b79a", "f3ead6", "fffaf0", "f0c04a")]
    for index, head in enumerate((2.75, -0.35)):
        edge, along, across = fish(y, x, head)
        outlines.append(edge)
        scales = 0.5 + 0.5 * np.sin(46 * along) * np.cos(9 * across)
        light = np.clip(0.75 - 0.42 * np.abs(across + 0.25) + 0.20 * scales + 0.10 * drift, 0, 1)
        patch = smooth(np.sin(9 * along + 1.2 + 2.0 * index) + 0.6 * across + 0.5 * drift, 0.15, 0.3)
        coat = blend(ramp(light, paints[index]), ramp(light, paints[1 - index]), patch * (along < 0.8))
        flimsy = np.maximum(smooth(along, 0.78, 0.84), smooth(np.abs(across), 0.98, 1.02))
        stripes = 0.5 + 0.5 * np.sin(13 * np.clip(across, -2, 2) + 70 * along * (along < 0.6))
        coat = blend(coat, ramp(stripes, rgb("b3301a", "f0872e", "ffd98a")), flimsy)
        gill = np.exp(-(((along - 0.185 + 0.03 * across**2) / 0.011) ** 2)) * (np.abs(across) < 0.9)
        coat = blend(coat, rgb("4a1414")[0], 0.85 * gill)
        eye = np.hypot((along - 0.095) * 2.45 * 0.285, (np.abs(across) - 0.55) * 0.055)
        inside = edge < 0
        scene = np.where(inside[..., None], coat, scene)
        shape = np.where(inside, 1 + index, shape)
        for label, reach, colour in ((6, 0.021, "f7c64a"), (3, 0.0115, "10131c")):
            shape = np.where(eye < reach, label, shape)
            scene = np.where((eye < reach)[..., None], rgb(colour)[0], scene)
    outline = np.minimum(*outlines)

    swell = 0.5 + 0.5 * np.sin(radius * 62 + 2.4 * np.sin(2 * np.arctan2(dy, dx) + 7 * radius) + 0.8 * drift)
    depth = np.clip(0.18 + 0.55 * swell**1.5 + 0.22 * np.exp(-((radius / 0.20) ** 2)) + 0.10 * drift, 0, 1)
    water = ramp(depth, rgb("0b1f4a", "103f78", "1870a0", "2fa5b4", "8fd6c6", "eaf3d2"))
    water = blend(water, rgb("081634")[0], 0.9 * smooth(-outline, -0.034, -0.016))
    scene = np.where((shape == 0)[..., None], water, scene)
    rows = np.where(outline < 0.045, outline, radius + 0.035 * np.sin(2 * np.arctan2(dy, dx) + 7 * radius))

    inset = np.minimum(np.minimum(y, 1 - y), np.minimum(x, x.max() - x))
    rope = np.where(np.abs(dy) / 0.5 > np.abs(dx) / 0.667, x, y)
    twist = np.sin(2 * np.pi * rope / 0.19 + 40 * inset)
    border = ramp(np.clip(0.5 + 1.1 * twist, 0, 1), rgb("6a1524", "a8321f", "dc8a2a", "f7dc98"))
    border = blend(border, rgb("f0e2bd")[0], smooth(-np.abs(inset - 0.071), -0.010, -0.008))
    border = blend(border, rgb("1a1a2c")[0], smooth(-inset, -0.017, -0.014))
    frame = inset < 0.080
    scene = np.where(frame[..., None], border, scene)
    shape = np.where(frame, 4 + (inset > 0.062), shape)
    size = np.where(frame, 0.90, np.where(shape > 0, 0.70, 0.92 + 0.12 * (outline > 0.05)))
    return scene.astype(np.float32), np.where(frame, inset, rows), shape, size.astype(np.float32)


def set_tiles(
    sites: Floats, turns: Floats, sizes: Floats, kinds: Ints, shape: Ints, *, unit: float
) -> tuple[Ints, Floats, Floats]:
    """Give each pixel of `shape` (h, w) to the nearest of `n` square tiles.

    `sites` (n, 2) are centres in pixels, `turns` (n,) radians, `sizes` (n,) relative to a tile of `unit` pixels and
    `kinds` (n,) the shapes they belong to. Returns the tile of each pixel, and the distances to it and to the next
    tile in tiles, all (h, w).
    """
    h, w = shape.shape
    owner = np.zeros((h, w), np.int64)
    best, second = np.full((h, w), 99, np.float32), np.full((h, w), 99, np.float32)
    for index, (row, column) in enumerate(sites):
        reach = 1.25 * unit * sizes[index]
        top, left = max(0, int(row - reach)), max(0, int(column - reach))
        box = np.s_[top : max(0, int(row + reach) + 1), left : max(0, int(column + reach) + 1)]
        dy = np.arange(top, top + best[box].shape[0], dtype=np.float32)[:, None] - row
        dx = np.arange(left, left + best[box].shape[1], dtype=np.float32)[None] - column
        c, s = np.cos(turns[index]), np.sin(turns[index])
        far = np.maximum(np.abs(dx * c + dy * s), np.abs(dy * c - dx * s)) / (unit * sizes[index])
        far = far + 0.9 * (shape[box] != kinds[index])
        nearer = far < best[box]
        second[box] = np.where(nearer, best[box], np.minimum(second[box], far))
        owner[box] = np.where(nearer, index, owner[box])
        best[box] = np.minimum(best[box], far)
    return owner, best, second


def mosaic(rng: Rng, height: int, width: int) -> Floats:
    """Two carp circling in a pond, set in small cut stones that follow their outlines; returns (h, w, 3)."""
    y, x = grid(height, width)
    scene, rows, shape, size = pond(rng, y, x)
    unit, coarse = 34.0, 4
    down, right = np.gradient(blur(rows, 5))
    angle = np.arctan2(down, right).astype(np.float32)

    sites = scatter(rng, y.shape, unit * float(size.min()))
    sites = sites[rng.random(len(sites)) < (size.min() / pick(size, sites)) ** 2]
    small = shape[::coarse, ::coarse]
    for _ in range(14):
        traits = pick(angle, sites), pick(size, sites), pick(shape, sites)
        owner, _, _ = set_tiles(sites / coarse, *traits, small, unit=unit / coarse)
        amount = np.bincount(owner.ravel(), minlength=len(sites)) + 1e-6
        lines, columns = np.mgrid[0 : small.shape[0], 0 : small.shape[1]]
        centre = [np.bincount(owner.ravel(), part.ravel(), len(sites)) / amount for part in (lines, columns)]
        moved = (np.stack(centre, axis=-1) + 0.5) * coarse
        sites = np.where(amount[:, None] > 1, moved, sites).astype(np.float32)
    kinds = pick(shape, sites)
    turns = pick(angle, sites) + rng.normal(0, 0.07, len(sites))
    owner, best, second = set_tiles(sites, turns, pick(size, sites), kinds, shape, unit=unit)

    tints = jitter(rng, pick(scene, sites), 0.055, 0.022)
    face = rng.normal(0, 1, (len(sites), 2))
    gap = second - best + 0.035 * noise(rng, y.shape, 20, 2.2)
    stone = smooth(gap, 0.06, 0.25) * smooth(1.02 - best, 0, 0.1)
    dome = smooth(gap, 0.05, 0.55)
    slope_y, slope_x = np.gradient(blur(dome, 2.0))
    vein = noise(rng, y.shape, 40, 2.2)
    tilt = 0.035 * (face[owner, 0] + face[owner, 1])
    colour = tints[owner] * (1 + tilt + 0.022 * vein - 1.7 * np.clip(slope_y + slope_x, -0.10, 0.10))[..., None]
    glint = smooth(tilt + 0.02 * vein - 1.2 * (slope_y + slope_x), 0.11, 0.24)
    colour = colour + 0.28 * glint[..., None]
    sand = 0.5 + 0.06 * noise(rng, y.shape, 24, 2.0) + 0.15 * noise(rng, y.shape, 200, 2)
    grout = ramp(np.clip(sand, 0, 1), rgb("2c2622", "5a4f45", "86786a"))
    grout = grout * (1 - 0.45 * shift(blur(stone, 3), 4, 4))[..., None]
    return np.clip(blend(grout, colour.astype(np.float32), stone), 0, 1)


def alps(rng: Rng, y: Floats, x: Floats) -> tuple[Floats, Floats]:
    """Raise the mountains: returns the row of their skyline and which way the slopes face (-1 lit, 1 dark), (h, w)."""
    peaks = [
        (0.30, 0.23, 1.05),
        (0.08, 0.38, 0.9),
        (0.62, 0.40, 0.8),
        (0.86, 0.33, 0.95),
        (1.13, 0.42, 0.8),
        (1.32, 0.34, 0.9),
    ]
    crag = 0.014 * noise(rng, (1, x.shape[1]), 260, 1.4)
    fold = 0.030 * noise(rng, y.shape, 240, 1.9)
    skyline, facing = np.full_like(x, 2.0), np.zeros_like(x)
    for column, row, steep in peaks:
        side = x - column
        slope = row + steep * np.abs(side) ** 1.05 + crag
        nearest = slope < skyline
        facing = np.where(nearest, smooth(-(side + fold * 1.6 + 0.12 * (y - row)), -0.008, 0.008) * 2 - 1, facing)
        skyline = np.minimum(skyline, slope)
    return skyline.astype(np.float32), facing.astype(np.float32)


def pine(y: Floats, x: Floats, foot: float, column: float, tall: float) -> Floats:
    """Return how deep each pixel lies inside a pine that stands at (`foot`, `column`), normalised; above 0 inside."""
    up = (foot - y) / tall
    droop = 11 * np.clip(up, 0, 1) ** 0.85 + 0.25 * np.sin(40 * x)
    tier = 1 - (droop - np.floor(droop))
    reach = tall * 0.27 * np.clip(1 - up, 0, 1) ** 0.9 * (0.34 + 0.66 * tier) + 0.004 * np.sin(260 * y)
    bough = reach - np.abs(x - column - 0.01 * np.sin(9 * up))
    return np.where(
        (up > 0.06) & (up < 1), bough, np.where((up > -0.02) & (up <= 0.06), 0.008 - np.abs(x - column), -1.0)
    )


def valley(rng: Rng, y: Floats, x: Floats) -> tuple[Ints, Floats, Floats]:
    """Compose the woodcut: returns its shapes, how light they are (0..1) and the way the gouge runs, all (h, w)."""
    moon = np.hypot(y - 0.19, x - 0.83)
    swirl = noise(rng, y.shape, 420, 2.8)
    shape = np.where(moon < 0.085, 1, 0)
    cloud = 0.5 + 0.5 * np.sin(34 * (y + 0.05 * swirl) + 3 * swirl)
    tone = 0.20 + 0.62 * np.exp(-(((moon - 0.08) / 0.20) ** 2)) + 0.30 * cloud * smooth(y, 0.0, 0.5)
    angle = np.arctan2(x - 0.83, -(y - 0.19)) + 0.22 * swirl
    far = smooth(moon, 0.22, 0.5)
    angle = np.arctan2(np.sin(angle) * (1 - far) + far * 0.22 * swirl, np.abs(np.cos(angle)) * (1 - far) + far)
    angle = np.where(moon < 0.24, np.arctan2(x - 0.83, -(y - 0.19)), angle)

    skyline, facing = alps(rng, y, x)
    rock = y > skyline
    below = np.clip((y - skyline) / 0.3, 0, 1)
    shape = np.where(rock, np.where(facing < 0, 2, 3), shape)
    lit = 0.98 - 0.60 * below + 0.10 * swirl
    tone = np.where(rock, np.where(facing < 0, lit, 0.10 + 0.22 * below + 0.05 * swirl), tone)
    angle = np.where(rock, np.where(facing < 0, 2.20, 0.95) + 0.30 * swirl + 0.3 * below, angle)

    hills = [(0.565 + 0.025 * np.sin(5.5 * x + 1), 4, 0.42), (0.60 + 0.03 * np.sin(4 * x + 3.4), 5, 0.30)]
    for crest, label, light in hills:
        here = y > crest
        shape = np.where(here, label, shape)
        tone = np.where(here, light + 0.45 * np.exp(-(y - crest) / 0.012) + 0.06 * swirl, tone)
        angle = np.where(here, 0.35 * np.cos(5 * x + label) + 4 * (y - crest) + 0.2 * swirl, angle)
    lake = (y > 0.665 + 0.006 * np.sin(17 * x)) & (y < 0.94)
    glitter = np.exp(-(((x - 0.83 + 0.02 * swirl) / (0.04 + 0.30 * (y - 0.66))) ** 2))
    ripple = 0.5 + 0.5 * np.sin(120 * np.clip(y - 0.6, 0, 1) ** 0.8 + 1.5 * swirl + 4 * np.sin(3 * x))
    shape = np.where(lake, 6, shape)
    tone = np.where(lake, 0.06 + 0.62 * glitter * (0.4 + ripple) + 0.30 * ripple, tone)
    angle = np.where(lake, 0.05 * np.sin(30 * x + 40 * y) + 0.06 * swirl, angle)

    shore = 0.90 - 0.20 * np.clip(0.52 - x, 0, 1) ** 1.3 - 0.30 * np.clip(x - 1.02, 0, 1) ** 1.4 + 0.010 * swirl
    bank = y > shore
    shape = np.where(bank, 7, shape)
    tone = np.where(bank, 0.30 + 0.45 * np.exp(-(y - shore) / 0.018) + 0.10 * swirl, tone)
    angle = np.where(bank, 0.9 * np.sin(7 * x) - 0.9 + 0.4 * swirl, angle)
    trees = [(0.62, 0.96, 0.09), (0.615, 1.02, 0.12), (0.62, 0.56, 0.08), (0.625, 0.50, 0.11), (0.62, 0.70, 0.06)]
    trees += [(0.83, 0.36, 0.34), (0.80, 0.04, 0.50), (0.87, 0.20, 0.72), (0.93, 1.20, 0.42), (0.98, 1.29, 0.62)]
    for foot, column, tall in trees:
        inside = pine(y, x, foot, column, tall)
        shape = np.where(inside > 0, 8, np.where(inside > -0.0035, 9, shape))
        glow = np.clip(0.16 + 3.0 * (x - column) / tall + 0.10 * swirl, 0.05, 0.60)
        tone = np.where(inside > 0, glow, tone)
        angle = np.where(inside > 0, np.where(x > column, 0.75, np.pi - 0.75) + 0.2 * swirl, angle)
    return shape, np.clip(tone, 0, 1).astype(np.float32), angle.astype(np.float32)


def carve(block: Floats, taken: NDArray[np.bool_], shape: Ints, path: Floats, *, width: float, gap: float) -> None:
    """Gouge one cut out of `block` (h, w; 1 wood, 0 cut) along `path` (k, 2), as far as wood of the same shape is free.

    `taken` (h, w) holds what is cut or must stay, and gains the cut and a wall of `gap` canvas pixels around it.
    """
    h, w = block.shape
    rows, columns = path[:, 0].astype(np.int64), path[:, 1].astype(np.int64)
    off = (rows < 0) | (rows >= h) | (columns < 0) | (columns >= w)
    rows, columns = np.clip(rows, 0, h - 1), np.clip(columns, 0, w - 1)
    middle = len(path) // 2
    stop = off | taken[rows, columns] | (shape[rows, columns] != shape[rows[middle], columns[middle]])
    if stop[middle]:
        return
    ends = np.flatnonzero(stop)
    after = np.searchsorted(ends, middle)
    low = ends[after - 1] + 1 if after else 0
    high = ends[after] if after < len(ends) else len(path)
    if (high - low) * STEP < 2.2 * width + 6:
        return
    path = path[low:high]
    along = np.linspace(0, 1, len(path), dtype=np.float32)
    lens = np.clip(np.sin(np.pi * along**0.75), 0, 1) ** 0.55
    run = np.gradient(path, axis=0)
    side = np.stack([run[:, 1], -run[:, 0]], axis=-1) / (np.hypot(run[:, 0], run[:, 1])[:, None] + 1e-6)
    for field, value, half in ((block, 0.0, lens * width / 2), (taken, True, lens * width / 2 + gap)):
        across = np.linspace(-1, 1, max(3, int(2 * half.max() / STEP) + 1), dtype=np.float32)
        points = path[:, None] + side[:, None] * (half[:, None] * across)[..., None]
        line, place = points[..., 0].astype(np.int64), points[..., 1].astype(np.int64)
        on = (line >= 0) & (line < h) & (place >= 0) & (place < w)
        field[line[on], place[on]] = value


def woodcut(rng: Rng, height: int, width: int) -> Floats:
    """Moonlit lake under mountains, cut with a gouge and printed in ink over two tints; returns (h, w, 3)."""
    y, x = grid(height, width)
    shape, tone, angle = valley(rng, y, x)
    block = np.ones_like(y)
    taken = near_edge(shape, 2.0) > 0.6
    taken |= shape == 9
    block[(shape == 1) & ~taken] = 0
    taken |= shape == 1
    for length, gap_between, coarse in ((230, 20, 1.25), (130, 14, 1.0), (80, 11, 0.85)):
        seeds = scatter(rng, y.shape, gap_between)
        light = pick(tone, seeds)
        open_wood = ~pick(taken, seeds) & (rng.random(len(seeds)) < 0.12 + 1.3 * light)
        seeds, light = seeds[open_wood], light[open_wood]
        widths = coarse * (3.8 + 10.0 * light**1.3) * rng.uniform(0.8, 1.2, len(seeds))
        walls = 3.0 + 6.0 * (1 - light) ** 1.5
        paths = trace(angle, seeds, length, rng.normal(0, 0.05, len(seeds)))
        for path, wide, wall in zip(paths, widths, walls, strict=True):
            carve(block, taken, shape, path, width=wide, gap=wall)

    grain = noise(rng, y.shape[::-1], 26, 1.9, stretch=30).T
    rough = noise(rng, y.shape, 14, 1.6)
    printed = smooth(blur(block, 1.7) + 0.030 * rough + 0.02 * grain, 0.38, 0.62)
    starved = smooth(0.55 * grain + 0.75 * noise(rng, y.shape, 24, 1.5), 1.75, 2.3)
    ink = printed * (1 - 0.75 * starved) * (0.95 + 0.02 * grain)

    paper = rgb("f3e7cb")[0] * (1 + 0.012 * noise(rng, y.shape, 40, 1.8) + 0.006 * rough)[..., None]
    sunset = ramp(np.clip(y / 0.62 + 0.04 * grain, 0, 1), rgb("2a6f7a", "5f9a8c", "d9b25a", "e5813a", "d4572e"))
    lake = ramp(np.clip((y - 0.64) / 0.3 + 0.04 * grain, 0, 1), rgb("dd6f36", "b98a55", "3f8083", "1f5f6e"))
    turf = ramp(np.clip(0.5 + 0.25 * grain, 0, 1), rgb("b5892f", "d6ad4a"))
    tint = np.where((shape == 6)[..., None], lake, sunset)
    tint = np.where(((shape == 4) | (shape == 5))[..., None], rgb("c9702f")[0], tint)
    tint = np.where((shape == 7)[..., None], turf, tint)
    tint = np.where((shape == 8)[..., None], rgb("5f8f55")[0], tint)
    tint = np.where((shape == 3)[..., None], rgb("7fa3a0")[0], tint)
    bare = ((shape == 1) | (shape == 2) | ((shape == 6) & (tone > 0.62))).astype(np.float32)
    cover = shift(blur(1 - bare, 1.5), 5, -4) * (0.93 + 0.05 * np.clip(grain, -1, 1))
    print_ = blend(paper, paper * shift(tint, 5, -4), cover)
    return np.clip(blend(print_, rgb("161a26")[0] + 0.012 * grain[..., None], ink), 0, 1)


def swell(rng: Rng, width: int, base: float, tall: float, span: float) -> Callable[[float], Floats]:
    """Shape one row of waves: returns a function from depth (0 the crest line, 1 deep inside) to a curve (n, 2).

    All lengths are canvas pixels: the waves ride on the row `base`, rise by `tall` and are `span` apart.
    """
    theta = np.linspace(-2 * np.pi, 2 * np.pi * (width / span + 1), 2600)
    start, beat, lift = rng.uniform(0, 2 * np.pi), rng.uniform(0, 6), rng.uniform(0, 6)
    height = tall * (0.72 + 0.28 * np.sin(0.61 * theta + beat)) * (0.85 + 0.15 * np.sin(0.27 * theta + lift))

    def curve(depth: float) -> Floats:
        crest = (0.5 + 0.5 * np.cos(theta + start)) ** (2.5 - 0.9 * depth) * (1 - 0.72 * depth)
        hook = np.clip(crest - 0.55, 0, 1)
        lean = 0.85 * crest**1.6 + 1.9 * hook**1.5
        column = theta / (2 * np.pi) * span - height * lean * (1 - 0.35 * depth)
        row = base - height * (crest - 1.25 * hook**2) + depth * (0.52 * tall + 0.25 * span * (1 - crest) * 0.5)
        row = row + 5 * np.sin(2.3 * theta + 7 * depth)
        return np.stack([row, column], axis=-1).astype(np.float32)

    return curve


def ink_line(draw: ImageDraw.ImageDraw, curve: Floats, wide: Floats, colour: str) -> None:
    """Draw `curve` (n, 2) with a line `wide` (n,) canvas pixels thick."""
    run = np.gradient(curve, axis=0)
    side = np.stack([run[:, 1], -run[:, 0]], axis=-1) / (np.hypot(run[:, 0], run[:, 1])[:, None] + 1e-6)
    edges = np.concatenate([curve + side * wide[:, None] / 2, (curve - side * wide[:, None] / 2)[::-1]])
    draw.polygon([(float(c), float(r)) for r, c in edges], fill=colour)


def foam(draw: ImageDraw.ImageDraw, rng: Rng, crest: Floats, rise: Floats, size: float) -> None:
    """Set scalloped foam with claws and spray along `crest` (n, 2) where `rise` (n,), 0..1, is high."""
    spots = []
    for index in np.flatnonzero(rise > 0.34)[:: max(2, int(size / 5))]:
        much = (rise[index] - 0.26) / 0.74
        for _ in range(3):
            drop = rng.uniform(0, 2.6) * size * much
            row, column = crest[index] + [drop, rng.normal(0, 0.5 * size) + 0.3 * drop]
            spots.append((row, column, size * rng.uniform(0.35, 0.95) * (0.35 + 0.65 * much)))
        if rise[index] > 0.75 and rng.random() < 0.55:
            throw = rng.uniform(0.6, 4.5) * size
            row, column = crest[index] + [rng.uniform(-1.9, 0.8) * throw, -rng.uniform(0.2, 1.0) * throw]
            spots.append((row, column, size * rng.uniform(0.10, 0.30)))
    for extra, colour in ((3.4, "#16264f"), (0.0, "#f6efdc")):
        for row, column, radius in spots:
            r = radius + extra
            draw.ellipse((column - r, row - r, column + r, row + r), fill=colour)
    for row, column, radius in spots:
        if radius > 0.55 * size:
            r = 0.62 * radius
            draw.arc((column - r, row - r, column + r, row + r), 20, 170, fill="#8fb4c4", width=3)


def cloud(draw: ImageDraw.ImageDraw, rng: Rng, row: float, column: float, size: float) -> None:
    """Stack long rounded bars of mist, each `size` canvas pixels thick, round (`row`, `column`)."""
    bars = []
    for level in range(4):
        middle = column + rng.normal(0, 3.2 * size)
        half = size * rng.uniform(2.4, 6.5)
        top = row + (level - 2) * 0.86 * size
        bars.append((middle - half, top, middle + half, top + size * rng.uniform(0.62, 1.0)))
    for inset, colour in ((0.0, "#16264f"), (4.0, "#f6ecd2"), (11.0, "#33588a"), (13.5, "#e3e2cd")):
        for left, top, right, bottom in bars:
            box = (left + inset, top + inset * 0.8, right - inset, bottom + 0.16 * size - inset * 0.8)
            draw.rounded_rectangle(box, radius=(box[3] - box[1]) / 2, fill=colour)


def ink_wave(rng: Rng, height: int, width: int) -> Floats:
    """Breaking waves in bands of indigo under a red sun, as a flat colour print; returns (h, w, 3)."""
    y, x = grid(height, width)
    air = noise(rng, y.shape[::-1], 330, 2.6, stretch=4).T
    sky = ramp(np.clip(y / 0.60 + 0.06 * air, 0, 1), rgb("1b3766", "4a7c9f", "a9c4b8", "f0e0ba", "f3c492", "e58f6c"))
    sun = np.hypot(y - 0.25, x - 0.90)
    disc = ramp(np.clip((y - 0.07) / 0.36, 0, 1), rgb("bd2320", "dc452a", "f0894a"))
    sky = blend(sky, disc, smooth(-sun, -0.172, -0.170))
    sky = blend(sky, rgb("fbe9c2")[0], 0.5 * smooth(-np.abs(sun - 0.190), -0.007, -0.006))
    rings = smooth(np.sin(2 * np.pi * (sun + 0.006 * air) / 0.034), 0.35, 0.5) * smooth(sun, 0.205, 0.21)
    sky = blend(sky, rgb("fbe3b4")[0], 0.36 * rings * smooth(0.62 - sun, 0, 0.45))

    page = Image.fromarray((np.clip(sky, 0, 1) * 255).astype(np.uint8))
    draw = ImageDraw.Draw(page)
    for row, column, size in [
        (0.10, 0.22, 52),
        (0.22, 0.02, 40),
        (0.33, 0.33, 44),
        (0.37, 0.98, 40),
        (0.15, 1.24, 48),
        (0.05, 0.78, 34),
    ]:
        cloud(draw, rng, row * height, column * height, size)
    bands = [
        ("#a9c4c4", "#dfe5d2", "#7fa9b8", "#c9d8cc", "#5f8fa8", "#b4cbc8", "#7fa9b8"),
        ("#5f93ad", "#d5dfd0", "#3f7699", "#8db4bf", "#2f6289", "#6f9fb4", "#3f7699"),
        ("#2f6a94", "#e3e6d3", "#1f4f80", "#5f9ab2", "#173f70", "#9cc3c4", "#1f4f80", "#3a7a9d"),
        ("#1f5488", "#efe9d4", "#16396c", "#3f86a6", "#122c5a", "#8fc0c2", "#16396c", "#2a6592"),
        ("#183f75", "#f3ecd8", "#0f2850", "#2f769c", "#0c1f44", "#7fb9bd", "#0f2850", "#1d4b80"),
        ("#12305f", "#f3ecd8", "#0b1d40", "#27648f", "#081733", "#5fa3b0", "#0b1d40", "#173d70"),
    ]
    rows = [
        (0.50, 0.07, 0.30),
        (0.58, 0.13, 0.46),
        (0.70, 0.22, 0.66),
        (0.80, 0.36, 1.02),
        (0.93, 0.28, 0.74),
        (1.06, 0.26, 0.90),
    ]
    for (base, tall, span), colours in zip(rows, bands, strict=True):
        curve = swell(rng, width, base * height, tall * height, span * height)
        crest = curve(0.0)
        for index, colour in enumerate(colours):
            edge = curve((index / len(colours)) ** 1.15)
            area = [*((float(c), float(r)) for r, c in edge), (3.0 * width, 2.0 * height), (-2.0 * width, 2.0 * height)]
            draw.polygon(area, fill=colour)
            swelling = 0.5 + 0.5 * np.sin(np.arange(len(edge)) / 23 + index)
            ink_line(draw, edge, (2.0 + 5.0 * tall + 5.5 * swelling * (tall + 0.25)).astype(np.float32), "#0c1a3a")
            if index:
                lower = edge + np.array([9 + 14 * tall, 0], np.float32)
                ink_line(draw, lower, (1.5 + 2.5 * swelling).astype(np.float32), "#e9e6d2" if index % 2 else "#0c1a3a")
        rise = np.clip((base * height - crest[:, 0]) / (tall * height) / 0.8, 0, 1)
        ribs = np.stack([curve(depth) for depth in np.linspace(0.02, 0.62, 24)], axis=1)
        for index in np.flatnonzero((rise > 0.16) & (rng.random(len(rise)) < 0.16)):
            low = rng.integers(0, 10)
            rib = ribs[index, low : low + rng.integers(6, 14)]
            taper = np.sin(np.linspace(0.05, np.pi - 0.05, len(rib))) * (1.5 + 9 * tall)
            ink_line(draw, rib, taper.astype(np.float32), "#f3ecd8" if rng.random() < 0.6 else "#0c1a3a")
        foam(draw, rng, crest, rise.astype(np.float32), 9 + 66 * tall)

    flat = np.asarray(page, np.float32) / 255
    grain = noise(rng, y.shape[::-1], 40, 1.8, stretch=40).T
    dabs = noise(rng, y.shape, 16, 1.7)
    paper = rgb("f8f0dc")[0] * (1 + 0.010 * dabs)[..., None]
    worn = np.clip(0.05 + 0.055 * grain + 0.030 * dabs, 0, 0.35)
    return np.clip(blend(flat, paper, worn), 0, 1)


@dataclass
class Sheet:
    """Watercolour paper: `density` (h, w, 3) of the pigment, `tooth` (h, w), deviation 1; `rng` moves the hand."""

    rng: Rng
    density: Floats
    tooth: Floats


def wash(
    sheet: Sheet,
    outline: Floats,
    colour: Floats,
    strength: float,
    *,
    soft: float = 2.5,
    rim: float = 1.0,
    lift: float = 0.0,
) -> None:
    """Float `colour` (3,) into the polygon `outline` (n, 2, canvas pixels) and let it dry with a darker edge.

    `soft` is how far the edge bleeds in canvas pixels, `rim` how much pigment gathers there, `lift` the share
    of the older pigment that a wet brush takes off first.
    """
    h, w = sheet.tooth.shape
    pad = int(3 * soft) + 24
    top, left = (max(0, int(v) - pad) for v in outline.min(axis=0))
    bottom, right = (min(size, int(v) + pad) for size, v in zip((h, w), outline.max(axis=0), strict=True))
    if bottom - top < 2 * pad or right - left < 2 * pad:
        return
    stencil = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(stencil).polygon([(float(c) - left, float(r) - top) for r, c in outline], fill=255)
    shape = (bottom - top, right - left)
    fray, pool = noise(sheet.rng, shape, 26, 1.7), noise(sheet.rng, shape, 150, 2.3)
    wet = blur(np.asarray(stencil, np.float32) / 255, soft) + 0.10 * fray
    wet = smooth(wet, 0.5 - 0.16 - 0.02 * soft, 0.5 + 0.16 + 0.02 * soft)
    gathered = np.clip(wet - blur(wet, 6), 0, 1) * rim
    box = np.s_[top:bottom, left:right]
    pigment = wet * (0.72 + 0.26 * pool + 0.13 * np.clip(sheet.tooth[box], -2, 2)) + 1.5 * gathered
    absorb = -np.log(np.clip(colour, 0.02, 1))
    sheet.density[box] *= 1 - lift * wet[..., None]
    sheet.density[box] += (strength * np.clip(pigment, 0, 3))[..., None] * absorb


def blob(rng: Rng, centre: tuple[float, float], size: float, flat: float = 1.0, rough: float = 0.2) -> Floats:
    """Outline a lump (n, 2) about `size` canvas pixels in radius, `flat` times as high as wide."""
    turn = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    lumps = sum(rng.normal(0, rough / k) * np.cos(k * turn + rng.uniform(0, 6.3)) for k in range(1, 9))
    reach = size * np.clip(1 + lumps, 0.2, 2)
    return np.stack([centre[0] + flat * reach * np.sin(turn), centre[1] + reach * np.cos(turn)], axis=-1)


def blade(start: Sequence[float], angle: float, length: float, wide: float, bend: float) -> Floats:
    """Outline a tapering stroke (n, 2) that leaves `start` (row, column) at `angle` radians and curves by `bend`."""
    t = np.linspace(0, 1, 50)
    turn = angle + bend * t
    spine = np.asarray(start) + np.cumsum(np.stack([np.sin(turn), np.cos(turn)], axis=-1), axis=0) * length / 50
    half = (wide / 2 * np.sin(np.pi * (0.08 + 0.92 * t)) ** 0.7)[:, None]
    side = np.stack([np.cos(turn), -np.sin(turn)], axis=-1)
    return np.concatenate([spine + side * half, (spine - side * half)[::-1]])


def background(sheet: Sheet) -> None:
    """Flood the paper: sky colours above, greens below, and deep pools where the blooms will stand."""
    rng, (height, width) = sheet.rng, sheet.tooth.shape
    meadow = rgb("a9c95a", "6fae6c", "f6d96a", "4f9fa0", "f3b48c", "7f9fd4", "b79bd2")
    for _ in range(110):
        row, column = rng.uniform(-0.05, 1.05, 2)
        place = np.clip(1 - row + rng.normal(0, 0.16), 0, 0.999)
        lump = blob(rng, (row * height, column * width), rng.uniform(130, 330), 0.7, 0.3)
        wash(sheet, lump, meadow[int(place * 7)], 0.36, soft=rng.choice([4, 16]), rim=1.4)
    pools = [(0.36, 0.46), (0.22, 0.74), (0.12, 0.36), (0.60, 0.18), (0.72, 0.90), (0.60, 0.55)]
    deep = rgb("3f6f9f", "2f7f7f", "6a5fa8")
    for row, column in np.repeat(pools, 3, axis=0) + rng.normal(0, 0.05, (18, 2)):
        lump = blob(rng, (row * height, column * width), rng.uniform(220, 300), 0.7, 0.35)
        wash(sheet, lump, deep[rng.integers(3)], 0.34, soft=rng.choice([5, 18]), rim=1.4)


def grass(sheet: Sheet, count: int, colours: Floats, strength: float, rows: tuple[float, float]) -> None:
    """Flick `count` blades of `colours` (n, 3) upwards from between the normalised `rows`."""
    rng, (height, width) = sheet.rng, sheet.tooth.shape
    for _ in range(count):
        root = (rng.uniform(*rows) * height, rng.uniform(-0.05, 1.05) * width)
        angle, bend = -np.pi / 2 + rng.normal(0, 0.32), rng.normal(0, 0.6)
        outline = blade(root, angle, rng.uniform(200, 540), rng.uniform(9, 24), bend)
        wash(sheet, outline, colours[rng.integers(len(colours))], strength)


def stalk(sheet: Sheet, row: float, column: float, size: float) -> None:
    """Paint the stem and the leaves under a bloom of radius `size` canvas pixels at (`row`, `column`)."""
    rng, height = sheet.rng, sheet.tooth.shape[0]
    angle, bend = np.pi / 2 + rng.normal(0, 0.1), rng.normal(0, 0.25)
    stem = blade((row + 0.5 * size, column), angle, 1.1 * (height - row), 0.085 * size, bend)
    wash(sheet, stem, rgb("3d6b34")[0], 0.8, lift=0.5)
    greens = rgb("4f7f35", "2f6a4a", "7a9a3c")
    for _ in range(7):
        side = rng.choice([-1.0, 1.0])
        angle, bend = side * rng.uniform(0.4, 1.1) - np.pi / 2, -side * rng.uniform(0, 0.7)
        leaf = blade(stem[rng.integers(16, 44)], angle, size * rng.uniform(0.6, 1.3), 0.16 * size, bend)
        wash(sheet, leaf, greens[rng.integers(3)], 0.65, rim=1.4, lift=0.5)


def poppy(sheet: Sheet, row: float, column: float, size: float, squash: float) -> None:
    """Paint one bloom of radius `size` canvas pixels at (`row`, `column`), seen from the side as `squash` falls."""
    rng, centre = sheet.rng, np.array([row, column])
    reds = rgb("f0523a", "ea3a2c", "de2440", "f27a3c", "e23a5a")
    first = rng.uniform(0, 6.3)
    for petal in range(5):
        axis = first + petal * 2.5 + rng.normal(0, 0.15)
        fan = np.linspace(-0.80, 0.80, 60)
        ruffle = sum(rng.normal(0, 0.035) * np.sin(k * fan + rng.uniform(0, 6.3)) for k in (3, 5, 8, 13))
        reach = size * rng.uniform(0.85, 1.12) * np.cos(1.5 * fan) ** 0.26 * (1 + ruffle)
        rim = np.stack([squash * reach * np.sin(axis + fan), reach * np.cos(axis + fan)], axis=-1)
        outline = np.concatenate([np.zeros((1, 2)), rim])
        wash(sheet, centre + outline, reds[rng.integers(5)], 0.84, rim=1.5, lift=0.90)
        wash(sheet, centre + outline * rng.uniform(0.66, 0.88), reds[rng.integers(5)], 0.34, soft=9, rim=0.3)
        wash(sheet, centre + outline * 0.42, rgb("8d1238")[0], 0.30, soft=10, rim=0.2)
        for ray in axis + rng.uniform(-0.7, 0.7, 7):
            out = np.array([squash * np.sin(ray), np.cos(ray)])
            angle, length = np.arctan2(*out), size * rng.uniform(0.35, 0.6)
            vein = blade(centre + 0.25 * size * out, angle, length, 0.035 * size, rng.normal(0, 0.2))
            wash(sheet, vein, rgb("a8142f")[0], 0.26)
    wash(sheet, blob(rng, (row, column), 0.17 * size, squash), rgb("1a1a38")[0], 0.75)
    for turn in rng.uniform(0, 6.3, 26):
        far = size * rng.uniform(0.18, 0.36)
        place = (row + squash * far * np.sin(turn), column + far * np.cos(turn))
        wash(sheet, blob(rng, place, size * rng.uniform(0.018, 0.035)), rgb("15142c")[0], 0.9, soft=1.2)


def watercolour(rng: Rng, height: int, width: int) -> Floats:
    """Poppies in a wet meadow, in layers of transparent wash on rough paper; returns (h, w, 3)."""
    tooth = noise(rng, (height, width), 9, 1.7)
    sheet = Sheet(rng, np.zeros((height, width, 3), np.float32), tooth)
    blooms = [  # row, column, radius, squash
        (0.30, 0.60, 250, 0.86),
        (0.52, 0.27, 205, 0.72),
        (0.66, 0.82, 190, 0.66),
        (0.20, 0.13, 120, 0.60),
        (0.17, 0.89, 130, 0.70),
    ]
    background(sheet)
    grass(sheet, 60, rgb("5f8f3a", "3f7a4f", "2f6a6a", "8fa83a"), 0.42, (0.45, 1.08))
    far_reds = rgb("f0563c", "e8863c", "d93a5c")
    for row, column in rng.uniform((0.22, 0), (0.62, 1), (26, 2)):
        bud = blob(rng, (row * height, column * width), rng.uniform(16, 42), 0.7)
        wash(sheet, bud, far_reds[rng.integers(3)], 0.6, rim=1.5, lift=0.8)
    for row, column, size, _ in blooms:
        stalk(sheet, row * height, column * width, size)
    grass(sheet, 40, rgb("24503c", "1f4a5a", "4a5f24", "3a3a5f"), 0.6, (0.85, 1.1))
    for row, column, size, squash in reversed(blooms):
        poppy(sheet, row * height, column * width, size, squash)
    splashes = rgb("d8402f", "4f7f45", "3f6fa8", "e0a030")
    for row, column in rng.uniform(0, 1, (150, 2)):
        spot = blob(rng, (row * height, column * width), rng.exponential(4.5) + 2.5)
        wash(sheet, spot, splashes[rng.integers(4)], 0.5, soft=1.2)
    down, right = np.gradient(blur(tooth, 1.2))
    paper = rgb("fbf6ea")[0] * (1 + 0.05 * np.clip(down + right, -1, 1))[..., None]
    return np.clip(paper * np.exp(-sheet.density), 0, 1).astype(np.float32)


# --- pictures ---------------------------------------------------------------------------------------------------------

PICTURES: dict[str, tuple[Painter, int, int, int]] = {  # file: painter, height, width, seed
    "swirls.jpg": (swirls, 768, 1024, 11),
    "autumn_oil.jpg": (autumn_oil, 768, 1024, 12),
    "stained_glass.jpg": (stained_glass, 1024, 1024, 13),
    "mosaic.jpg": (mosaic, 768, 1024, 14),
    "woodcut.jpg": (woodcut, 768, 1024, 15),
    "ink_wave.jpg": (ink_wave, 768, 1024, 16),
    "watercolour.jpg": (watercolour, 768, 1024, 17),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Paint the named pictures, or all of them, and save them as JPEG."""
    parser = argparse.ArgumentParser(description="Paint the style pictures.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of {', '.join(PICTURES)}; all by default")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder to write to")
    options = parser.parse_args(arguments)
    for name in options.names or PICTURES:
        painter, height, width, seed = PICTURES[name]
        picture = shrink(painter(np.random.default_rng(seed), height * SCALE, width * SCALE))
        pixels = np.clip(np.rint(picture * 255), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(options.out / name, quality=95, subsampling=0, progressive=True)


if __name__ == "__main__":
    main()
