"""`vggfeat texture`: synthesise a texture of any size from a picture."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from vggfeat.pictures.sizes import parse_size

from ._options import output_option, parsed
from ._painting import PaintingFiles, RunOptions, paint, run_options
from ._recipes import chosen_recipe, files_read, recipe_files, recipe_options


@click.command()
@click.argument("style", type=click.Path())
@click.option(
    "--size",
    callback=parsed(parse_size),
    metavar="WxH",
    help="Width and height in pixels; one number for a square.  [default: 512x512]",
)
@click.option("--seamless", is_flag=True, help="Make a tile: opposite edges match.")
@output_option("STYLE-texture.png")
@run_options()
@recipe_options(
    "texture",
    (
        *("style_scale", "objective", "style_layers", "network", "weights", "mean", "std", "input_order"),
        *("pooling", "steps", "first_size", "growth", "margin", "start", "seed"),
    ),
)
def command(
    style: str,
    *,
    size: int | tuple[int, int] | None,
    seamless: bool,
    output: str | None,
    **options: Any,
) -> None:
    """Synthesise more of the texture of STYLE, starting from noise.

    Details are as large as in STYLE; --style-scale 0.5 halves them. Ctrl-C saves the picture as it is.
    """
    from vggfeat.pictures import images
    from vggfeat.transfer import checkpoint
    from vggfeat.transfer.beyond import texture
    from vggfeat.transfer.record import record

    run_with = RunOptions.pop_from(options)
    chosen = chosen_recipe("texture", {**options, "edges": "wrap" if seamless else None}, run_with.resume)
    inputs = [("style", style), *recipe_files(chosen)]
    default = f"{Path(style).stem}-texture.png"
    painting = PaintingFiles(output, default, inputs, run_with, read=files_read(chosen, options))
    if size is None:
        facts = {"width": 512, "height": 512} if run_with.resume is None else checkpoint.load_facts(run_with.resume)
        size = facts["width"], facts["height"]
    picture = images.read_picture(style)
    run = texture(
        style,
        chosen,
        size=(size, size) if isinstance(size, int) else size,
        seamless=seamless,
        resume=run_with.resume,
        **run_with.arguments(),
    )
    paint(
        painting,
        run,
        text=record(chosen, painting.inputs).text(),
        facts=lambda: {"seamless": chosen.edges == "wrap", "recipe": chosen.as_dict()},
        like=replace(picture, alpha=None),  # a texture has no shape
    )
