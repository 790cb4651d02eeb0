"""Paint one picture with every combination of style weights and style scales."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from vggfeat.errors import VggfeatError
from vggfeat.transfer.recipe import Recipe
from vggfeat.transfer.run import stylize


@dataclass(frozen=True, slots=True)
class Variation:
    """One combination. `picture` is (1, 3, H, W) in [0, 1] on the CPU, or the reason why it could not be painted."""

    row: int
    column: int
    weight: float
    scale: float
    picture: Tensor | str


def variations(
    content: Tensor,
    style: Tensor,
    recipe: Recipe,
    weights: Sequence[float],
    scales: Sequence[float],
    **options: Any,
) -> Generator[Variation]:
    """Paint `content` once for each style weight (row) and style scale (column), row by row.

    Args:
        content: (1, 3, H, W) in [0, 1].
        style: (1, 3, H, W) in [0, 1]; its size may differ from that of `content`.
        recipe: the recipe whose `style_weight` and `style_scale` are replaced.
        weights: style weights.
        scales: style scales.
        options: of `stylize`, such as `device`.
    """
    for row, weight in enumerate(weights):
        for column, scale in enumerate(scales):
            picture: Tensor | str
            try:
                changed = replace(recipe, style_weight=weight, style_scale=scale)
                picture = stylize(content, style, changed, **options).result().cpu()
            except (VggfeatError, MemoryError, RuntimeError) as error:
                picture = str(error).partition("\n")[0] or type(error).__name__
            yield Variation(row, column, weight, scale, picture)
