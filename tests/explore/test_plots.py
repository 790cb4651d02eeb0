import math

import numpy as np
import pytest
from matplotlib import colormaps

from vggfeat.explore import plots

BLUE, ORANGE = (0, 114, 178), (213, 94, 0)


def lightness(rgb):
    """OKLab's lightness of colours (..., 3) of 8 bits, by Ottosson's definition."""
    x = np.asarray(rgb) / 255
    x = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    to_cones = np.array(
        [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ]
    )
    return np.cbrt(x @ to_cones.T) @ [0.2104542553, 0.7936177850, -0.0040720468]


def places(picture, colour):
    """The (x, y) of the pixels of a colour."""
    return np.argwhere((np.abs(np.asarray(picture, int) - colour) <= 1).all(2))[:, ::-1]


def test_lines_rise_where_their_values_do():
    picture = plots.line_chart({"up": [0, 1, 2, 3], "down": [3, 2, 1, 0]}, title="Title", x_label="epoch", y_label="y")
    assert picture.size == (640, 400)
    up, down = places(picture, BLUE), places(picture, ORANGE)
    up, down = (points[points[:, 1] > 60] for points in (up, down))  # without the legend
    for points, sign in ((up, -1), (down, 1)):
        assert np.sign(np.corrcoef(points[:, 0], points[:, 1])[0, 1]) == sign
    assert up[:, 1].min() == pytest.approx(down[:, 1].min(), abs=2)


def test_a_value_that_is_not_finite_leaves_a_gap():
    whole, gap = ([1.0, 2.0, 3.0, 4.0], [1.0, math.nan, 3.0, 4.0])
    counts = [len(places(plots.line_chart({"a": line}), BLUE)) for line in (whole, gap)]
    assert counts[1] < 0.75 * counts[0]
    plots.line_chart({"a": [0.0, 1.0, 100.0]}, log=True)
    plots.line_chart({})
    plots.line_chart({"a": [math.inf], "b": []}, x=[3])


def test_a_logarithmic_axis_spaces_decades_evenly():
    def bends(**options):
        picture = plots.line_chart({"a": [0.0, 1.0, 0.0, 1.0]}, x=[1, 10, 100, 1000], **options)
        points = places(picture, BLUE)
        tops = np.unique(points[points[:, 1] <= points[:, 1].min() + 1, 0])
        return [tops.min(), tops.max()], np.ptp(points[:, 0])

    (second, last), width = bends(log_x=True)
    assert last - second == pytest.approx(2 / 3 * width, abs=8)
    (second, last), width = bends()
    assert last - second > 0.95 * width
    plots.line_chart({"a": [1.0]}, x=[3], log_x=True)
    plots.line_chart({}, log_x=True)


def test_bars_are_as_long_as_their_values():
    picture = plots.bar_chart({"one": 1.0, "half": 0.5, "nothing": 0.0}, title="Title", high=1.0)
    points = places(picture, BLUE)
    lengths = [np.ptp(points[points[:, 1] == y, 0]) for y in np.unique(points[:, 1])]
    assert max(lengths) == pytest.approx(2 * min(lengths), rel=0.02)
    assert len(plots.bar_chart({"below": -1.0, "above": 2.0, "none": math.nan}).getcolors(1 << 20)) > 3


def test_darker_cells_hold_larger_values():
    picture = np.asarray(plots.matrix_chart([np.linspace(0, 1, 41)], ["row"], [""] * 41))
    right = np.argwhere((picture != 255).any(2))[:, 1].max() - 60  # without the colour bar
    assert (np.diff(lightness(picture[70, 60:right:16])) <= 0).all()


def test_a_cell_without_a_value_is_grey():
    assert len(places(plots.matrix_chart([[0.0, math.nan]], ["row"], ["a", "b"]), (200, 200, 200))) > 200
    assert not len(places(plots.matrix_chart([[0.0, 1.0]], ["row"], ["a", "b"]), (200, 200, 200)))


def test_matrices_show_each_cell():
    values = np.array([[1.0, 0.0], [0.25, 0.75]])
    picture = plots.matrix_chart(values, ["a", "b"], ["a long name", "b"], numbers=[[7, 0], [1, 3]], title="Title",
                                 row_label="is", column_label="taken for")  # fmt: skip
    for value in values.flat:
        assert len(places(picture, np.multiply(colormaps["YlGnBu"](value)[:3], 255))) > 200
    many = plots.matrix_chart(np.eye(300), [str(n) for n in range(300)], [str(n) for n in range(300)])
    assert many.width < 1100


def test_charts_stand_side_by_side():
    one, other = plots.bar_chart({"a": 1}), plots.line_chart({"a": [1, 2]})
    both = plots.beside(one, other)
    assert both.size == (1280, 400)
    assert np.array_equal(np.asarray(both)[:, 640:], np.asarray(other))
