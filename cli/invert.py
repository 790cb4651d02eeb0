"""`vggfeat invert`: reconstruct a picture from the activations of a layer."""

from pathlib import Path
from typing import Any

import click

from ._options import output_option
from ._painting import PaintingFiles, RunOptions, paint, run_options
from ._recipes import chosen_recipe, files_read, recipe_files, recipe_options


@click.command()
@click.argument("image", type=click.Path())
@click.option("-l", "--layer", metavar="NAME", help="A layer, or several as NAME:WEIGHT,....  [default: relu4_2]")
@output_option("IMAGE-invert.png")
@run_options()
@recipe_options(
    "invert",
    (
        *("size", "enlarge", "tv_weight", "network", "weights", "mean", "std", "input_order", "pooling"),
        *("steps", "first_size", "growth", "margin", "start", "seed"),
    ),
)
def command(
    image: str,
    *,
    layer: str | None,
    output: str | None,
    **options: Any,
) -> None:
    """Reconstruct IMAGE from the activations of a layer, starting from noise.

    Ctrl-C saves the picture as it is.
    """
    from vggfeat.pictures import images
    from vggfeat.transfer.beyond import invert
    from vggfeat.transfer.record import record

    run_with = RunOptions.pop_from(options)
    chosen = chosen_recipe("invert", {**options, "content_layers": layer}, run_with.resume)
    inputs = [("content", image), *recipe_files(chosen)]
    default = f"{Path(image).stem}-invert.png"
    painting = PaintingFiles(output, default, inputs, run_with, read=files_read(chosen, options))
    picture = images.read_picture(image)
    run = invert(images.flatten(picture), None, chosen, resume=run_with.resume, **run_with.arguments())
    text = record(chosen, painting.inputs).text()
    paint(painting, run, text=text, facts=lambda: {"recipe": chosen.as_dict()}, like=picture)
