"""Labelled pictures: kept in memory as bytes, or read from files batch by batch."""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar, cast

import torch
from torch import Tensor

from vggfeat.features import tensors
from vggfeat.networks.weights import Triple
from vggfeat.pictures import images

_Result = TypeVar("_Result")

Report = Callable[[int, int], None]
"""Called with the number of pictures decoded so far and their total."""

# The number of pictures from which mean and standard deviation are computed, unless all are in memory.
_SAMPLE = 1000


@dataclass(frozen=True)
class Pictures:
    """Square pictures with labels: `kept` in memory as bytes (N, 3, S, S), or read from `paths` each time."""

    labels: Tensor
    side: int
    kept: Tensor | None = field(default=None, repr=False)
    paths: Sequence[Path] = field(default=(), repr=False)

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, batches: Iterable[Sequence[int]]) -> Generator[tuple[Tensor, Tensor]]:
        """Yield bytes (N, 3, S, S) and labels (N,) of each batch of indices. Threads read files ahead."""
        if self.kept is not None:
            for indices in batches:
                index = list(indices)
                yield self.kept[index], self.labels[index]
            return
        groups = [list(indices) for indices in batches]
        paths = (self.paths[index] for group in groups for index in group)
        pictures = read_ahead(paths, lambda path: read_square(path, self.side), 2 * max(map(len, groups), default=1))
        for group in groups:
            yield torch.stack([next(pictures) for _ in group]), self.labels[group]

    def mean_std(self) -> tuple[Triple, Triple]:
        """Mean and standard deviation of each channel in [0, 1]; the latter is 1 for a channel without contrast."""
        step = 1 if self.kept is not None else max(1, len(self) // _SAMPLE)
        total, squares, count = torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64), 0
        indices = list(range(0, len(self), step))
        for pixels, _ in self.batches(indices[start : start + 64] for start in range(0, len(indices), 64)):
            unit = pixels.double() / 255
            total += unit.sum((0, 2, 3))
            squares += unit.square().sum((0, 2, 3))
            count += pixels.numel() // 3
        mean = total / count
        std = (squares / count - mean.square()).clamp_min(0).sqrt()
        std[std < 1e-3] = 1.0
        rounded = [tuple(round(float(x), 5) for x in tensors.values(each)) for each in (mean, std)]
        return cast("Triple", rounded[0]), cast("Triple", rounded[1])


@dataclass(frozen=True)
class Data:
    """Pictures to train on and held-out pictures. The network reads the central `size` pixels of their `side`.

    `skipped` maps files that could not be read to the reason. `fingerprint` distinguishes data sets.
    """

    name: str
    classes: tuple[str, ...]
    train: Pictures
    held_out: Pictures
    size: int
    augment: Literal["shift", "photo"]
    fingerprint: str
    skipped: dict[str, str] = field(default_factory=dict[str, str])


def read_square(path: Path, side: int) -> Tensor:
    """Read the central square of a picture file, resized to bytes (3, side, side). Raises `ImageError`."""
    rgb = images.flatten(images.read_picture(path))
    return to_bytes(images.middle_square(rgb, side, side))[0]


def to_bytes(unit: Tensor) -> Tensor:
    """Convert values in [0, 1] to bytes."""
    return unit.mul(255).round_().clamp_(0, 255).to(torch.uint8)


def hold_out(labels: Tensor, share: float, seed: int) -> Tensor:
    """Select `share` of each class at random, at least one picture and never all: a mask (N,)."""
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    generator = torch.Generator("cpu").manual_seed(seed)
    for label in range(int(labels.max()) + 1):
        members = torch.arange(len(labels))[labels == label]
        members = members[torch.randperm(len(members), generator=generator, device="cpu")]
        chosen[members[: min(max(1, round(len(members) * share)), len(members) - 1)]] = True
    return chosen


def fingerprint(lines: Iterable[str]) -> str:
    """A short hash of text."""
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def read_ahead(paths: Iterable[Path], read: Callable[[Path], _Result], ahead: int) -> Generator[_Result]:
    """Yield the result of `read` for each path, in order. Threads read up to `ahead` files in advance."""
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        waiting: deque[Future[_Result]] = deque()
        for path in paths:
            waiting.append(pool.submit(read, path))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
