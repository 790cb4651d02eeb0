"""Measures the features of one shard while a dump runs."""

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

    def add(self, indices: Sequence[int], features: Mapping[str, Tensor]) -> None:
        """Add a batch: the indices of its pictures in the shard, and their features."""
        self._indices += indices
        for layer in self._recipe.layers:
            self._rows[layer].append(_per_picture(features[layer]))

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


# The measurements of each picture and channel, in this order.
_FIELDS = ("mean", "variance", "zeros", "max", "beyond", "positions")


def _per_picture(x: Tensor) -> npt.NDArray[np.float64]:
    """(N, C, H, W) to (N, 6, C): `_FIELDS` of each picture."""
    with torch.inference_mode():
        x = tensors.at_least_float32(x)
        variance, mean = torch.var_mean(x, dim=(2, 3), correction=0)
        zeros = (x == 0).sum((2, 3))
        beyond = (x.abs() > FLOAT16_MAX).sum((2, 3))
        positions = torch.full_like(mean, x.shape[2] * x.shape[3])
        found = (mean, variance, zeros, x.amax((2, 3)), beyond, positions)
        return np.stack([value.cpu().double().numpy() for value in found], axis=1)
