"""Charts as pictures, drawn by matplotlib: lines, bars, matrices.

Figures are drawn on a canvas of their own: no window opens, and pyplot's global state stays as it is.
"""
# pyright: reportUnknownMemberType=false
# matplotlib's stubs leave keyword arguments untyped.

import io
import math
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

_DPI, _PAD = 100, 0.14  # dots per inch; inches around a chart
_INK, _MUTED, _GRID, _MISSING = "#20242c", "#686e7a", "#e2e5ea", "#c8c8c8"
_TEXT, _TITLE = 9.5, 12  # points
# Six colours that people with any kind of colour vision tell apart (Okabe & Ito, 2008).
_LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_MOST_MARKERS = 40


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
    """Draw lines over a common axis, with a legend if there are several.

    Args:
        series: the values of each line by its name. A value that is not finite leaves a gap, and so does, with `log`,
            a value that is not above 0.
        title: of the chart.
        x_label: name of the horizontal axis.
        y_label: name of the vertical axis.
        x: positions of the values; by default 1, 2, 3, ...
        log: whether the vertical axis is logarithmic.
        log_x: whether the horizontal axis is logarithmic; `x` is then above 0.
        width: of the picture, in pixels.
        height: of the picture, in pixels.

    >>> line_chart({"loss": [3.0, 2.0, 1.5]}, title="Loss", x_label="epoch").size
    (640, 400)
    """
    figure, axes = _figure(width, height, title)
    for (name, line), colour in zip(series.items(), cycle(_LINES), strict=False):
        shown = [value if math.isfinite(value) and (value > 0 or not log) else math.nan for value in line]
        places = list(x)[: len(shown)] if x is not None else range(1, len(shown) + 1)
        marker = "o" if len(shown) <= _MOST_MARKERS else ""
        axes.plot(places, shown, color=colour, marker=marker, markersize=4, linewidth=1.6, label=name)
    if log:
        axes.set_yscale("log", nonpositive="mask")
    if log_x:
        axes.set_xscale("log")
    axes.margins(x=0.02)
    _number(axes.yaxis, log=log)
    _number(axes.xaxis, log=log_x, whole=all(float(place).is_integer() for place in x or ()))
    axes.grid(axis="y", color=_GRID)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    if len(series) > 1:
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=len(series), frameon=False, fontsize=_TEXT)
    return _picture(figure)


def bar_chart(
    values: Mapping[str, float],
    *,
    title: str = "",
    x_label: str = "",
    low: float = 0.0,
    high: float | None = None,
    width: int = 640,
) -> Image.Image:
    """Draw a horizontal bar for each value, with its number. A value that is not finite has no bar.

    Args:
        values: by name, from top to bottom.
        title: of the chart.
        x_label: name of the axis.
        low: lower end of the axis; a smaller value extends it.
        high: upper end of the axis; by default the largest value decides.
        width: of the picture, in pixels.

    >>> bar_chart({"relu1_1": 0.2, "relu2_1": 0.6}, title="Share of zeros", high=1.0).width
    640
    """
    figure, axes = _figure(width, 70 + 24 * len(values) + (26 if title else 0) + (20 if x_label else 0), title)
    lengths = [value if math.isfinite(value) else 0.0 for value in values.values()]
    bars = axes.barh(range(len(values)), lengths, height=0.66, color=_LINES[0], zorder=2)
    axes.bar_label(bars, [_short(value) for value in values.values()], padding=4, fontsize=_TEXT, color=_MUTED)
    axes.set_yticks(range(len(values)), list(values))
    axes.set_ylim(len(values) - 0.5, -0.5)
    if high is None:
        axes.set_xlim(left=low if min(lengths, default=0) >= low else None)
        axes.margins(x=0.1)
    else:
        axes.set_xlim(min(low, *lengths), high)
    _number(axes.xaxis)
    axes.grid(axis="x", color=_GRID)
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(axis="y", labelcolor=_INK)
    axes.set_xlabel(x_label)
    return _picture(figure)


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
    """Draw a matrix in colours, light for `low` and dark for `high`, with a colour bar.

    Args:
        values: (R, C) numbers; grey where they are not finite.
        rows: the names of the rows, left out where cells are too small for them.
        columns: the names of the columns, left out in the same case.
        title: of the chart.
        row_label: what the rows are.
        column_label: what the columns are.
        numbers: (R, C), written into the cells if there is room. They may differ from `values`, such as counts.
        low: the value of the lightest colour; by default the least of 0 and the values.
        high: the value of the darkest colour; by default the largest of 0 and the values.

    >>> matrix_chart([[1.0, 0.2], [0.2, 1.0]], ["a", "b"], ["a", "b"], title="CKA").mode
    'RGB'
    """
    from matplotlib import colormaps
    from matplotlib.ticker import FuncFormatter

    cells = np.asarray(values, dtype=np.float64)
    finite = cells[np.isfinite(cells)]
    low = float(finite.min(initial=0.0)) if low is None else low
    high = float(finite.max(initial=0.0)) if high is None else high
    high = high if high > low else low + 1
    texts = None if numbers is None else [_cell(float(number)) for number in np.asarray(numbers).flat]
    longest = max(map(len, texts), default=0) if texts else 0
    side = min(56.0, max(3.0, longest and 8 * longest + 10, 24.0 if max(cells.shape) <= 40 else 640 / max(cells.shape)))
    height, width = side * cells.shape[0], side * cells.shape[1]
    figure, axes = _figure(width, height, "", fill=True)
    shades = colormaps["YlGnBu"].with_extremes(bad=_MISSING)
    mesh = axes.pcolormesh(cells, cmap=shades, vmin=low, vmax=high, edgecolor="white", linewidth=0.7 * (side > 8))
    axes.invert_yaxis()
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.tick_params(length=0, labelcolor=_INK)
    axes.spines[:].set_visible(False)
    named = side >= 15
    slanted = 7 * max(map(len, columns), default=0) > side
    axes.set_xticks(np.arange(len(columns)) + 0.5 if named else [], columns if named else [])
    axes.set_yticks(np.arange(len(rows)) + 0.5 if named else [], rows if named else [])
    axes.tick_params(axis="x", labelrotation=90 if slanted else 0)
    axes.set_xlabel(column_label)
    axes.set_ylabel(row_label)
    if title:
        axes.set_title(title, loc="left", fontsize=_TITLE, color=_INK, pad=10)
    if texts and 7 * longest + 6 <= side:
        for (row, column), text in zip(np.ndindex(*cells.shape), texts, strict=True):
            dark = (cells[row, column] - low) / (high - low) > 0.55
            colour = "white" if dark else _INK
            axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", color=colour, fontsize=_TEXT)
    tall = max(height, 120.0)
    bar = figure.add_axes((1 + 18 / width, 1 - tall / height, 12 / width, tall / height))
    figure.colorbar(mesh, cax=bar, ticks=[low, (low + high) / 2, high], format=FuncFormatter(_tick))
    bar.tick_params(length=0, labelcolor=_MUTED, labelsize=_TEXT)
    bar.spines[:].set_visible(False)
    return _picture(figure, tight=True)


