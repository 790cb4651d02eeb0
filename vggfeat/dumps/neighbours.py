"""Exact nearest neighbours among the rows of an array on disk, read once in blocks.

Distances are first bounded from below by float32 matrix products. Only rows whose bound is within the best distances so
far are measured again in float64, so the result is that of a search in float64.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from vggfeat.dumps.protocols import FeatureRows
from vggfeat.errors import InputError, check_number, one_of

Array = npt.NDArray[Any]
Float = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Metric = Literal["cosine", "l2"]

# A float32 dot product of this many values has at most the relative error below (Higham, 2002, section 3.1), which
# includes the rounding of the query to float32. Longer rows are summed from such parts in float64.
_PART = 512
_ERROR = 1.01 * (_PART + 8) * 2.0**-24

# Bytes of a block of rows in float32, and of its distances to the queries in float64.
_BLOCK_BYTES = 32 * 2**20

# Sums of squares below this may have lost values to underflow.
_LEAST = 1e-25


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """The nearest rows of each query, nearest first.

    `rows` and `distances`: an array (K,) for each query; rows at the same distance are in the order of the array.
    `left_out`: the rows that hold infinite or NaN values, which are never neighbours.
    """

    rows: tuple[Integers, ...]
    distances: tuple[Float, ...]
    left_out: Integers


def nearest(
    array: FeatureRows,
    queries: Array,
    *,
    top: int = 10,
    metric: Metric = "cosine",
    exclude: Mapping[int, int] | None = None,
) -> Found:
    """The `top` rows of `array` nearest to each query: exact, with distances in float64.

    Args:
        array: rows (N, ...), which may be memory-mapped and larger than memory.
        queries: (Q, ...) of the same shape as the rows.
        top: neighbours of each query; fewer if the array has fewer rows.
        metric: `cosine` is 1 minus the cosine of the angle, and 1 to a row of zeros; `l2` is the Euclidean distance.
        exclude: {query: a row that does not count for it}, such as the query itself.

    Raises `InputError` for queries of another shape, or with infinite or NaN values.

    >>> rows = np.eye(3)[[0, 1, 1, 2]]
    >>> found = nearest(rows, np.array([[0.0, 2.0, 0.0]]), top=2)
    >>> found.rows[0].tolist(), found.distances[0].tolist()
    ([1, 2], [0.0, 0.0])
    """
    one_of("metric", metric, get_args(Metric))
    check_number("top", top, 1)
    shape = array.shape
    if queries.shape[1:] != shape[1:]:
        raise InputError(f"queries are {queries.shape[1:]} and rows are {shape[1:]}: they must have the same shape")
    width = prod(shape[1:])
    wanted = np.ascontiguousarray(queries.reshape(len(queries), width), np.float64)
    if not np.isfinite(wanted).all():
        raise InputError(f"query {int(np.argmin(np.isfinite(wanted).all(1)))} holds infinite or NaN values")
    search = _Search(wanted, top, metric, exclude or {})
    for start, block in _blocks(array, width, len(queries)):
        search.add(start, block)
    return search.found()


def _blocks(array: FeatureRows, width: int, queries: int) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
    step = max(1, _BLOCK_BYTES // max(4 * width, 8 * queries, 1))
    for start in range(0, len(array), step):
        part = array[start : start + step]
        yield start, np.ascontiguousarray(part.reshape(len(part), width), np.float32)


class _Search:
    """The nearest rows of each query among the blocks so far."""

    def __init__(self, queries: Float, top: int, metric: Metric, exclude: Mapping[int, int]) -> None:
        self._top, self._metric, self._exclude = top, metric, exclude
        self._norms = np.sqrt(np.einsum("ij,ij->i", queries, queries))
        if metric == "cosine":
            queries = queries / np.where(self._norms > 0, self._norms, 1)[:, None]
        self._queries = queries
        with np.errstate(over="ignore"):
            self._rounded = queries.astype(np.float32)
        self._rows: list[Integers] = [np.empty(0, np.int64) for _ in queries]
        self._distances: list[Float] = [np.empty(0) for _ in queries]
        self._left_out: list[int] = []

    def add(self, start: int, block: npt.NDArray[np.float32]) -> None:
        squares, products = _products(block, self._rounded)
        norms = np.sqrt(squares)
        doubtful = np.flatnonzero(~((squares >= _LEAST) & np.isfinite(squares)))
        bad = doubtful[~np.isfinite(block[doubtful]).all(1)]
        self._left_out += (start + bad).tolist()
        for query, row in enumerate(products):
            least, slack = self._bounds(query, squares, norms, row)
            least[doubtful] = -np.inf
            least[~np.isfinite(least)] = -np.inf  # overflow in float32 says nothing
            least[bad] = np.inf
            own = self._exclude.get(query, -1) - start
            if 0 <= own < len(block):
                least[own] = np.inf
            self._merge(query, start, block, least, slack)

    def _bounds(self, query: int, squares: Float, norms: Float, products: Array) -> tuple[Float, Any]:
        """Lower bounds of the distances, or for `l2` of their squares, and how far below the true ones they may be."""
        with np.errstate(all="ignore"):
            if self._metric == "cosine":
                slack: Any = 5 * _ERROR
                return (1 - slack / 2) - products / norms, slack
            norm = self._norms[query]
            slack = 2.2 * _ERROR * (norms + norm) ** 2
            return squares - 2.0 * products + norm**2 - slack / 2, slack

    def _merge(self, query: int, start: int, block: npt.NDArray[np.float32], least: Float, slack: Any) -> None:
        known = self._distances[query]
        limit = np.inf
        if len(known) == self._top:
            limit = known[-1] ** (1 if self._metric == "cosine" else 2) * (1 + 1e-12)
        elif len(least) > self._top:
            most = np.where(least == -np.inf, np.inf, least + slack)
            limit = np.partition(most, self._top - 1)[self._top - 1]
        places = np.flatnonzero((least <= limit) & (least < np.inf))
        if not len(places):
            return
        distances = np.concatenate([known, self._exact(query, block[places])])
        rows = np.concatenate([self._rows[query], start + places])
        best = np.lexsort((rows, distances))[: self._top]
        self._rows[query], self._distances[query] = rows[best], distances[best]

    def _exact(self, query: int, rows: npt.NDArray[np.float32]) -> Float:
        wanted = self._queries[query]
        found = np.empty(len(rows))
        step = max(1, _BLOCK_BYTES // max(8 * rows.shape[1], 1))
        for start in range(0, len(rows), step):
            part = rows[start : start + step].astype(np.float64)
            if self._metric == "l2":
                part -= wanted
                found[start : start + step] = np.sqrt(np.einsum("ij,ij->i", part, part))
                continue
            norms = np.sqrt(np.einsum("ij,ij->i", part, part))
            cosines = np.divide(part @ wanted, norms, out=np.zeros(len(part)), where=norms > 0)
            found[start : start + step] = np.clip(1 - cosines, 0, 2)
        return found

    def found(self) -> Found:
        return Found(tuple(self._rows), tuple(self._distances), np.array(self._left_out, np.int64))


def _products(block: npt.NDArray[np.float32], queries: npt.NDArray[np.float32]) -> tuple[Float, Array]:
    """The sum of squares of each row, (rows,), and its product with each query, (Q, rows)."""
    squares = np.zeros(len(block))
    products: Array = np.zeros(())
    with np.errstate(all="ignore"):
        for start in range(0, block.shape[1], _PART):
            part = block[:, start : start + _PART]
            squares += np.einsum("ij,ij->i", part, part)
            product = queries[:, start : start + _PART] @ part.T
            products = products + product if start else product
            if not start and block.shape[1] > _PART:
                products = products.astype(np.float64)
    return squares, products
