"""Compares two dumps as sets: how far apart their features are distributed, and how they cover each other."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from vggfeat.dumps.coverage import coverage
from vggfeat.dumps.errors import StoreError
from vggfeat.dumps.frechet import frechet_interval, grouped_moments
from vggfeat.dumps.intervals import Interval
from vggfeat.dumps.kernel_distance import kernel_distance
from vggfeat.dumps.protocols import DumpLike, FeatureRows
from vggfeat.dumps.sources import printable
from vggfeat.errors import InputError, one_of

Float = npt.NDArray[np.float64]
SetMeasure = Literal["frechet", "kid", "coverage"]

# Bytes of a block of rows in float64, and the most rows of one, so that the distances of two blocks take 32 MB.
_BLOCK_BYTES = 32 * 2**20
_BLOCK_ROWS = 2048

# The Fréchet distance takes D² numbers and D³ operations.
_MOST_FEATURES = 16384

# The fields of a fingerprint that must be equal for features to be comparable, and others that affect them.
_NETWORK = ("network", "pooling", "weights")
_PICTURES = ("resize", "crop", "dtype", "precision")


@dataclass(frozen=True, slots=True)
class SetComparison:
    """The measures of `compare_sets`, each with a 95 % confidence interval; None if not requested.

    Attributes:
        array: the features compared, such as `relu4_3.mean`.
        counts: the pictures of the reference and of the other dump.
        frechet: the Fréchet distance of the Gaussians fitted to both.
        kid: the kernel distance (unbiased MMD²).
        precision, recall, density, coverage: of the other dump with respect to the reference.
        notes: differences in how the pictures of the two dumps were prepared.
    """

    array: str
    counts: tuple[int, int]
    frechet: Interval | None
    kid: Interval | None
    precision: Interval | None
    recall: Interval | None
    density: Interval | None
    coverage: Interval | None
    notes: tuple[str, ...] = ()

    def measures(self) -> dict[str, Interval]:
        """{name: the estimate and its interval} of all that was measured."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in found.items() if isinstance(value, Interval)}

    def as_dict(self) -> dict[str, Any]:
        """The result as values for JSON. An interval is None if there is too little data."""
        return {
            "array": self.array,
            "counts": list(self.counts),
            "notes": list(self.notes),
            "measures": {
                name: {"value": found.value, "interval": found.ends} for name, found in self.measures().items()
            },
        }