def beside(*charts: Image.Image) -> Image.Image:
    """Join charts into one picture, side by side.

    >>> beside(bar_chart({"a": 1}, width=300), bar_chart({"b": 2}, width=200)).width
    500
    """
    joined = Image.new("RGB", (sum(chart.width for chart in charts), max(chart.height for chart in charts)), "white")
    x = 0
    for chart in charts:
        joined.paste(chart, (x, 0))
        x += chart.width
    return joined


def _figure(width: float, height: float, title: str, *, fill: bool = False) -> "tuple[Figure, Axes]":
    """A figure of `width` x `height` pixels and its axes, which leave room for labels unless they `fill` it."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = None if fill else ConstrainedLayoutEngine(w_pad=_PAD, h_pad=_PAD)
    figure = Figure((width / _DPI, height / _DPI), dpi=_DPI, layout=layout)
    axes = figure.add_axes((0, 0, 1, 1)) if fill else figure.subplots()
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_MUTED)
    axes.tick_params(labelsize=_TEXT, labelcolor=_MUTED, color=_MUTED)
    axes.tick_params(axis="y", length=0)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set(fontsize=_TEXT, color=_INK)
    if title:
        axes.set_title(title, loc="left", fontsize=_TITLE, color=_INK)
    return figure, axes


def _number(axis: "Axis", *, log: bool = False, whole: bool = False) -> None:
    """Label an axis with short, round numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    if log:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if _decades(axis) < 2.5 else (1.0,), numticks=8))
        axis.set_minor_locator(NullLocator())
    else:
        axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=whole))
    axis.set_major_formatter(FuncFormatter(_tick))


def _decades(axis: "Axis") -> float:
    low, high = axis.get_view_interval()
    return math.log10(high / low) if 0 < low < high else 0.0


def _picture(figure: "Figure", *, tight: bool = False) -> Image.Image:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    canvas = FigureCanvasAgg(figure)
    canvas.print_figure(buffer, format="png", dpi=_DPI, bbox_inches="tight" if tight else None, pad_inches=_PAD)
    return Image.open(buffer).convert("RGB")


def _short(value: float) -> str:
    """A number of at most four digits."""
    if not math.isfinite(value):
        return str(value)
    if value and not 1e-3 <= abs(value) < 1e4:
        mantissa, exponent = f"{value:.3e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:.4g}"


def _tick(value: float, _position: object) -> str:
    return _short(value)


def _cell(number: float) -> str:
    return str(int(number)) if number.is_integer() else f"{number:.2f}"
