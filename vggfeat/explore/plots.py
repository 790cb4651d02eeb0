"""Charts as pictures, drawn with Pillow: lines, bars, matrices.

Everything is drawn three times as large and reduced, so that lines and letters are smooth.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]
Anchor = Literal["lt", "mt", "rt", "lm", "mm", "rm", "lb", "mb", "rb"]

_SCALE = 3
_INK: Colour = (32, 36, 44)
_MUTED: Colour = (104, 110, 122)
_GRID: Colour = (226, 229, 234)
_PAPER: Colour = (255, 255, 255)
# Six colours that people with any kind of colour vision tell apart (Okabe & Ito, 2008).
_LINES: tuple[Colour, ...] = (
    (0, 114, 178),
    (213, 94, 0),
    (0, 158, 115),
    (204, 121, 167),
    (230, 159, 0),
    (86, 180, 233),
)
_TEXT, _TITLE = 13, 16
_MARGIN = 14


class _Canvas:
    """A white picture with coordinates in final pixels."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = math.ceil(width), math.ceil(height)
        self._image = Image.new("RGB", (self.width * _SCALE, self.height * _SCALE), _PAPER)
        self._draw = ImageDraw.Draw(self._image)

    def text(
        self, place: tuple[float, float], text: str, anchor: Anchor, colour: Colour = _INK, size: float = _TEXT
    ) -> None:
        # Pillow writes "a" for the top of the tallest letters and "d" for the foot of the deepest.
        place = (place[0] * _SCALE, place[1] * _SCALE)
        self._draw.text(place, text, colour, _font(size * _SCALE), anchor=anchor.replace("t", "a").replace("b", "d"))

    def line(self, points: Sequence[tuple[float, float]], colour: Colour, width: float = 1.0) -> None:
        scaled = [(x * _SCALE, y * _SCALE) for x, y in points]
        self._draw.line(scaled, colour, round(width * _SCALE), joint="curve")

    def dot(self, x: float, y: float, colour: Colour, radius: float) -> None:
        self._draw.circle((x * _SCALE, y * _SCALE), radius * _SCALE, colour)

    def box(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        if (right - left) * _SCALE >= 1 and (bottom - top) * _SCALE >= 1:
            corners = (left * _SCALE, top * _SCALE, right * _SCALE - 1, bottom * _SCALE - 1)
            self._draw.rectangle(corners, colour)

    def upright(self, x: float, y: float, text: str, colour: Colour = _INK) -> None:
        """Text that reads from below, its middle at (x, y)."""
        font = _font(_TEXT * _SCALE)
        left, top, right, bottom = (math.ceil(edge) for edge in font.getbbox(text, anchor="la"))
        word = Image.new("L", (right - left + 2, bottom - top + 2))
        ImageDraw.Draw(word).text((1 - left, 1 - top), text, 255, font, anchor="la")
        word = word.transpose(Image.Transpose.ROTATE_90)
        corner = (round(x * _SCALE - word.width / 2), round(y * _SCALE - word.height / 2))
        self._image.paste(Image.new("RGB", word.size, colour), corner, word)

    def reduced(self) -> Image.Image:
        return self._image.resize((self.width, self.height), Image.Resampling.BOX)


def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _text_width(text: str, size: float = _TEXT) -> float:
    return _font(size * _SCALE).getlength(text) / _SCALE


@dataclass(frozen=True)
class _Axis:
    """Numbers to pixels: `low` lies at `start`, `high` at `end`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        a, b, c = (math.log10(x) if self.log else x for x in (self.low, self.high, value))
        return self.start + (c - a) / (b - a) * (self.end - self.start)


def ticks(low: float, high: float, most: int = 6, *, log: bool = False) -> list[float]:
    """Round numbers from at most `low` to at least `high`: steps of 1, 2 or 5, or powers of ten."""
    if log:
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        last = max(last, first + 1)
        step = max(1, math.ceil((last - first) / most))
        return [10.0**power for power in range(first, last + step, step)]
    if high <= low:
        low, high = (low - 0.5, high + 0.5) if low == high else (high, low)
    rough = (high - low) / max(1, most - 1)
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough * (1 - 1e-9))
    first = math.floor(low / step + 1e-9)
    numbers = [first]
    while numbers[-1] * step < high * (1 - 1e-12 * math.copysign(1, high)) - 1e-9 * step:
        numbers.append(numbers[-1] + 1)
    return [round(float(number * step), 12) for number in numbers]


def format_number(value: float) -> str:
    """A number as short as its first four digits allow."""
    if not math.isfinite(value):
        return str(value)
    if value and not 1e-3 <= abs(value) < 1e5:
        mantissa, exponent = f"{value:.3e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:.4g}"


def line_chart(
    series: Mapping[str, Sequence[float]],
    *,
    title: str = "",
    x_label: str = "",
    y_label: str = "",
    x: Sequence[float] | None = None,
    log: bool = False,
    log_x: bool = False,
    width: int = 640,
    height: int = 400,
) -> Image.Image:
    """Lines over a common axis, with a legend where there are several.

    `x`: where the values lie; 1, 2, 3, ... where it is left out. A value that is not finite (or, with `log`, not
    above 0) leaves a gap. `log_x` spaces the axis itself by powers of ten; `x` is then above 0.
    """
    shown = {name: [value if _drawable(value, log=log) else None for value in line] for name, line in series.items()}
    values = [value for line in shown.values() for value in line if value is not None] or [1.0]
    longest = max((len(line) for line in shown.values()), default=0)
    places = list(x) if x is not None else [float(number + 1) for number in range(longest)]
    marks = ticks(min(values), max(values), log=log)
    canvas = _Canvas(width, height)
    left = _MARGIN + max(_text_width(format_number(mark)) for mark in marks) + 8 + (22 if y_label else 0)
    top = _MARGIN + (30 if title else 4)
    bottom = height - _MARGIN - 20 - (20 if x_label else 0)
    right = width - _MARGIN - 8
    ends = _spread(min(places, default=float(log_x)), max(places, default=1), log=log_x)
    across = _Axis(*ends, left + 8, right - 8, log=log_x)
    up = _Axis(marks[0], marks[-1], bottom, top, log=log)
    canvas.text((_MARGIN, _MARGIN), title, "lt", size=_TITLE)
    for mark in marks:
        canvas.line([(left, up(mark)), (right, up(mark))], _GRID)
        canvas.text((left - 8, up(mark)), format_number(mark), "rm", _MUTED)
    canvas.line([(left, bottom), (right, bottom)], _MUTED)
    for mark in _decades(places) if log_x else _whole_ticks(places):
        canvas.line([(across(mark), bottom), (across(mark), bottom + 4)], _MUTED)
        canvas.text((across(mark), bottom + 7), format_number(mark), "mt", _MUTED)
    canvas.text(((left + right) / 2, height - _MARGIN), x_label, "mb")
    if y_label:
        canvas.upright(_MARGIN + 7, (top + bottom) / 2, y_label)
    for number, line in enumerate(shown.values()):
        colour = _LINES[number % len(_LINES)]
        for run in _runs(line):
            points = [(across(places[index]), up(value)) for index, value in run]
            if len(points) > 1:
                canvas.line(points, colour, 2)
            if len(points) <= 40:
                for point in points:
                    canvas.dot(*point, colour, 2.6)
    if len(shown) > 1:
        _legend(canvas, list(shown), right)
    return canvas.reduced()


def bar_chart(
    values: Mapping[str, float],
    *,
    title: str = "",
    x_label: str = "",
    low: float = 0.0,
    high: float | None = None,
    width: int = 640,
) -> Image.Image:
    """A horizontal bar a value, each with its number; `low` and `high` are the ends of the axis."""
    names = list(values)
    finite = [value for value in values.values() if math.isfinite(value)] or [1.0]
    marks = ticks(min(low, *finite), max(finite) if high is None else high, 6)
    row = 24
    top = _MARGIN + (34 if title else 4)
    bottom = top + row * len(names)
    canvas = _Canvas(width, bottom + _MARGIN + 22 + (20 if x_label else 0))
    left = _MARGIN + max((_text_width(name) for name in names), default=0) + 10
    right = width - _MARGIN - 56
    across = _Axis(marks[0], marks[-1], left, right)
    canvas.text((_MARGIN, _MARGIN), title, "lt", size=_TITLE)
    for mark in marks:
        canvas.line([(across(mark), top), (across(mark), bottom)], _GRID)
        canvas.text((across(mark), bottom + 6), format_number(mark), "mt", _MUTED)
    zero = across(min(max(0.0, marks[0]), marks[-1]))
    for number, (name, value) in enumerate(values.items()):
        y = top + row * number
        canvas.text((left - 10, y + row / 2), name, "rm")
        end = across(value) if math.isfinite(value) else zero
        canvas.box(min(zero, end), y + 4, max(zero, end), y + row - 4, _LINES[0])
        canvas.text((max(zero, end) + 6, y + row / 2), format_number(value), "lm", _MUTED)
    canvas.text(((left + right) / 2, canvas.height - _MARGIN), x_label, "mb")
    return canvas.reduced()


def matrix_chart(
    values: npt.ArrayLike,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    title: str = "",
    row_label: str = "",
    column_label: str = "",
    numbers: npt.ArrayLike | None = None,
    low: float | None = None,
    high: float | None = None,
) -> Image.Image:
    """A matrix in perceptually uniform colours, light for `low` and dark for `high`, with a scale beside it.

    `numbers` are written into the cells, where there is room; they may be others than `values`, such as counts.
    """
    cells = np.asarray(values, dtype=np.float64)
    finite = cells[np.isfinite(cells)]
    low = float(finite.min(initial=0.0)) if low is None else low
    high = float(finite.max(initial=0.0)) if high is None else high
    high = high if high > low else low + 1
    texts = None if numbers is None else np.asarray(numbers)
    longest = 0.0 if texts is None else max((_text_width(_cell(float(n))) for n in texts.flat), default=0.0)
    side = min(56.0, max(3.0, longest and longest + 10, 24.0 if max(cells.shape) <= 40 else 640 / max(cells.shape)))
    named = side >= _TEXT + 2
    row_width = max(map(_text_width, rows), default=0.0) if named else 0.0
    column_width = max(map(_text_width, columns), default=0.0) if named else 0.0
    slanted = named and column_width > side - 4
    left = _MARGIN + (24 if row_label else 0) + row_width + 10
    head = (column_width if slanted else _TEXT) + 10 if named else 6
    top = _MARGIN + (32 if title else 0) + (24 if column_label else 0) + head
    right, bottom = left + side * cells.shape[1], top + side * cells.shape[0]
    width = max(right + 80, _MARGIN * 2 + _text_width(title, _TITLE))
    canvas = _Canvas(width, max(bottom, top + 120) + _MARGIN)
    canvas.text((_MARGIN, _MARGIN), title, "lt", size=_TITLE)
    canvas.text(((left + right) / 2, _MARGIN + (32 if title else 0)), column_label, "mt")
    if row_label:
        canvas.upright(_MARGIN + 8, (top + bottom) / 2, row_label)
    shades = colours((cells - low) / (high - low))
    for (row, column), value in np.ndenumerate(cells):
        x, y = left + side * column, top + side * row
        shade: Colour = (*map(int, shades[row, column]),)  # pyright: ignore[reportAssignmentType] (three of them)
        canvas.box(x, y, x + side - (side > 8), y + side - (side > 8), shade)
        if texts is not None and longest + 6 <= side:
            dark = (value - low) / (high - low) > 0.45
            canvas.text((x + side / 2, y + side / 2), _cell(float(texts[row, column])), "mm", _PAPER if dark else _INK)
    for number, name in enumerate(rows if named else ()):
        canvas.text((left - 8, top + side * (number + 0.5)), name, "rm")
    for number, name in enumerate(columns if named else ()):
        x = left + side * (number + 0.5)
        if slanted:
            canvas.upright(x, top - 6 - _text_width(name) / 2, name)
        else:
            canvas.text((x, top - 6), name, "mb")
    _scale_bar(canvas, (right + 18, top), max(bottom - top, 120), low, high)
    return canvas.reduced()


def beside(*charts: Image.Image) -> Image.Image:
    """Charts side by side, as one picture."""
    joined = Image.new("RGB", (sum(chart.width for chart in charts), max(chart.height for chart in charts)), _PAPER)
    x = 0
    for chart in charts:
        joined.paste(chart, (x, 0))
        x += chart.width
    return joined


def colours(values: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """Numbers in [0, 1] -> colours (..., 3) from light yellow to dark violet; what is not finite is grey.

    Equal differences look equal: the way is straight in lightness and even in OKLab (Ottosson, 2020).
    """
    x = np.asarray(values, dtype=np.float64)
    known = np.isfinite(x)
    x = np.clip(np.where(known, x, 0.0), 0, 1)
    lightness = 0.97 - 0.69 * x
    chroma = 0.035 + 0.1 * np.sin(np.pi * np.minimum(x * 0.62 + 0.05, 1))
    hue = np.radians(105 + 185 * x)
    rgb = _from_oklab(lightness, chroma * np.cos(hue), chroma * np.sin(hue))
    return np.where(known[..., None], rgb, np.uint8(200)).astype(np.uint8)


def _from_oklab(
    lightness: npt.NDArray[np.float64], a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]
) -> npt.NDArray[np.uint8]:
    cones = np.stack(
        [
            lightness + 0.3963377774 * a + 0.2158037573 * b,
            lightness - 0.1055613458 * a - 0.0638541728 * b,
            lightness - 0.0894841775 * a - 1.2914855480 * b,
        ],
        axis=-1,
    )
    to_rgb = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    linear = np.clip(cones**3 @ to_rgb.T, 0, 1)
    coded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.rint(coded * 255).astype(np.uint8)


def _scale_bar(canvas: _Canvas, place: tuple[float, float], height: float, low: float, high: float) -> None:
    x, top = place
    for step in range(64):
        share = 1 - step / 63
        shade: Colour = (*map(int, colours(share)),)  # pyright: ignore[reportAssignmentType] (three of them)
        canvas.box(x, top + height * step / 64, x + 12, top + height * (step + 1) / 64 + 0.4, shade)
    for value, y in ((high, top), ((low + high) / 2, top + height / 2), (low, top + height)):
        canvas.text((x + 18, min(max(y, top + 6), top + height - 6)), format_number(value), "lm", _MUTED)


def _legend(canvas: _Canvas, names: Sequence[str], right: float) -> None:
    x = right
    for number, name in reversed(list(enumerate(names))):
        x -= _text_width(name)
        canvas.text((x, _MARGIN + 9), name, "lm")
        canvas.line([(x - 24, _MARGIN + 9), (x - 6, _MARGIN + 9)], _LINES[number % len(_LINES)], 3)
        x -= 40


def _whole_ticks(places: Sequence[float]) -> list[float]:
    """Round numbers within `places`, whole where they all are."""
    low, high = min(places, default=0.0), max(places, default=1.0)
    marks = [mark for mark in ticks(low, high, 8) if low <= mark <= high]
    whole = all(float(place).is_integer() for place in places)
    return [mark for mark in marks if not whole or mark.is_integer()]


def _decades(places: Sequence[float]) -> list[float]:
    """Powers of ten within `places`, and twice and five times these."""
    low, high = min(places, default=1.0), max(places, default=10.0)
    marks = (factor * power for power in ticks(low, high, most=99, log=True) for factor in (0.2, 0.5, 1.0))
    return [mark for mark in marks if low <= mark <= high]


def _runs(line: Sequence[float | None]) -> list[list[tuple[int, float]]]:
    """The stretches of a line between its gaps."""
    runs: list[list[tuple[int, float]]] = [[]]
    for index, value in enumerate(line):
        if value is None:
            runs.append([])
        else:
            runs[-1].append((index, value))
    return [run for run in runs if run]


def _drawable(value: float, *, log: bool) -> bool:
    return math.isfinite(value) and (value > 0 or not log)


def _spread(low: float, high: float, *, log: bool = False) -> tuple[float, float]:
    if high > low:
        return low, high
    return (low / 2, high * 2) if log else (low - 0.5, high + 0.5)


def _cell(number: float) -> str:
    return str(int(number)) if float(number).is_integer() else f"{number:.2f}"
