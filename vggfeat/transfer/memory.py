"""How much memory a step will take, and so whether the picture is looked at whole or in blocks."""

import os
import re
from pathlib import Path

import torch

from vggfeat.errors import InputError, RecipeError
from vggfeat.features import allocation
from vggfeat.networks import arch
from vggfeat.transfer.blocks import Blocks
from vggfeat.transfer.optimise import history
from vggfeat.transfer.recipe import Recipe

# What a run may take of the memory that is free when it begins.
_SHARE = 0.6
# Sides of blocks to choose from, in pixels of the picture. On a CPU larger ones gain nothing; on CUDA none was timed.
_SIDES = (256, 128)
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
# Pictures in float32 that a step holds at a time besides the optimiser's history.
_PICTURES = 12


def parse_size(text: str) -> int:
    """`4GB`, `1.5g` or `800 MB` in bytes; a unit is 1000 of the one below. Raises `InputError`."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]*)?)\s*([kmgt]?)i?b?", text.strip().lower())
    if not found or not float(found[1]):
        raise InputError(f"'{text}' is no amount of memory: write 4GB, 1.5GB or 800MB")
    return int(float(found[1]) * _UNITS[found[2]])


def available(device: torch.device) -> int | None:
    """Bytes that a run on `device` may take by itself; None where the system does not say."""
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
    """What the control group of a container leaves."""
    try:
        most = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return None if most == "max" else max(0, int(most) - used)


def predict(recipe: Recipe, height: int, width: int, itemsize: int, blocks: Blocks | None = None) -> int:
    """Bytes that the steps on a picture of `height` x `width` take on top of the program and the weights.

    `itemsize`: bytes of a feature; `blocks`: None looks at the picture whole.
    """
    remembered = 2 * history(3 * height * width) if recipe.optimiser == "lbfgs" else 5
    pictures = (_PICTURES + remembered) * 3 * 4 * height * width
    size: dict[str, int] = {}
    down, across = height + 2 * recipe.margin, width + 2 * recipe.margin
    largest = 64 * down * across
    parts = _parts(recipe)
    for layer in (layer for part in parts for layer in part):
        down, across = layer.output_side(down), layer.output_side(across)
        size[layer.name] = layer.channels * down * across * itemsize
    compared = [name for name, weight in recipe.content_layers.items() if weight and recipe.content_weight]
    content = sum(size[name] * 4 // itemsize for name in compared)
    tiled = parts[: blocks.tiled] if blocks else []
    whole = [layer for part in parts[len(tiled) :] for layer in part]
    convolved = [size[layer.name] for layer in whole if layer.kind == "conv"]
    pooled = [size[layer.name] for layer in whole if layer.kind == "pool"]
    # What autograd keeps: every activation, and where each maximum was; and two gradients on their way.
    kept = sum(convolved) + sum(pooled) * (1 + 8 // itemsize)
    passing = 2 * max(convolved, default=0)
    if blocks is None:
        return pictures + content + kept + passing
    planes = [size[part[-1].name] for part in tiled if part[-1].kind == "pool"]
    tile = min(64 * blocks.side * blocks.side, largest) * itemsize
    return pictures + content + sum(planes) + 2 * max(planes, default=0) + kept + max(passing, 8 * tile)


def choose(recipe: Recipe, height: int, width: int, itemsize: int, budget: int | None) -> Blocks | None:
    """The blocks that the picture is looked at in; None looks at it whole, where `budget` bytes allow.

    What is computed once saves more than larger tiles do. Raises `RecipeError` where not even the smallest blocks fit.
    """
    if budget is None or predict(recipe, height, width, itemsize) <= budget:
        return None
    choices = [Blocks(side, tiled) for tiled in (*range(1, len(_parts(recipe))), None) for side in _SIDES]
    for blocks in choices:
        if predict(recipe, height, width, itemsize, blocks) <= budget:
            return blocks
    least = predict(recipe, height, width, itemsize, choices[-1])
    raise RecipeError(
        f"{width}x{height} pixels take {_readable(least)} even in small blocks, {_readable(budget)} are allowed: "
        "choose a smaller size, or allow more memory"
    )


def _readable(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def _parts(recipe: Recipe) -> list[list[arch.Layer]]:
    """The layers that the recipe needs, in parts that end with a pooling, as `FeatureExtractor.parts` has them."""
    read = [name for name, weight in recipe.layer_weights().items() if weight]
    deepest = arch.find_layers(recipe.network, read, pooling=recipe.pooling)[-1]
    stack = arch.layers(recipe.network, pooling=recipe.pooling)[: deepest.index + 1]
    parts: list[list[arch.Layer]] = [[]]
    for layer in stack:
        parts[-1].append(layer)
        if layer.kind == "pool" and layer is not stack[-1]:
            parts.append([])
    return parts
