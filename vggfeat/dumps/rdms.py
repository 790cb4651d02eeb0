"""Representational dissimilarity matrices: how similar two are, by several measures.

An RDM is a symmetric (N, N) array; only the pairs above its diagonal count. If its rows are a sample of pictures with
replacement, `pictures` names the picture of each row, and pairs of a picture with itself are left out.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from vggfeat.errors import InputError, one_of

Float = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
RdmMethod = Literal["spearman", "tau-a", "cosine", "pearson", "whitened"]


def check_rdm(rdm: npt.NDArray[Any], role: str) -> Float:
    """`rdm` in float64. Raises `InputError` if it is not a symmetric (N, N) array of finite numbers with N > 2."""
    if rdm.ndim != 2 or rdm.shape[0] != rdm.shape[1] or len(rdm) < 3 or rdm.dtype.kind not in "fiu":
        raise InputError(f"{role} is {rdm.dtype} {rdm.shape}: pass numbers (N, N), of at least 3 pictures")
    found = rdm.astype(np.float64)
    np.fill_diagonal(found, 0)
    off = ~np.eye(len(found), dtype=np.bool_)
    if not np.isfinite(found[off]).all():
        raise InputError(f"{role} holds infinite or NaN values, as a picture with constant features has")
    if not np.allclose(found, found.T, rtol=1e-5, atol=1e-8 * max(1.0, float(np.abs(found[off]).max()))):
        raise InputError(f"{role} is not symmetric")
    return found


def compare_rdms(
    a: npt.NDArray[Any], b: npt.NDArray[Any], method: RdmMethod = "spearman", *, pictures: Integers | None = None
) -> float:
    """The similarity of two RDMs (N, N) of the same pictures: 1 for the same geometry.

    Args:
        a: an RDM.
        b: another.
        method: `spearman` is the rank correlation; `tau-a` Kendall's tau-a, for RDMs with ties; `cosine` the angle of
            the RDMs from 0; `pearson` the linear correlation; `whitened` the cosine after whitening by the covariance
            of the entries (Diedrichsen et al., 2020), which for squared Euclidean distances is linear CKA.
        pictures: (N,), the picture of each row, if they are a sample with replacement.

    An RDM without variance is similar to no other: 0.

    >>> a = np.abs(np.subtract.outer([1.0, 2, 4, 8], [1.0, 2, 4, 8]))
    >>> compare_rdms(a, a**2), round(compare_rdms(a, a**2, "cosine"), 3)
    (1.0, 0.966)
    """
    one_of("method", method, get_args(RdmMethod))
    one, two = check_rdm(a, "the first RDM"), check_rdm(b, "the second RDM")
    if one.shape != two.shape:
        raise InputError(f"the RDMs are of {len(one)} and {len(two)} pictures")
    return float(_METHODS[method](*(ComparableRdm.of(rdm, method, pictures) for rdm in (one, two))))


class ComparableRdm:
    """One RDM prepared for a method: a vector, ranked, centred or whitened once for many comparisons."""

    __slots__ = ("norm", "vector")

    def __init__(self, vector: Float) -> None:
        self.vector = vector
        self.norm = float(np.sqrt(vector @ vector))

    @classmethod
    def of(cls, rdm: Float, method: RdmMethod, pictures: Integers | None = None) -> "ComparableRdm":
        """Prepare an RDM that `check_rdm` has passed."""
        if method == "whitened":
            return cls(_whitened(rdm, pictures))
        upper = np.triu_indices(len(rdm), 1)
        vector = rdm[upper]
        if pictures is not None:
            vector = vector[pictures[upper[0]] != pictures[upper[1]]]
        if method == "tau-a":
            return cls(np.unique(vector, return_inverse=True)[1].astype(np.float64))
        vector = ranks(vector) if method == "spearman" else vector
        return cls(vector if method == "cosine" else vector - vector.mean())


def compare_prepared(a: ComparableRdm, b: ComparableRdm, method: RdmMethod) -> float:
    """As `compare_rdms`, of RDMs prepared for the same method and the same sample."""
    return _METHODS[method](a, b)


def ranks(values: Float) -> Float:
    """The rank of each value, from 1; equal values have the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def _cosine(a: ComparableRdm, b: ComparableRdm) -> float:
    scale = a.norm * b.norm
    return float(np.clip(a.vector @ b.vector / scale, -1, 1)) if scale > 0 else 0.0


def _tau_a(a: ComparableRdm, b: ComparableRdm) -> float:
    """(concordant - discordant) / all pairs, in O(n log² n)."""
    x, y = a.vector.astype(np.int64), b.vector.astype(np.int64)
    total = len(x) * (len(x) - 1) // 2
    order = np.lexsort((y, x))
    discordant = _inversions(y[order])
    ties = _ties(x) + _ties(y) - _ties(x * (y.max(initial=0) + 1) + y)
    return (total - ties - 2 * discordant) / total if total else 0.0


def _ties(values: Integers) -> int:
    counts = np.unique(values, return_counts=True)[1].astype(np.int64)
    return int((counts * (counts - 1) // 2).sum())


def _inversions(values: Integers) -> int:
    """The number of pairs in which the earlier value is greater. `values` are not negative.

    Bit by bit from the highest: values that agree so far are next to each other, in their order.
    """
    count = 0
    for bit in reversed(range(int(values.max(initial=0)).bit_length())):
        prefix, ones = values >> (bit + 1), (values >> bit) & 1
        seen = np.cumsum(ones)
        starts = np.flatnonzero(np.diff(prefix, prepend=-1))
        before = np.repeat(seen[starts] - ones[starts], np.diff(starts, append=len(values)))
        count += int((seen - before)[ones == 0].sum())
        values = values[np.argsort(values >> bit, kind="stable")]
    return count


def _whitened(rdm: Float, pictures: Integers | None) -> Float:
    """The second moments of the patterns, doubly centred over the pairs that count, as a vector (N²,)."""
    moments = -0.5 * rdm
    np.fill_diagonal(moments, 0)
    if pictures is None:
        means = moments.mean(0)
        return (moments - means - means[:, None] + means.mean()).reshape(-1)
    known = (pictures[:, None] != pictures) | np.eye(len(rdm), dtype=np.bool_)
    weights = known.astype(np.float64)
    sums = (weights * moments).sum(1)
    effects = np.linalg.lstsq(weights + np.diag(weights.sum(1)), sums, rcond=None)[0]
    return (weights * (moments - effects - effects[:, None])).reshape(-1)


_METHODS: Mapping[RdmMethod, Callable[[ComparableRdm, ComparableRdm], float]] = {
    "spearman": _cosine,
    "tau-a": _tau_a,
    "cosine": _cosine,
    "pearson": _cosine,
    "whitened": _cosine,
}
