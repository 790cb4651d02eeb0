"""The coarse-to-fine schedule: stages from a recipe and a picture's size. No torch here."""

import math
from dataclasses import dataclass

from vggfeat.errors import RecipeError
from vggfeat.transfer.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Stage:
    """One image size in pixels, its number of steps, and its share of the run's work, 0 to 1."""

    height: int
    width: int
    steps: int
    share: float


def plan(recipe: Recipe, height: int, width: int) -> tuple[Stage, ...]:
    """The stages up to `height` x `width` pixels.

    Sizes grow from the recipe's first size by a constant ratio near the recipe's growth. A picture no larger than the
    first size has one stage. Raises `RecipeError` for a picture that is too small for the recipe's deepest layer.
    """
    minimum = recipe.deepest_layer().minimum_size
    if min(height, width) < minimum:
        raise RecipeError(f"{width}x{height} pixels are too few for the recipe's layers: they need {minimum} a side")
    long_side = max(height, width)
    first = min(recipe.first_size, long_side)
    jumps = round(math.log(long_side / first) / math.log(recipe.growth))
    scales = [(first / long_side) ** (1 - index / jumps) for index in range(jumps)] + [1.0]
    sizes = [(max(minimum, round(height * scale)), max(minimum, round(width * scale))) for scale in scales]
    steps = [max(1, round(recipe.steps * recipe.step_decay**index)) for index in range(len(sizes))]
    work = [h * w * n for (h, w), n in zip(sizes, steps, strict=True)]
    return tuple(Stage(h, w, n, part / sum(work)) for (h, w), n, part in zip(sizes, steps, work, strict=True))
