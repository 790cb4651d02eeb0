"""Measures features while a dump runs, and accumulates the measurements of one shard."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vggfeat.dumps.recipe import TOP, DumpRecipe
from vggfeat.dumps.statistics import FLOAT16_MAX, best, summarise
from vggfeat.features import tensors

Array = npt.NDArray[Any]


class Measurements:
    """Accumulates the measurements of one shard."""

    def __init__(self, recipe: DumpRecipe) -> None:
        self._recipe = recipe
        self._indices: list[int] = []
        self._rows: dict[str, list[Array]] = {layer: [] for layer in recipe.layers}

    def add(self, indices: Sequence[int], measured: Mapping[str, Sequence[Array]]) -> None:
        """Add a batch: the indices of its pictures in the shard, and {layer: its arrays of `measure`}."""
        self._indices += indices
        for layer in self._recipe.layers:
            self._rows[layer].append(_fields(*measured[layer]))

    def partial(self) -> dict[str, Array]:
        """The partial result that is stored, {name: array}."""
        order = np.argsort(self._indices)
        arrays: dict[str, Array] = {"index": np.array(self._indices, dtype=np.int64)[order]}
        for layer, batches in self._rows.items():
            if not batches:
                continue
            rows = np.concatenate(batches)[order]
            if self._recipe.keeps_means:
                arrays[f"{layer}/means"] = rows[:, 0].astype(np.float32)
            if self._recipe.statistics:
                summary = summarise(rows)
                arrays |= {f"{layer}/{name}": value for name, value in summary.items()}
                values, places = best(rows[:, 3], arrays["index"], TOP)
                arrays[f"{layer}/top"] = values
                arrays[f"{layer}/top_index"] = places
        return arrays


def measure(x: Tensor) -> tuple[Tensor, Tensor]:
    """Measure features (N, C, H, W): two tensors (N, 3, C), which stay on the device of `x`.

    The first holds the mean, variance and largest value of each channel; the second, of integers, how many values are
    0 and beyond float16's range, and how many there are.
    """
    with torch.inference_mode():
        x = tensors.at_least_float32(x)
        variance, mean = torch.var_mean(x, dim=(2, 3), correction=0)
        largest = x.amax((2, 3))
        # Sums of floats take a third of the time that sums of booleans take, and are exact up to 2**24: so row by row.
        zeros = torch.eq(x, 0, out=torch.empty_like(x)).sum(3).sum(2, dtype=torch.int64)
        if x.device.type == "cpu" and largest.max() <= FLOAT16_MAX and x.amin((2, 3)).min() >= -FLOAT16_MAX:
            beyond = torch.zeros_like(zeros)
        else:
            beyond = (x.abs() > FLOAT16_MAX).sum((2, 3))
        positions = torch.full_like(zeros, x.shape[2] * x.shape[3])
        return torch.stack([mean, variance, largest], 1), torch.stack([zeros, beyond, positions], 1)


def _fields(values: Array, counts: Array) -> npt.NDArray[np.float64]:
    """The arrays of `measure` as one, (N, 6, C): mean, variance, zeros, max, beyond and positions."""
    mean, variance, largest = np.moveaxis(values, 1, 0)
    zeros, beyond, positions = np.moveaxis(counts, 1, 0)
    return np.stack([mean, variance, zeros, largest, beyond, positions], axis=1).astype(np.float64)
