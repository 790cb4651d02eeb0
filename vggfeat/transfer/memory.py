"""Predict the memory of a step, and choose the blocks in which it fits."""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch

from vggfeat.errors import InputError, RecipeError
from vggfeat.features import allocation
from vggfeat.features.extractor import FeatureExtractor
from vggfeat.transfer.optimise import history
from vggfeat.transfer.recipe import Recipe
from vggfeat.transfer.stages import Stage
from vggfeat.transfer.tiles import Blocks

# Share of the free memory that a run may use.
_SHARE = 0.6
# Sides of blocks to choose from, in pixels of the picture. Larger ones gain nothing on a CPU; a GPU needs more work at
# a time than a small block holds.
_SIDES = (256, 128)
_SIDES_ON_GPU = (1024, 512, 256, 128)
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
# Number of float32 pictures that a step holds at a time, besides the optimiser's history.
_PICTURES = 12


class _Copies(NamedTuple):
    """The memory of an objective besides the network's activations, in float32 copies of the style layers.

    Args:
        largest: of the largest layer, when its loss is differentiated.
        others: of each other layer, at the same time.
        blocks: of the largest layer, where the picture is divided.
        target: channels of each layer that a target keeps, at most; 0 if it keeps matrices only.
    """

    largest: float
    others: float
    blocks: float
    target: int = 0


# Fitted to the peaks that tests/transfer/test_peaks.py measures, for float32 and for half precision.
_COPIES = {
    "gram": (_Copies(0.8, 0, 0), _Copies(0.2, 0, 0)),
    "gram+meanstd": (_Copies(3.6, 0.9, 0), _Copies(3.6, 0.7, 0.2)),
    "covariance": (_Copies(1.6, 0, 0), _Copies(2.1, 0.2, 0)),
    "swd": (_Copies(1.3, 0.2, 3.4, 64), _Copies(1.9, 0.2, 3.4, 64)),
    "nn": (_Copies(4.8, 0.3, 0.9, 4096), _Copies(5.2, 0.4, 0.9, 4096)),
}


