"""`vggfeat sheet`: paint a contact sheet of style weights and style scales."""

from pathlib import Path
from typing import Any

import click

from ._options import SOME_FAILED, output_option, parse_numbers, parsed
from ._outputs import picture_output
from ._painting import RunOptions, run_options
from ._recipes import chosen_recipe, files_read, recipe_options
from ._sheet import Sheet
from ._signals import saving, uninterrupted

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
@run_options("device", "precision", "memory_limit", "max_megapixels", "quiet")
@recipe_options(
    "preview",
    (
        "size",
        "enlarge",
        "objective",
        "content_weight",
        "content_layers",
        "style_layers",
        "color",
        "steps",
        "first_size",
        "seed",
    ),
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
    from vggfeat.pictures import sources
    from vggfeat.transfer.variations import variations

    run_with = RunOptions.pop_from(options)
    chosen = chosen_recipe("preview", options)
    weights = tuple(factor * chosen.style_weight for factor in _FACTORS) if weights is None else weights
    default = f"{Path(content).stem}-{Path(style).stem}-sheet.png"
    target = picture_output(output, default, files_read(chosen, options, content, style))
    pictures = {"content": sources.read(content, "content"), "style": sources.read(style, "style")}
    title = f"{Path(content).name} in the style of {Path(style).name}"
    sheet = Sheet(target, chosen, weights, scales, title, pictures)
    sheet.check()
    run_with.keep_freed_memory()
    with saving(sheet.save_interrupted):
        cells = variations(pictures["content"], pictures["style"], chosen, weights, scales, **run_with.arguments())
        sheet.fill(cells, quiet=run_with.quiet)
    failures = sheet.failures()
    with uninterrupted():
        sheet.save()
        if not run_with.quiet:
            click.echo(str(target))
    if failures:
        raise click.exceptions.Exit(SOME_FAILED)
