"""The kernel distance of two sets of features: the unbiased MMD² of a cubic kernel over random subsets."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from vggfeat.dumps.intervals import Interval

Float = npt.NDArray[np.float64]
Rows = Callable[[npt.NDArray[np.int64]], Float]
"""Reads the given rows of a set: (n,) to (n, D)."""


def kernel_distance(
    rows_a: Rows, rows_b: Rows, counts: tuple[int, int], *, subsets: int, size: int, seed: int
) -> Interval:
    """KID (Bińkowski et al., 2018): the mean of the unbiased MMD² of `subsets` pairs of random subsets of `size` rows.

    The kernel is (x·y / D + 1)³. Subsets are drawn as torch-fidelity draws them, so that the same features and seed
    give the same number. The interval scales the deviation between subsets to that of the whole sets.
    """
    generator = np.random.RandomState(seed)
    found = np.empty(subsets)
    for number in range(subsets):
        a, b = (
            rows(generator.choice(count, size, replace=False))
            for rows, count in zip((rows_a, rows_b), counts, strict=True)
        )
        found[number] = mmd2(a, b)
    value = float(found.mean())
    if size < 2 or subsets < 2 or 2 * size > min(counts):  # larger subsets share most of their rows
        return Interval(value, float("nan"), float("nan"))
    # Subsets of the same rows deviate less than fresh ones, by the finite population correction.
    share = size / min(counts)
    return Interval.around(value, float(found.std(ddof=1)) * (share / (1 - share) + 1 / subsets) ** 0.5)


def mmd2(a: Float, b: Float) -> float:
    """The unbiased estimate of MMD² of (n, D) and (n, D) for the kernel (x·y / D + 1)³."""
    count = len(a)
    within = sum(float(k.sum() - np.trace(k)) for k in (_kernel(a, a), _kernel(b, b)))
    return within / (count * (count - 1)) - 2 * float(_kernel(a, b).mean())


def _kernel(a: Float, b: Float) -> Float:
    return (a @ b.T / a.shape[1] + 1) ** 3