def parse_size(text: str) -> int:
    """Read `4GB`, `1.5g` or `800 MB`, in decimal units, as bytes. Raises `InputError`."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]*)?)\s*([kmgt]?)i?b?", text.strip().lower())
    if not found or not float(found[1]):
        raise InputError(f"'{text}' is not an amount of memory: write 4GB, 1.5GB or 800MB")
    return int(float(found[1]) * _UNITS[found[2]])


def budget(limit: int | str | None, device: torch.device) -> int | None:
    """Bytes that a step may use: the limit, in bytes or as text, or else a share of the free memory of `device`.

    None where the system does not report it. Raises `InputError` for a limit that is not an amount of memory.
    """
    return available(device) if limit is None else parse_size(str(limit))


def available(device: torch.device) -> int | None:
    """Bytes that a run on `device` may use if no limit is given; None where the system does not report it."""
    if device.type == "cuda":
        # Memory that torch's allocator has reserved but does not use is free for a run, though not for other programs.
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(_SHARE * (torch.cuda.mem_get_info(device)[0] + unused))
    allocation.release()
    free = [bytes_ for bytes_ in (_linux(), _limit()) if bytes_ is not None]
    return int(_SHARE * min(free)) if free else None


def _linux() -> int | None:
    try:
        found = re.search(
            r"^MemAvailable:\s*(\d+) kB$", Path("/proc/meminfo").read_text(encoding="ascii"), re.MULTILINE
        )
    except OSError:
        try:
            return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        except (AttributeError, OSError, ValueError):
            return None
    return int(found[1]) * 1024 if found else None


def _limit() -> int | None:
    """Bytes that the control group of a container leaves."""
    try:
        most = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return None if most == "max" else max(0, int(most) - used)


def predict(
    extract: FeatureExtractor,
    recipe: Recipe,
    height: int,
    width: int,
    blocks: Blocks | None = None,
    *,
    styles: int = 1,
) -> int:
    """Bytes that the steps on a picture of `height` x `width` need, besides the program and the weights.

    `extract` is the recipe's network; `blocks` None evaluates the picture whole; `styles` is the number of styles.
    """
    itemsize = extract.dtype.itemsize
    remembered = 2 * history(3 * height * width) if recipe.optimiser == "lbfgs" else 2
    pictures = (_PICTURES + remembered) * 3 * 4 * height * width
    size: dict[str, int] = {}
    compact: dict[str, tuple[int, int]] = {}
    down, across = height + 2 * recipe.margin, width + 2 * recipe.margin
    first = 64 * down * across
    parts = [part.stack for part in extract.parts()]
    for layer in (layer for part in parts for layer in part):
        down, across = layer.output_side(down), layer.output_side(across)
        size[layer.name] = layer.channels * down * across * itemsize
        cut = 2 * (recipe.margin // layer.stride)
        compact[layer.name] = layer.channels, (down - cut) * (across - cut) * 4
    compared = [name for name, weight in recipe.content_layers.items() if weight and recipe.content_weight]
    content = sum(size[name] * 4 // itemsize for name in compared)
    read = [name for name, weight in recipe.style_layers.items() if weight and recipe.style_weight]
    copies = _COPIES[recipe.objective][itemsize < 4]
    plain = [channels * plane for channels, plane in (compact[name] for name in read)]
    largest = max(plain, default=0)
    targets = sum(min(copies.target, channels) * plane for channels, plane in (compact[name] for name in read))
    content += int(targets * styles * recipe.style_scale**2)
    compared_at_once = sum(size[name] for name in {*read, *compared})
    losses = compared_at_once + int(copies.largest * largest + copies.others * (sum(plain) - largest))
    tiled = parts[: blocks.tiled] if blocks else []
    whole = [layer for part in parts[len(tiled) :] for layer in part]
    convolved = [size[layer.name] for layer in whole if layer.kind == "conv"]
    pooled = [size[layer.name] for layer in whole if layer.kind == "pool"]
    # Autograd keeps every activation and the position of each maximum; two gradients exist at a time.
    kept = sum(convolved) + sum(pooled) * (1 + 8 // itemsize)
    passing = 2 * max(convolved, default=0)
    if blocks is None:
        return pictures + content + kept + max(passing, losses)
    content += int(copies.blocks * largest)
    planes = [size[part[-1].name] for part in tiled if part[-1].kind == "pool"]
    tile = min(64 * blocks.side * blocks.side, first) * itemsize
    return pictures + content + sum(planes) + 2 * max(planes, default=0) + kept + max(passing, 4 * tile)


def choose(
    extract: FeatureExtractor, recipe: Recipe, height: int, width: int, budget: int | None, *, styles: int = 1
) -> Blocks | None:
    """The blocks in which a picture of `height` x `width` fits into `budget` bytes; None if it fits whole.

    Computing fewer parts twice saves more time than larger tiles do. Raises `RecipeError` if not even the smallest
    blocks fit.
    """
    if budget is None or predict(extract, recipe, height, width, styles=styles) <= budget:
        return None
    sides = _SIDES_ON_GPU if any(x.is_cuda for x in extract.buffers()) else _SIDES
    choices = [Blocks(side, tiled) for tiled in (*range(1, len(extract.parts())), None) for side in sides]
    for blocks in choices:
        if predict(extract, recipe, height, width, blocks, styles=styles) <= budget:
            return blocks
    least = predict(extract, recipe, height, width, choices[-1], styles=styles)
    raise RecipeError(
        f"{width}x{height} pixels take {_readable(least)} even in small blocks, {_readable(budget)} are allowed: "
        "choose a smaller size, or allow more memory"
    )


def divide(
    extract: FeatureExtractor, recipe: Recipe, stages: Iterable[Stage], budget: int | None, *, styles: int = 1
) -> list[Blocks | None]:
    """The blocks that `choose` finds for each stage."""
    return [choose(extract, recipe, stage.height, stage.width, budget, styles=styles) for stage in stages]


def _readable(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
