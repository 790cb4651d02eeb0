"""Statistics of features, measured while a dump runs, without storing the features.

Each shard stores a partial result beside its receipt. Partials are merged in shard order, in float64, so the result
does not depend on which worker computed them, or when. For CKA and RDMs, the partial holds the channel means of the
shard's pictures: these are smaller than the products of two layers, as a shard has fewer pictures than channels.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Float = npt.NDArray[np.float64]

RdmDistance = Literal["correlation", "euclidean", "cosine"]

FLOAT16_MAX = 65504.0


def summarise(rows: Float) -> dict[str, Float]:
    """Merge N pictures, (N, 6, C), to {field: (C,)}. `squares` is the sum of squared deviations from the mean."""
    mean, variance, zeros, greatest, beyond, positions = rows.transpose(1, 0, 2)
    count = positions.sum(0)
    total = (mean * positions).sum(0) / count
    squares = (positions * (variance + (mean - total) ** 2)).sum(0)
    return {
        "count": count,
        "mean": total,
        "squares": squares,
        "zeros": zeros.sum(0),
        "max": greatest.max(0),
        "beyond": beyond.sum(0),
    }


def merge(a: Mapping[str, Float], b: Mapping[str, Float]) -> dict[str, Float]:
    """Merge two summaries (Chan et al., 1979)."""
    count = a["count"] + b["count"]
    step = b["mean"] - a["mean"]
    return {
        "count": count,
        "mean": a["mean"] + step * b["count"] / count,
        "squares": a["squares"] + b["squares"] + step**2 * a["count"] * b["count"] / count,
        "zeros": a["zeros"] + b["zeros"],
        "max": np.maximum(a["max"], b["max"]),
        "beyond": a["beyond"] + b["beyond"],
    }


def best(values: Float, places: npt.NDArray[np.int64], k: int) -> tuple[Float, npt.NDArray[np.int64]]:
    """The `k` largest values of each channel of (N, C), as (C, k), and their places.

    Of equal values, the first wins. If N < k, the rest is filled with -inf and the place -1.
    """
    order = np.argsort(-values, axis=0, kind="stable")[:k].T
    top, where = np.take_along_axis(values.T, order, axis=1), places[order]
    missing = k - top.shape[1]
    pads = ((0, 0), (0, missing))
    return np.pad(top, pads, constant_values=-np.inf), np.pad(where, pads, constant_values=-1)


@dataclass(frozen=True, slots=True, eq=False)
class LayerStatistics:
    """The statistics of one layer for each channel, over all pictures and positions. Arrays are (C,).

    `variance` is the population variance, `zeros` the fraction of values that are 0, `beyond` the number of values
    beyond float16's range. `top` (C, k) holds the largest activations, one for each picture, and `top_ids` (C, k) the
    ids of those pictures.
    """

    pictures: int
    mean: Float
    variance: Float
    zeros: Float
    max: Float
    beyond: Float
    top: Float
    top_ids: npt.NDArray[np.str_]


def combine(
    recipe_layers: Sequence[str], partials: Iterable[tuple[Mapping[str, Array], Sequence[str]]], k: int
) -> dict[str, LayerStatistics]:
    """Merge the partials of all shards, in order. Each comes with the ids of the shard's inputs."""
    merged: dict[str, dict[str, Float]] = {}
    tops: dict[str, tuple[Float, Array]] = {}
    pictures = 0
    for partial, ids in partials:
        pictures += len(partial["index"])
        names = np.array([*ids, ""])  # index -1 means no picture
        for layer in recipe_layers:
            if f"{layer}/count" not in partial:
                continue
            summary = {
                name: partial[f"{layer}/{name}"] for name in ("count", "mean", "squares", "zeros", "max", "beyond")
            }
            merged[layer] = merge(merged[layer], summary) if layer in merged else summary
            here = partial[f"{layer}/top"], names[partial[f"{layer}/top_index"]]
            tops[layer] = _better(tops[layer], here, k) if layer in tops else here
    return {
        layer: LayerStatistics(
            pictures=pictures,
            mean=found["mean"],
            variance=found["squares"] / found["count"],
            zeros=found["zeros"] / found["count"],
            max=found["max"],
            beyond=found["beyond"],
            top=tops[layer][0],
            top_ids=tops[layer][1],
        )
        for layer, found in merged.items()
    }


