"""Predicts the cost of a run: bytes, multiply-accumulates and time."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from math import prod

import numpy as np

from vggfeat.dumps.decoding import Decoders
from vggfeat.dumps.network import DumpNetwork
from vggfeat.dumps.prepare import Pixels, Preparation, side_of
from vggfeat.dumps.recipe import DumpRecipe
from vggfeat.dumps.reductions import values
from vggfeat.dumps.sources import Item
from vggfeat.networks import arch

USUAL_SIDE = 224

_SAMPLE = 32
_ROUNDS = 3
_ENOUGH_SECONDS = 3


@dataclass(frozen=True, slots=True)
class Estimate:
    """The cost of a run. All fields but `pictures` describe the `left` pictures that are still to be computed.

    `bytes` on disk and `macs` (multiply-accumulates of the network) are exact if the recipe resizes all images to one
    size; otherwise they are extrapolated from a sample. `seconds` is extrapolated from a few timed batches.
    """

    pictures: int
    left: int
    bytes: int
    macs: int
    seconds: float


def cost(recipe: DumpRecipe, sides: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Bytes on disk and multiply-accumulates per image: the mean over images of the given (height, width)."""
    size = macs = 0
    for height, width in sides:
        table = arch.sized_layers(
            recipe.network, height, width, pooling=recipe.pooling, last=recipe.layers[-1], head="paper"
        )
        macs += table[-1].macs
        size += sum(
            values(reduction, (layer.channels, layer.height, layer.width))
            for layer in table
            for reduction in recipe.reductions.get(layer.name, ())
        )
    count = max(1, len(sides))
    return size * np.dtype(recipe.dtype).itemsize // count, macs // count


def estimate_bytes(recipe: DumpRecipe, items: Sequence[Item]) -> int:
    """Bytes on disk of `items`. If image sizes differ, reads the headers of a sample."""
    how = Preparation.of(recipe)
    sides = [recipe.fixed_side] if recipe.fixed_side else [side_of(item, how) for item in _sample(items)]
    usable = [side for side in sides if side and min(side) >= recipe.minimum_size]
    return cost(recipe, usable or [(USUAL_SIDE, USUAL_SIDE)])[0] * len(items)


def estimate(network: DumpNetwork, items: Sequence[Item], *, pictures: int, batch_size: int, workers: int) -> Estimate:
    """Time a sample of `items`, which are left of `pictures`; `workers` processes decode. Writes nothing."""
    recipe = network.recipe
    sample = _sample(items)
    with Decoders(Preparation.of(recipe), min(1, workers)) as decoders:
        list(decoders.map(sample[:1], ahead=1))  # wait for the process to start
        began = time.perf_counter()
        prepared = list(decoders.map(sample, ahead=1))
        decoding = (time.perf_counter() - began) / max(1, len(sample))
    good = [found.pixels for found in prepared if found.pixels is not None]
    computing = _seconds_per_image(network, good, batch_size)
    seconds = max(computing, decoding / workers) if workers else computing + decoding
    sides = [recipe.fixed_side] if recipe.fixed_side else [(x.shape[1], x.shape[2]) for x in good]
    size, macs = cost(recipe, sides)
    return Estimate(pictures, len(items), size * len(items), macs * len(items), seconds * len(items))


def _sample(items: Sequence[Item]) -> Sequence[Item]:
    """At most `_SAMPLE` items, evenly spaced."""
    return items[:: -(-len(items) // _SAMPLE) or 1]


def _seconds_per_image(network: DumpNetwork, images: Sequence[Pixels], batch_size: int) -> float:
    """Time a few batches of images of one size, after a warm-up, and scale by the mean area of all images."""
    if not images:
        return 0.0
    shape = images[0].shape
    same_size = [x for x in images if x.shape == shape]
    batch = np.stack(list(islice(cycle(same_size), batch_size)))
    network(batch)
    began = time.perf_counter()
    rounds = 0
    while rounds < _ROUNDS and (not rounds or time.perf_counter() - began < _ENOUGH_SECONDS):
        network(batch)
        rounds += 1
    mean_area = sum(prod(x.shape) for x in images) / len(images)
    return (time.perf_counter() - began) / (rounds * batch_size) * mean_area / prod(shape)
