"""`vggfeat stylize`: paint one picture in the manner of another."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from vggfeat import files

from ._orders import Order, paint_all
from ._painting import How, run_options
from ._recipes import chosen_recipe, recipe_options


@click.command()
@click.argument("pictures", nargs=-1, required=True, type=click.Path(), metavar="CONTENT STYLE...")
@click.option(
    "--style", "named_styles", multiple=True, type=click.Path(), help="Its style; then every argument is a content."
)
@click.option("-o", "--output", type=click.Path(), help="PNG, JPEG, WebP or TIFF.  [default: CONTENT-STYLE.png]")
@click.option("--mix", metavar="2,1", help="Weights of several styles.  [default: equal]")
@click.option(
    "--mask",
    "masks",
    multiple=True,
    metavar="MASK=STYLE",
    help="A style for the white parts of a mask; then every argument is a content.",
)
@click.option("--keep", type=click.Path(), help="A mask whose white parts stay as the content is.")
@click.option("--sequence", is_flag=True, help="Contents are frames: each starts from the one painted before.")
@click.option("--compile", "compiled", is_flag=True, help="Compile the network by torch first: meant for CUDA.")
@run_options()
@recipe_options("default")
def command(
    pictures: tuple[str, ...],
    *,
    named_styles: tuple[str, ...],
    output: str | None,
    mix: str | None,
    masks: tuple[str, ...],
    keep: str | None,
    sequence: bool,
    compiled: bool,
    **options: Any,  # noqa: ANN401 (the run's, and the recipe's fields)
) -> None:
    """Paint CONTENT in the manner of STYLE.

    Several styles mix. With --style or --mask every argument is a content, also folders of them: then -o is a folder,
    what it holds already is left as it is, and a content that cannot be painted is named and passed over (exit code 3).

    Ctrl-C saves the picture as it stands.
    """
    how = How.taken(options)
    contents, styles, places = _arguments(pictures, named_styles, masks)
    found, many = _expand(contents)
    if many and (how.checkpoint or how.resume or how.plot or how.save_every):
        raise click.UsageError("--checkpoint, --resume, --plot and --save-every are for a single content")
    if sequence and not many:
        raise click.UsageError("--sequence is for several contents, or a folder of frames")
    order = Order(
        styles=styles,
        recipe=chosen_recipe("default", options, how.resume),
        weights=_weights(mix, len(styles)),
        masks=places,
        keep=keep,
        compiled=compiled,
        how=how,
    )
    if many:
        paint_all(order, found, _folder(output), sequence=sequence)
    else:
        order.paint(contents[0], output, f"{Path(contents[0]).stem}-{Path(styles[0]).stem}.png")


def _arguments(
    pictures: Sequence[str], named_styles: Sequence[str], masks: Sequence[str]
) -> tuple[list[str], list[str], list[str | None]]:
    """The contents, the styles, and for each style its mask or None."""
    pairs: list[tuple[str, str]] = []
    for item in masks:
        mask, equals, style = item.partition("=")
        if not equals or not mask or not style:
            raise click.UsageError(f"--mask {item} is no MASK=STYLE, such as sky.png=waves.jpg")
        pairs.append((mask, style))
    if not pairs and not named_styles:
        if len(pictures) == 1:
            raise click.UsageError(f"there is no style for '{pictures[0]}': CONTENT STYLE, or CONTENT --style STYLE")
        return [pictures[0]], list(pictures[1:]), [None] * (len(pictures) - 1)
    styles = [*named_styles, *(style for _, style in pairs)]
    return list(pictures), styles, [*([None] * len(named_styles)), *(mask for mask, _ in pairs)]


def _expand(contents: Sequence[str]) -> tuple[list[str], bool]:
    """Every content, of folders their pictures by name; and whether there may be several."""
    found: list[str] = []
    for name in contents:
        if not Path(name).is_dir():
            found.append(name)
            continue
        inside = sorted(str(path) for path in Path(name).iterdir() if files.is_picture(path))
        if not inside:
            raise click.UsageError(f"there is no picture in '{name}'")
        found += inside
    return found, len(contents) > 1 or found != list(contents)


def _folder(output: str | None) -> Path:
    if output is None:
        raise click.UsageError("several contents need -o DIR, the folder that they are painted into")
    if Path(output).is_file() or Path(output).suffix.lower() in files.picture_endings():
        raise click.UsageError(f"several contents are painted into a folder, and '{output}' is a file")
    return Path(output)


def _weights(mix: str | None, styles: int) -> list[float] | None:
    if mix is None:
        return None
    try:
        return [float(part) for part in mix.split(",")]
    except ValueError:
        raise click.UsageError(f"--mix {mix} is no list of {styles} numbers, such as 2,1") from None
