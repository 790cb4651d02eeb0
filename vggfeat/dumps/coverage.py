"""Precision, recall, density and coverage of two sets of features, from their k-nearest-neighbour balls."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vggfeat.dumps.intervals import Interval

Float = npt.NDArray[np.float64]
Blocks = Callable[[], Iterator[tuple[int, Float]]]
"""Reads a set in blocks: each with its first row."""

# More than the rounding error of a squared distance, relative to its terms. A picture that is in both sets lies exactly
# on the surface of some balls: rounding must not move it inside.
_SLACK = 1e-12


class Coverage(NamedTuple):
    """How two sets cover each other. Intervals take the balls as given, and the pictures counted as a sample."""

    precision: Interval
    recall: Interval
    density: Interval
    coverage: Interval


def coverage(reference: Blocks, other: Blocks, counts: tuple[int, int], *, k: int) -> Coverage:
    """Precision and recall (Kynkäänniemi et al., 2019), density and coverage (Naeem et al., 2020).

    The radius of a row's ball is the distance to its `k`-th nearest neighbour in its own set; balls are open. Precision
    is the share of `other` inside a ball of `reference`, recall the share of `reference` inside a ball of `other`.
    Density is the mean number of balls of the reference around a row of `other`, divided by `k`. Coverage is the share
    of the reference's balls that hold a row of `other`. Each pair of rows is measured once, in blocks.
    """
    radii, radii_other = _radii(reference, counts[0], k), _radii(other, counts[1], k)
    balls = np.zeros(counts[1])
    recalled, covered = np.zeros(counts[0], np.bool_), np.zeros(counts[0], np.bool_)
    for start, rows in reference():
        part = slice(start, start + len(rows))
        for start_other, rows_other in other():
            part_other = slice(start_other, start_other + len(rows_other))
            distances = _squares(rows, rows_other, slack=_SLACK)
            inside = distances < radii[part, None]
            balls[part_other] += inside.sum(0)
            covered[part] |= inside.any(1)
            recalled[part] |= (distances < radii_other[part_other]).any(1)
    density = balls / k
    error = float(density.std(ddof=1)) / counts[1] ** 0.5
    return Coverage(
        precision=Interval.of_share(float((balls > 0).mean()), counts[1]),
        recall=Interval.of_share(float(recalled.mean()), counts[0]),
        density=Interval.around(float(density.mean()), error, least=0.0),
        coverage=Interval.of_share(float(covered.mean()), counts[0]),
    )


def _radii(blocks: Blocks, count: int, k: int) -> Float:
    """The squared distance of each row to its `k`-th nearest neighbour."""
    found = np.empty(count)
    for start, rows in blocks():
        nearest = np.full((len(rows), k), np.inf)
        for start_other, rows_other in blocks():
            distances = _squares(rows, rows_other)
            if start == start_other:
                np.fill_diagonal(distances, np.inf)  # a row is not its own neighbour
            both = np.concatenate([nearest, distances], axis=1)
            nearest = np.partition(both, k - 1, axis=1)[:, :k]
        found[start : start + len(rows)] = nearest.max(1)
    return found


def _squares(a: Float, b: Float, *, slack: float = 0.0) -> Float:
    """Squared distances of the rows of (n, D) and (m, D), plus `slack` times the sum of their squares: (n, m)."""
    squares = (np.einsum("ij,ij->i", x, x) for x in (a, b))
    sums = next(squares)[:, None] + next(squares)
    return np.maximum(sums - 2 * (a @ b.T), 0) + slack * sums
