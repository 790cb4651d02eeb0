"""`vggfeat sheet`: paint a contact sheet of style weights and style scales."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._options import SOME_FAILED, output_option, parse_numbers, parsed
from ._outputs import picture_output
from ._painting import RunOptions, run_options
from ._progress import tell
from ._recipes import chosen_recipe, files_read, recipe_options
from ._signals import saving, uninterrupted
from ._text import seconds_text

if TYPE_CHECKING:
    from vggfeat.transfer.variations import Variation

# The default style weights, as multiples of the recipe's.
_FACTORS = (0.01, 0.1, 1.0, 10.0)
_MOST_VALUES = 12


def _parse_axis(text: str) -> tuple[float, ...]:
    numbers = tuple(dict.fromkeys(parse_numbers(text)))
    if len(numbers) > _MOST_VALUES:
        raise ValueError(f"{len(numbers)} values are too many for a sheet: give at most {_MOST_VALUES}")
    return numbers


@click.command()
@click.argument("content", type=click.Path())
@click.argument("style", type=click.Path())
@output_option("CONTENT-STYLE-sheet.png")
@click.option(
    "--style-weights",
    "weights",
    callback=parsed(_parse_axis),
    metavar="N,...",
    help="Style weights, one for each row.  [default: 0.01, 0.1, 1 and 10 times the recipe's]",
)
@click.option(
    "--style-scales",
    "scales",
    callback=parsed(_parse_axis),
    default="0.5,1,2",
    metavar="N,...",
    help="Style scales, one for each column.",
)
@run_options("device", "precision", "memory_limit", "quiet")
@recipe_options(
    "preview",
    ("size", "objective", "content_weight", "content_layers", "style_layers", "color", "steps", "first_size", "seed"),
)
def command(
    content: str,
    style: str,
    *,
    output: str | None,
    weights: tuple[float, ...] | None,
    scales: tuple[float, ...],
    **options: Any,
) -> None:
    """Paint small versions of CONTENT in the style of STYLE, one for each style weight and style scale, on one page.

    Where a version could not be painted, the page says why. Ctrl-C saves the page with the versions so far.
    """
    from vggfeat.explore.pages.variations import grid
    from vggfeat.pictures import images, sources
    from vggfeat.transfer.variations import variations

    run_with = RunOptions.pop_from(options)
    chosen = chosen_recipe("preview", options)
    weights = tuple(factor * chosen.style_weight for factor in _FACTORS) if weights is None else weights
    default = f"{Path(content).stem}-{Path(style).stem}-sheet.png"
    target = picture_output(output, default, files_read(chosen, options, content, style))
    pictures = sources.read(content, "content"), sources.read(style, "style")
    size = images.fit(pictures[0].shape[2], pictures[0].shape[3], chosen.size)
    cells: dict[tuple[int, int], Any] = {}

    def save() -> None:
        page = grid(
            cells,
            [f"{weight:g}" for weight in weights],
            [f"{scale:g}" for scale in scales],
            names=("style weight", "style scale"),
            title=f"{Path(content).name} in the style of {Path(style).name}",
            facts=f"recipe {chosen.name} · {size[1]}x{size[0]} · content weight {chosen.content_weight:g}",
            sources=dict(zip(("content", "style"), pictures, strict=True)),
            size=size,
        )
        images.write_picture(target, page)

    def save_interrupted() -> bool:
        if cells:
            save()
            tell(f"interrupted: '{target}' holds {len(cells)} of {len(weights) * len(scales)} cells")
        return bool(cells)

    run_with.keep_freed_memory()
    began = time.monotonic()
    with saving(save_interrupted):
        for cell in variations(*pictures, chosen, weights, scales, **run_with.arguments()):
            cells[cell.row, cell.column] = cell.picture
            _report(cell, len(cells), len(weights) * len(scales), time.monotonic() - began, quiet=run_with.quiet)
    reasons = [cell for cell in cells.values() if isinstance(cell, str)]
    if len(reasons) == len(cells):
        raise click.UsageError(f"no cell could be painted: {reasons[0]}")
    with uninterrupted():
        save()
        if not run_with.quiet:
            click.echo(str(target))
    if reasons:
        raise click.exceptions.Exit(SOME_FAILED)


def _report(cell: "Variation", done: int, count: int, seconds: float, *, quiet: bool) -> None:
    label = f"cell {done}/{count}: style weight {cell.weight:g}, style scale {cell.scale:g}"
    if isinstance(cell.picture, str):
        tell(f"{label}: {cell.picture}")
    elif not quiet:
        tell(f"{label}, about {seconds_text(seconds / done * (count - done))} left")
