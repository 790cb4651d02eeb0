"""Representational similarity analysis: how well the RDMs of layers explain measured ones, with intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from vggfeat.dumps.intervals import Interval
from vggfeat.dumps.rdms import ComparableRdm, Float, Integers, RdmMethod, check_rdm, compare_prepared, ranks
from vggfeat.errors import InputError, one_of


@dataclass(frozen=True, slots=True)
class RsaScore:
    """How similar one model RDM is to the data.

    `similarity` is the mean over the data's RDMs, with the interval of a bootstrap over pictures and, if there are
    several, over the RDMs. `p` is that of a permutation test against unrelated pictures.
    """

    name: str
    similarity: Interval
    p: float


@dataclass(frozen=True, slots=True)
class RsaResult:
    """The scores of the models, and the noise ceiling of the data.

    `ceiling` bounds the mean similarity that the best model could have: from below by each RDM's similarity to the mean
    of the others, from above by that to the mean of all. It is None for a single RDM.
    """

    method: RdmMethod
    pictures: int
    scores: tuple[RsaScore, ...]
    ceiling: tuple[float, float] | None

    def as_dict(self) -> dict[str, Any]:
        """The result as values for JSON."""
        return {
            "method": self.method,
            "pictures": self.pictures,
            "ceiling": self.ceiling,
            "scores": [
                {
                    "name": score.name,
                    "similarity": score.similarity.value,
                    "interval": score.similarity.ends,
                    "p": score.p,
                }
                for score in self.scores
            ],
        }


def explain_rdms(
    models: Mapping[str, npt.NDArray[Any]],
    data: npt.NDArray[Any],
    method: RdmMethod = "spearman",
    *,
    bootstrap: int = 1000,
    permutations: int = 1000,
    seed: int = 0,
) -> RsaResult:
    """How similar each model RDM is to measured RDMs of the same pictures.

    Args:
        models: {name: (N, N)}, such as the RDMs of layers.
        data: (N, N), or (S, N, N) of several subjects or sessions.
        method: as in `compare_rdms`.
        bootstrap: samples for the intervals; 0 leaves them out, as NaN.
        permutations: of the pictures, for the p-values; 0 leaves them out.
        seed: of both.

    Raises `InputError` for RDMs of other shapes, or that are not symmetric or not finite.

    >>> line = np.abs(np.subtract.outer(np.arange(6.0), np.arange(6.0)))
    >>> found = explain_rdms({"line": line}, np.stack([line, line**2]), bootstrap=20, permutations=20)
    >>> found.scores[0].similarity.value, found.ceiling
    (1.0, (1.0, 1.0))
    """
    one_of("method", method, get_args(RdmMethod))
    for name, number in (("bootstrap", bootstrap), ("permutations", permutations)):
        if not 0 <= number <= 10**6:
            raise InputError(f"{name} is {number}: it must be between 0 and 1000000")
    stack = data[None] if data.ndim == 2 else data
    if stack.ndim != 3 or not len(stack):
        raise InputError(f"the data are {data.shape}: pass (N, N), or (S, N, N) of S subjects")
    measured = [check_rdm(rdm, "the data" if data.ndim == 2 else f"RDM {n} of the data") for n, rdm in enumerate(stack)]
    wanted = {name: check_rdm(rdm, f"the RDM of {name}") for name, rdm in models.items()}
    count = len(measured[0])
    for name, rdm in wanted.items():
        if len(rdm) != count:
            raise InputError(f"the RDM of {name} is of {len(rdm)} pictures, and the data of {count}")
    subjects = [ComparableRdm.of(rdm, method) for rdm in measured]
    generator = np.random.default_rng(seed)
    samples = _bootstrap(wanted, measured, method, bootstrap, generator)
    scores: list[RsaScore] = []
    orders = [generator.permutation(count) for _ in range(permutations)]
    for number, (name, rdm) in enumerate(wanted.items()):
        value = _mean(ComparableRdm.of(rdm, method), subjects, method)
        chance = [_mean(ComparableRdm.of(rdm[np.ix_(order, order)], method), subjects, method) for order in orders]
        reached = sum(other >= value - 1e-12 for other in chance)
        low, high = np.percentile(samples[:, number], (2.5, 97.5)) if bootstrap else (np.nan, np.nan)
        p = (1 + reached) / (1 + permutations) if permutations else float("nan")
        scores.append(RsaScore(name, Interval(value, float(low), float(high)), p))
    ceiling = noise_ceiling(measured, method) if len(measured) > 1 else None
    return RsaResult(method, count, tuple(scores), ceiling)


def noise_ceiling(data: Sequence[Float], method: RdmMethod) -> tuple[float, float]:
    """The mean similarity of each RDM to the mean of the others, and to the mean of all (Nili et al., 2014).

    Before averaging, RDMs are converted to ranks for `spearman` and `tau-a`, scaled to the same length for `cosine` and
    `whitened`, and standardised for `pearson`.
    """
    subjects = [ComparableRdm.of(rdm, method) for rdm in data]
    pooled = np.stack([_poolable(rdm, method) for rdm in data])
    size = len(data[0])

    def mean_of(rows: Float) -> ComparableRdm:
        square = np.zeros((size, size))
        square[np.triu_indices(size, 1)] = rows.mean(0)
        return ComparableRdm.of(square + square.T, method)

    whole = mean_of(pooled)
    low = [
        compare_prepared(mean_of(np.delete(pooled, number, 0)), subject, method)
        for number, subject in enumerate(subjects)
    ]
    high = [compare_prepared(whole, subject, method) for subject in subjects]
    return float(np.mean(low)), float(np.mean(high))


def _poolable(rdm: Float, method: RdmMethod) -> Float:
    vector = rdm[np.triu_indices(len(rdm), 1)]
    if method in ("spearman", "tau-a"):
        return ranks(vector)
    vector = vector - vector.mean() if method == "pearson" else vector
    scale = np.sqrt((vector**2).mean())
    return vector / scale if scale > 0 else vector


def _bootstrap(
    models: Mapping[str, Float], data: Sequence[Float], method: RdmMethod, count: int, generator: np.random.Generator
) -> Float:
    """The mean similarity of each model in samples of the pictures and of the data's RDMs: (count, models)."""
    size, subjects = len(data[0]), len(data)
    found = np.empty((count, len(models)))
    for sample in found:
        pictures = _sample(size, generator)
        square = np.ix_(pictures, pictures)
        chosen = generator.integers(0, subjects, subjects) if subjects > 1 else np.zeros(1, np.int64)
        drawn = {number: ComparableRdm.of(data[number][square], method, pictures) for number in set(chosen.tolist())}
        others = [drawn[number] for number in chosen.tolist()]
        for number, rdm in enumerate(models.values()):
            sample[number] = _mean(ComparableRdm.of(rdm[square], method, pictures), others, method)
    return found


def _sample(size: int, generator: np.random.Generator) -> Integers:
    """A sample with replacement that has at least three different pictures."""
    while True:
        pictures = np.sort(generator.integers(0, size, size))
        if len(np.unique(pictures)) >= 3:
            return pictures


def _mean(model: ComparableRdm, subjects: Sequence[ComparableRdm], method: RdmMethod) -> float:
    return float(np.mean([compare_prepared(model, subject, method) for subject in subjects]))