def compare_sets(
    reference: DumpLike,
    other: DumpLike,
    arrays: tuple[FeatureRows, FeatureRows],
    *,
    measures: Iterable[SetMeasure] = ("frechet", "kid", "coverage"),
    k: int = 5,
    subsets: int = 100,
    subset_size: int | None = None,
    seed: int = 2020,
) -> SetComparison:
    """Compare the features of two dumps as sets. Arrays are read in blocks and may be larger than memory.

    Args:
        reference: the dump of the pictures that the others should look like.
        other: the dump of the pictures to judge.
        arrays: the same array of each.
        measures: `frechet` is the Fréchet distance; `kid` the kernel distance; `coverage` measures precision, recall,
            density and coverage.
        k: the neighbour to which balls reach, for `coverage`.
        subsets: the number of random subsets, for `kid`.
        subset_size: pictures of a subset; None is 1000, or half of the smaller dump if that is less.
        seed: of the subsets, and of the parts from which the interval of `frechet` is estimated.

    Raises `InputError` for dumps of different networks or weights, for features that are infinite or NaN, and for
    arguments outside their range; `StoreError` for a dump with fewer than two pictures.
    """
    wanted = {one_of("measure", measure, get_args(SetMeasure)) for measure in measures}
    notes = _require_same(reference, other, *arrays)
    counts = len(arrays[0]), len(arrays[1])
    for dump, count in zip((reference, other), counts, strict=True):
        if count < 2:
            raise StoreError(f"'{printable(dump.path)}' has {count} pictures: a comparison of sets needs at least 2")
    smaller = min(counts)
    size = min(1000, max(2, smaller // 2)) if subset_size is None else subset_size
    limits = (("k", k, 1, smaller - 1), ("subsets", subsets, 1, 10**6), ("subset_size", size, 2, smaller))
    used = {"k": "coverage", "subsets": "kid", "subset_size": "kid"}
    for name, value, least, most in limits:
        if used[name] in wanted and not least <= value <= most:
            raise InputError(f"{name} is {value}: it must be between {least} and {most} for {smaller} pictures")
    blocks = partial(_blocks, arrays[0]), partial(_blocks, arrays[1])
    distance = kid = None
    if "frechet" in wanted:
        width = _width(arrays[0])
        if width > _MOST_FEATURES:
            raise InputError(
                f"{arrays[0].layer}.{arrays[0].reduction} has {width} values a picture, and the Fréchet distance takes "
                f"at most {_MOST_FEATURES}: use mean or a projection such as proj2048"
            )
        parts = [
            grouped_moments((block for _, block in read()), count, seed)
            for read, count in zip(blocks, counts, strict=True)
        ]
        distance = frechet_interval(*parts)
    if "kid" in wanted:
        readers = partial(_rows, arrays[0]), partial(_rows, arrays[1])
        kid = kernel_distance(*readers, counts, subsets=subsets, size=size, seed=seed)
    covered = coverage(*blocks, counts, k=k)._asdict() if "coverage" in wanted else {}
    none = dict.fromkeys(("precision", "recall", "density", "coverage"))
    name = f"{arrays[0].layer}.{arrays[0].reduction}"
    return SetComparison(name, counts, distance, kid, **{**none, **covered}, notes=notes)


def _require_same(a: DumpLike, b: DumpLike, *arrays: FeatureRows) -> tuple[str, ...]:
    """Refuse features that cannot be compared. Returns notes on differences that may affect them."""
    one, two = (f"{array.layer}.{array.reduction}" for array in arrays)
    if one != two:
        raise InputError(f"'{printable(a.path)}' gives {one} and '{printable(b.path)}' {two}: compare the same array")
    for name in _NETWORK:
        ours, theirs = (_shown(dump.fingerprint[name]) for dump in (a, b))
        if ours != theirs:
            raise InputError(f"the dumps cannot be compared: their {name} differ, {ours} and {theirs}")
    if _width(arrays[0]) != _width(arrays[1]) or (one.partition(".")[2].startswith("proj") and _seed(a) != _seed(b)):
        raise InputError(f"the rows of {one} of the two dumps differ in shape or projection")
    return tuple(
        f"{name} differs: {a.fingerprint[name]} and {b.fingerprint[name]}"
        for name in _PICTURES
        if a.fingerprint[name] != b.fingerprint[name]
    )


def _shown(value: Any) -> str:
    return str(value["sha256"])[:16] if isinstance(value, dict) else str(value)


def _seed(dump: DumpLike) -> Any:
    return dump.fingerprint["seed"]


def _width(array: FeatureRows) -> int:
    return int(np.prod(array.shape[1:]))


def _blocks(array: FeatureRows) -> Iterator[tuple[int, Float]]:
    step = max(1, min(_BLOCK_ROWS, _BLOCK_BYTES // (8 * max(1, _width(array)))))
    for start in range(0, len(array), step):
        yield start, _finite(array, array[start : start + step], range(start, start + step))


def _rows(array: FeatureRows, places: npt.NDArray[np.int64]) -> Float:
    return _finite(array, array[places], places.tolist())


def _finite(array: FeatureRows, rows: npt.NDArray[Any], places: "range | list[int]") -> Float:
    found = rows.reshape(len(rows), -1).astype(np.float64)
    good = np.isfinite(found).all(1)
    if not good.all():
        name = array.ids[places[int(good.argmin())]]
        raise InputError(f"the features of '{printable(name)}' in {array.layer}.{array.reduction} are infinite or NaN")
    return found
