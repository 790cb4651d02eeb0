"""Prepares a batch for storing: casts, clips and counts its outputs, and measures its features, on their device."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from vggfeat.dumps.host import copy_to_host
from vggfeat.dumps.measurements import measure
from vggfeat.dumps.statistics import FLOAT16_MAX

Array = npt.NDArray[Any]
Output = tuple[str, str]


@dataclass(frozen=True, slots=True, eq=False)
class StoredBatch:
    """A batch on the host.

    `arrays`: {(layer, reduction): (N, ...) in the stored type}. `clipped`, `not_finite`: {(layer, reduction): number of
    values}. `measured`: {layer: its two arrays of `measure`}.
    """

    arrays: Mapping[Output, Array]
    clipped: Mapping[Output, int]
    not_finite: Mapping[Output, int]
    measured: Mapping[str, Sequence[Array]]


def store_batch(
    features: Mapping[str, Tensor], outputs: Mapping[Output, Tensor], *, dtype: str, measures: bool
) -> Callable[[], StoredBatch]:
    """Prepare `outputs`, {(layer, reduction): (N, ...) float32}, and measure `features` if `measures`.

    `dtype` is that of a recipe. Returns a function that waits for the one copy to the host.
    """
    with torch.inference_mode():
        stored = {output: _as_dtype(x, dtype) for output, x in outputs.items()}
        measured = {layer: measure(x) for layer, x in features.items()} if measures else {}
        counts = [count for _, *both in stored.values() for count in both]
        parts = [x for x, *_ in stored.values()] + [x for pair in measured.values() for x in pair]
        wait = copy_to_host([*parts, torch.stack(counts)] if counts else parts)

    names, layers = list(stored), list(measured)  # not the tensors, whose memory the next batch needs

    def result() -> StoredBatch:
        arrays = wait()
        numbers: list[int] = arrays.pop().tolist() if names else []
        rest = arrays[len(names) :]
        return StoredBatch(
            arrays=dict(zip(names, arrays, strict=False)),
            clipped=dict(zip(names, numbers[::2], strict=True)),
            not_finite=dict(zip(names, numbers[1::2], strict=True)),
            measured={layer: rest[2 * place : 2 * place + 2] for place, layer in enumerate(layers)},
        )

    return result


def _as_dtype(x: Tensor, dtype: str) -> tuple[Tensor, Tensor, Tensor]:
    """`x` in the stored type; how many values were clipped to its range, and how many are infinite or NaN."""
    half = dtype == "float16"
    limit = FLOAT16_MAX if half else torch.finfo(torch.float32).max
    if x.device.type == "cpu" and _within(x, limit):
        none = torch.zeros((), dtype=torch.int64)
        return x.to(torch.float16) if half else x, none, none
    not_finite = x.numel() - x.isfinite().sum()
    if not half:
        return x, torch.zeros_like(not_finite), not_finite
    return x.clamp(-limit, limit).to(torch.float16), (x.abs() > limit).sum(), not_finite


def _within(x: Tensor, limit: float) -> bool:
    """Whether all values are finite and within `limit`, in one pass."""
    least, most = (float(value) for value in x.aminmax())
    return -limit <= least and most <= limit  # false of NaN
