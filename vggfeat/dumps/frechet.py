"""The Fréchet distance between the Gaussians fitted to two sets of features, from factors of their scatter matrices.

A set is summarised as its mean and a triangular root of its scatter, which blocks of rows update by QR decompositions.
Covariances are never squared or inverted, so sets with fewer pictures than features lose no digits.
"""

from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt

from vggfeat.dumps.intervals import Interval

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Float = npt.NDArray[np.float64]

# The number of parts of each set; the jackknife leaves out one at a time.
GROUPS = 10


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """`count` rows: their `mean` (D,) and a `root` R (r, D) with R.T @ R equal to the sum of squared deviations."""

    count: int
    mean: Float
    root: Float

    @classmethod
    def of(cls, rows: Float) -> "Moments":
        """The moments of (N, D)."""
        mean = rows.mean(0)
        return cls(len(rows), mean, _triangle(rows - mean))

    def merge(self, other: "Moments") -> "Moments":
        """The moments of both sets of rows together."""
        count = self.count + other.count
        step = other.mean - self.mean
        between = (self.count * other.count / count) ** 0.5 * step
        root = _triangle(np.concatenate([self.root, other.root, between[None]]))
        return Moments(count, self.mean + step * (other.count / count), root)


def _triangle(rows: Float) -> Float:
    """The factor R of a QR decomposition."""
    return cast("Float", np.linalg.qr(rows, mode="r"))


def grouped_moments(blocks: "Iterable[Float]", count: int, seed: int) -> "list[Moments]":
    """The moments of `GROUPS` random parts of `count` rows, given in blocks; each part has at least two rows."""
    groups = max(1, min(GROUPS, count // 2))
    labels = np.random.default_rng(seed).permutation(np.arange(count) % groups)
    found: list[Moments | None] = [None] * groups
    start = 0
    for block in blocks:
        for group in range(groups):
            rows = block[labels[start : start + len(block)] == group]
            if len(rows):
                here, before = Moments.of(rows), found[group]
                found[group] = here if before is None else before.merge(here)
        start += len(block)
    return [moments for moments in found if moments is not None]


def frechet_distance(a: Moments, b: Moments) -> float:
    """|mean difference|² + tr(Ca) + tr(Cb) - 2 tr((Ca Cb)^½), with covariances C over N - 1 (Dowson & Landau, 1982)."""
    scale_a, scale_b = a.count - 1, b.count - 1
    shared = np.linalg.svd(a.root @ b.root.T, compute_uv=False).sum() / (scale_a * scale_b) ** 0.5
    spread = (a.root**2).sum() / scale_a + (b.root**2).sum() / scale_b
    return max(0.0, float(((a.mean - b.mean) ** 2).sum() + spread - 2 * shared))


def frechet_interval(a: "Sequence[Moments]", b: "Sequence[Moments]") -> Interval:
    """The distance of two sets, given in random parts, with an interval from the jackknife over the parts of each."""
    whole_a, whole_b = reduce(Moments.merge, a), reduce(Moments.merge, b)
    value = frechet_distance(whole_a, whole_b)
    if min(len(a), len(b)) < 2:
        return Interval(value, float("nan"), float("nan"))
    without_a = [frechet_distance(rest, whole_b) for rest in _leave_one_out(a)]
    without_b = [frechet_distance(whole_a, rest) for rest in _leave_one_out(b)]
    variance = sum((len(x) - 1) * float(np.var(x)) for x in (without_a, without_b))
    return Interval.around(value, variance**0.5, least=0.0)


def _leave_one_out(parts: "Sequence[Moments]") -> "list[Moments]":
    return [reduce(Moments.merge, [*parts[:out], *parts[out + 1 :]]) for out in range(len(parts))]