def _better(a: tuple[Float, Array], b: tuple[Float, Array], k: int) -> tuple[Float, Array]:
    values, names = np.concatenate([a[0], b[0]], axis=1), np.concatenate([a[1], b[1]], axis=1)
    order = np.argsort(-values, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(values, order, axis=1), np.take_along_axis(names, order, axis=1)


def linear_cka(means: Mapping[str, Iterable[Array]], *, unbiased: bool = False) -> tuple[list[str], Float]:
    """Linear CKA between layers (Kornblith et al., 2019), on the channel means of pictures.

    `means`: {layer: the (N, C) array of each shard}, iterated over twice. The first pass computes the means, the second
    accumulates the centred products (C1, C2) in float64. Returns the layers and the CKA matrix (L, L).

    `unbiased` divides unbiased estimates of HSIC (Song et al., 2012), as Nguyen et al. (2021) do: it does not grow with
    the number of channels, and may be below 0. It needs at least 4 pictures; with fewer, it is NaN.
    """
    layers = list(means)
    centres = {layer: _mean(means[layer]) for layer in layers}
    products: dict[tuple[str, str], Float] = {}
    traces: dict[tuple[str, str], float] = {}
    count = 0
    for shards in zip(*means.values(), strict=True):
        centred = {layer: rows.astype(np.float64) - centres[layer] for layer, rows in zip(layers, shards, strict=True)}
        norms = {layer: np.einsum("ij,ij->i", rows, rows) for layer, rows in centred.items()}
        count += len(shards[0])
        for a, b in _pairs(layers):
            product = centred[a].T @ centred[b]
            products[a, b] = products[a, b] + product if (a, b) in products else product
            traces[a, b] = traces.get((a, b), 0.0) + float(norms[a] @ norms[b])
    hsic = {pair: float((product**2).sum()) for pair, product in products.items()}
    if unbiased:
        squares = {layer: float(products[layer, layer].trace()) for layer in layers}
        hsic = {
            (a, b): _unbiased_hsic(found, traces[a, b], squares[a] * squares[b], count)
            for (a, b), found in hsic.items()
        }
    result = np.eye(len(layers))
    for a, b in _pairs(layers):
        scale = max(hsic[a, a], 0.0) ** 0.5 * max(hsic[b, b], 0.0) ** 0.5
        value = hsic[a, b] / scale if scale > 0 else np.nan
        result[layers.index(a), layers.index(b)] = result[layers.index(b), layers.index(a)] = value
    return layers, result


def _unbiased_hsic(products: float, traces: float, squares: float, count: int) -> float:
    """HSIC of two centred kernels K and L of `count` pictures, but for a factor, without their diagonals.

    `products` is the sum over K L, `traces` that over their diagonals, `squares` the product of their traces. As K and
    L are centred, each row of K without its diagonal sums to minus the diagonal.
    """
    if count < 4:
        return float("nan")
    return products - traces + squares / ((count - 1) * (count - 2)) - 2 / (count - 2) * traces


def _pairs(layers: Sequence[str]) -> Iterator[tuple[str, str]]:
    return ((a, b) for number, a in enumerate(layers) for b in layers[number:])


def _mean(shards: Iterable[Array]) -> Float:
    sums, counts = zip(*((rows.sum(0, dtype=np.float64), len(rows)) for rows in shards), strict=True)
    return np.sum(sums, axis=0) / sum(counts)


def distances(rows: Array, distance: RdmDistance = "correlation", *, columns: int = 65536) -> npt.NDArray[np.float32]:
    """The representational dissimilarity matrix (N, N) of rows (N, ...).

    `correlation` is 1 - Pearson's correlation, `cosine` 1 - the cosine of the angle, `euclidean` the mean squared
    difference of the values. Reads `columns` values of each row at a time, so the rows may be memory-mapped and larger
    than memory. A row without variance, or for `cosine` of zeros, has distance NaN to all others and 0 to itself.
    """
    flat = rows.reshape(len(rows), -1)
    width = flat.shape[1]
    parts = [slice(start, start + columns) for start in range(0, width, columns)]
    mean: Float | float = 0.0
    if distance == "correlation":
        mean = (np.sum([flat[:, part].sum(1, dtype=np.float64) for part in parts], axis=0) / width)[:, None]
    products = np.zeros((len(flat), len(flat)))
    for part in parts:
        values = flat[:, part].astype(np.float64)
        centred = values - (values.mean(0) if distance == "euclidean" else mean)
        products += centred @ centred.T
    squares = products.diagonal()
    with np.errstate(divide="ignore", invalid="ignore"):
        if distance == "euclidean":
            found = np.maximum(squares[:, None] + squares - 2 * products, 0) / width
        else:
            found = 1 - products / np.outer(np.sqrt(squares), np.sqrt(squares))
    np.fill_diagonal(found, 0)
    return found.astype(np.float32)
