"""`vggfeat texture`: more of a picture's texture, in any size."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from vggfeat.errors import InputError
from vggfeat.pictures.sizes import parse_size

from ._painting import How, Job, paint, run_options
from ._recipes import chosen_recipe, recipe_files, recipe_options


def _parse_size(_context: click.Context, _option: click.Parameter, text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    try:
        size = parse_size(text)
    except InputError as error:
        raise click.BadParameter(str(error)) from error
    return (size, size) if isinstance(size, int) else size


@click.command()
@click.argument("style", type=click.Path())
@click.option(
    "--size",
    callback=_parse_size,
    metavar="WxH",
    help="Width and height in pixels; one number is both.  [default: 512x512]",
)
@click.option(
    "--seamless", is_flag=True, help="The left edge meets the right, the top the bottom: copies tile a plane."
)
@click.option("-o", "--output", type=click.Path(), help="PNG, JPEG, WebP or TIFF.  [default: STYLE-texture.png]")
@run_options()
@recipe_options(
    "texture",
    (
        *("style_scale", "objective", "style_layers", "network", "weights", "pooling", "steps", "first_size", "growth"),
        *("margin", "start", "seed"),
    ),
)
def command(
    style: str,
    *,
    size: tuple[int, int] | None,
    seamless: bool,
    output: str | None,
    **options: Any,  # noqa: ANN401 (the run's, and the recipe's fields)
) -> None:
    """Make more of the texture of STYLE, from noise.

    Strokes are as large as in STYLE: --style-scale 0.5 makes them half as large. Ctrl-C saves the picture as it stands.
    """
    from vggfeat.pictures import images
    from vggfeat.transfer import checkpoint
    from vggfeat.transfer.beyond import texture
    from vggfeat.transfer.record import record

    how = How.taken(options)
    chosen = chosen_recipe("texture", {**options, "edges": "wrap" if seamless else None}, how.resume)
    job = Job(output, f"{Path(style).stem}-texture.png", [("style", style), *recipe_files(chosen)], how)
    if size is None:
        facts = {"width": 512, "height": 512} if how.resume is None else checkpoint.load_facts(how.resume)
        size = facts["width"], facts["height"]
    picture = images.read_picture(style)
    run = texture(images.flatten(picture), chosen, size=size, seamless=seamless, resume=how.resume, **how.arguments())
    paint(
        job,
        run,
        text=record(chosen, job.read).text(),
        facts={"seamless": chosen.edges == "wrap", "recipe": chosen.as_dict()},
        like=replace(picture, alpha=None),  # the style's shape is none of the texture's
    )
