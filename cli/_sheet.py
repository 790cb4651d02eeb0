"""The contact sheet of `vggfeat sheet`: its cells as they are painted, and the page."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ._outputs import save_picture
from ._progress import tell
from ._text import seconds_text

if TYPE_CHECKING:
    from torch import Tensor

    from vggfeat.transfer.recipe import Recipe
    from vggfeat.transfer.variations import Variation


@dataclass
class Sheet:
    """A grid with a row for each style weight and a column for each style scale.

    `sources` are the pictures by their roles, content first; `cells` holds the pictures painted so far by (row,
    column), or the reason why one could not be painted.
    """

    target: Path
    recipe: "Recipe"
    weights: Sequence[float]
    scales: Sequence[float]
    title: str
    sources: "dict[str, Tensor]"
    cells: "dict[tuple[int, int], Tensor | str]" = field(default_factory=dict["tuple[int, int]", "Tensor | str"])

    def fill(self, variations: "Iterable[Variation]", *, quiet: bool) -> None:
        """Collect the cells. Tell about each, or if `quiet`, only about those that failed."""
        began, count = time.monotonic(), len(self.weights) * len(self.scales)
        for cell in variations:
            self.cells[cell.row, cell.column] = cell.picture
            done = len(self.cells)
            label = f"cell {done}/{count}: style weight {cell.weight:g}, style scale {cell.scale:g}"
            if isinstance(cell.picture, str):
                tell(f"{label}: {cell.picture}")
            elif not quiet:
                tell(f"{label}, about {seconds_text((time.monotonic() - began) / done * (count - done))} left")

    def check(self) -> None:
        """Refuse a page that could not be drawn or written, before its cells are painted."""
        from vggfeat.pictures import images

        height, width = self._page().shape[2:]
        images.check_writable(self.target, size=(height, width))

    def save(self) -> None:
        """Write the page."""
        save_picture(self.target, self._page())

    def _page(self) -> "Tensor":
        from vggfeat.explore.pages.variations import grid
        from vggfeat.pictures import images

        height, width = self.sources["content"].shape[2:]
        height, width = images.fit(height, width, self.recipe.size, enlarge=self.recipe.enlarge)
        facts = f"recipe {self.recipe.name} · {width}x{height} · content weight {self.recipe.content_weight:g}"
        return grid(
            self.cells,
            [f"{weight:g}" for weight in self.weights],
            [f"{scale:g}" for scale in self.scales],
            names=("style weight", "style scale"),
            title=self.title,
            facts=facts,
            sources=self.sources,
            size=(height, width),
        )

    def save_interrupted(self) -> bool:
        """Write the cells so far. Returns whether there were any."""
        if self.cells:
            self.save()
            count = len(self.weights) * len(self.scales)
            tell(f"interrupted: '{self.target}' holds {len(self.cells)} of {count} cells")
        return bool(self.cells)

    def failures(self) -> list[str]:
        """The reasons of the cells that could not be painted. Refuses a sheet without any picture."""
        reasons = [cell for cell in self.cells.values() if isinstance(cell, str)]
        if len(reasons) == len(self.cells):
            raise click.UsageError(f"no cell could be painted: {reasons[0]}")
        return reasons
