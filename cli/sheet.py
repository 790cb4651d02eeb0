"""`vggfeat sheet`: a contact sheet, to choose a style's weight and scale from."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vggfeat.errors import VggfeatError
from vggfeat.transfer.recipe import Recipe

from ._files import check_spares, unused
from ._painting import How, run_options
from ._progress import keeping, tell, uninterrupted
from ._recipes import chosen_recipe, recipe_files, recipe_options
from ._sizes import seconds_text

if TYPE_CHECKING:
    from torch import Tensor

# Of the recipe's style weight, where none are given.
_FACTORS = (0.01, 0.1, 1.0, 10.0)


def _parse_numbers(_context: click.Context, _option: click.Parameter, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        numbers = tuple(dict.fromkeys(float(word) for word in text.split(",")))
    except ValueError:
        raise click.BadParameter(f"'{text}' is not a list of numbers such as 100,1000") from None
    if len(numbers) > 12:
        raise click.BadParameter(f"{len(numbers)} values are too many for a sheet: give at most 12")
    return numbers


@click.command()
@click.argument("content", type=click.Path())
@click.argument("style", type=click.Path())
@click.option("-o", "--output", type=click.Path(), help="PNG, JPEG, WebP or TIFF.  [default: CONTENT-STYLE-sheet.png]")
@click.option(
    "--style-weights",
    "weights",
    callback=_parse_numbers,
    metavar="N,...",
    help="A row each.  [default: 0.01, 0.1, 1 and 10 times the recipe's]",
)
@click.option(
    "--style-scales",
    "scales",
    callback=_parse_numbers,
    default="0.5,1,2",
    show_default=True,
    metavar="N,...",
    help="A column each.",
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
    **options: Any,  # noqa: ANN401 (the run's, and the recipe's fields)
) -> None:
    """Paint CONTENT in the manner of STYLE over and over, small, for each style weight and style scale: one page.

    A cell that cannot be painted says why. Ctrl-C writes the sheet with what is painted.
    """
    from vggfeat.explore.pages.variations import grid
    from vggfeat.pictures import images, sources

    how = How.taken(options)
    chosen = chosen_recipe("preview", options)
    weights = tuple(factor * chosen.style_weight for factor in _FACTORS) if weights is None else weights
    target = Path(output) if output is not None else unused(Path(f"{Path(content).stem}-{Path(style).stem}-sheet.png"))
    images.check_writable(target)
    inputs = [content, style, *(name for _, name in recipe_files(chosen))]
    check_spares(target, inputs)
    pictures = sources.read(content, "content"), sources.read(style, "style")
    size = images.fit(pictures[0].shape[2], pictures[0].shape[3], chosen.size)
    cells: dict[tuple[int, int], Tensor | str] = {}

    def write() -> None:
        page = grid(
            cells,
            [f"{weight:g}" for weight in weights],
            [f"{scale:g}" for scale in scales],
            names=("style weight", "style scale"),
            title=f"{Path(content).name} in the manner of {Path(style).name}",
            facts=f"recipe {chosen.name} · {size[1]}x{size[0]} · content weight {chosen.content_weight:g}",
            sources=dict(zip(("content", "style"), pictures, strict=True)),
            size=size,
        )
        images.write_picture(target, page)

    def keep() -> bool:
        if cells:
            write()
            tell(f"interrupted: '{target}' holds {len(cells)} of {len(weights) * len(scales)} cells")
        return bool(cells)

    with keeping(keep):
        _paint(cells, pictures, chosen, weights, scales, how=how)
    reasons = [cell for cell in cells.values() if isinstance(cell, str)]
    if len(reasons) == len(cells):
        raise click.UsageError(f"no cell could be painted: {reasons[0]}")
    with uninterrupted():
        write()
        if not how.quiet:
            click.echo(str(target))
    if reasons:
        raise click.exceptions.Exit(3)


def _paint(
    cells: "dict[tuple[int, int], Tensor | str]",
    pictures: "tuple[Tensor, Tensor]",
    chosen: Recipe,
    weights: tuple[float, ...],
    scales: tuple[float, ...],
    *,
    how: How,
) -> None:
    """Fill the cells one by one: with a picture, or with the reason why there is none."""
    import time
    from dataclasses import replace

    from vggfeat.transfer.run import stylize

    how.hold()
    began = time.monotonic()
    count = len(weights) * len(scales)
    for number, place in enumerate((row, column) for row in range(len(weights)) for column in range(len(scales))):
        weight, scale = weights[place[0]], scales[place[1]]
        label = f"style weight {weight:g}, style scale {scale:g}"
        try:
            changed = replace(chosen, style_weight=weight, style_scale=scale)
            cells[place] = stylize(*pictures, changed, **how.arguments()).result().cpu()
        except (VggfeatError, MemoryError, RuntimeError) as error:
            reason = str(error).partition("\n")[0] or type(error).__name__
            cells[place] = reason
            tell(f"cell {number + 1}/{count}: {label}: {reason}")
            continue
        if not how.quiet:
            left = (time.monotonic() - began) / (number + 1) * (count - number - 1)
            tell(f"cell {number + 1}/{count}: {label}, about {seconds_text(left)} left")
