"""Predict the memory of a step, and choose the blocks in which it fits."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

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
# Sides of blocks to choose from, in pixels of the picture. On a CPU larger ones gain nothing; on CUDA none was timed.
_SIDES = (256, 128)
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
# Number of float32 pictures that a step holds at a time, besides the optimiser's history.
_PICTURES = 12


def parse_size(text: str) -> int:
    """Read `4GB`, `1.5g` or `800 MB`, in decimal units, as bytes. Raises `InputError`."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]*)?)\s*([kmgt]?)i?b?", text.strip().lower())
    if not found or not float(found[1]):
        raise InputError(f"'{text}' is no amount of memory: write 4GB, 1.5GB or 800MB")
    return int(float(found[1]) * _UNITS[found[2]])


def budget(limit: int | str | None, device: torch.device) -> int | None:
    """Bytes that a step may use: the limit, in bytes or as text, or else a share of the free memory of `device`.

    None where the system does not report it. Raises `InputError` for a limit that is no amount of memory.
    """
    return available(device) if limit is None else parse_size(str(limit))


def available(device: torch.device) -> int | None:
    """Bytes that a run on `device` may use if no limit is given; None where the system does not report it."""
    if device.type == "cuda":
        return int(_SHARE * torch.cuda.mem_get_info(device)[0])
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


def predict(extract: FeatureExtractor, recipe: Recipe, height: int, width: int, blocks: Blocks | None = None) -> int:
    """Bytes that the steps on a picture of `height` x `width` need, besides the program and the weights.

    `extract` is the recipe's network; `blocks` None evaluates the picture whole.
    """
    itemsize = extract.dtype.itemsize
    remembered = 2 * history(3 * height * width) if recipe.optimiser == "lbfgs" else 5
    pictures = (_PICTURES + remembered) * 3 * 4 * height * width
    size: dict[str, int] = {}
    down, across = height + 2 * recipe.margin, width + 2 * recipe.margin
    largest = 64 * down * across
    parts = [part.stack for part in extract.parts()]
    for layer in (layer for part in parts for layer in part):
        down, across = layer.output_side(down), layer.output_side(across)
        size[layer.name] = layer.channels * down * across * itemsize
    compared = [name for name, weight in recipe.content_layers.items() if weight and recipe.content_weight]
    content = sum(size[name] * 4 // itemsize for name in compared)
    tiled = parts[: blocks.tiled] if blocks else []
    whole = [layer for part in parts[len(tiled) :] for layer in part]
    convolved = [size[layer.name] for layer in whole if layer.kind == "conv"]
    pooled = [size[layer.name] for layer in whole if layer.kind == "pool"]
    # Autograd keeps every activation and the position of each maximum; two gradients are in flight.
    kept = sum(convolved) + sum(pooled) * (1 + 8 // itemsize)
    passing = 2 * max(convolved, default=0)
    if blocks is None:
        return pictures + content + kept + passing
    planes = [size[part[-1].name] for part in tiled if part[-1].kind == "pool"]
    tile = min(64 * blocks.side * blocks.side, largest) * itemsize
    return pictures + content + sum(planes) + 2 * max(planes, default=0) + kept + max(passing, 8 * tile)


def choose(extract: FeatureExtractor, recipe: Recipe, height: int, width: int, budget: int | None) -> Blocks | None:
    """The blocks in which a picture of `height` x `width` fits into `budget` bytes; None if it fits whole.

    Computing fewer parts twice saves more time than larger tiles do. Raises `RecipeError` if not even the smallest
    blocks fit.
    """
    if budget is None or predict(extract, recipe, height, width) <= budget:
        return None
    choices = [Blocks(side, tiled) for tiled in (*range(1, len(extract.parts())), None) for side in _SIDES]
    for blocks in choices:
        if predict(extract, recipe, height, width, blocks) <= budget:
            return blocks
    least = predict(extract, recipe, height, width, choices[-1])
    raise RecipeError(
        f"{width}x{height} pixels take {_readable(least)} even in small blocks, {_readable(budget)} are allowed: "
        "choose a smaller size, or allow more memory"
    )


def divide(
    extract: FeatureExtractor, recipe: Recipe, stages: Iterable[Stage], budget: int | None
) -> list[Blocks | None]:
    """What `choose` returns for each stage."""
    return [choose(extract, recipe, stage.height, stage.width, budget) for stage in stages]


def _readable(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
