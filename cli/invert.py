"""`vggfeat invert`: what a layer still knows of a picture."""

from pathlib import Path
from typing import Any

import click

from ._painting import How, Job, paint, run_options
from ._recipes import chosen_recipe, recipe_files, recipe_options


@click.command()
@click.argument("image", type=click.Path())
@click.option(
    "-l", "--layer", metavar="NAME", help="The layer that is asked; NAME:WEIGHT,... several.  [default: relu4_2]"
)
@click.option("-o", "--output", type=click.Path(), help="PNG, JPEG, WebP or TIFF.  [default: IMAGE-invert.png]")
@run_options()
@recipe_options(
    "invert",
    ("size", "tv_weight", "network", "weights", "pooling", "steps", "first_size", "growth", "margin", "start", "seed"),
)
def command(
    image: str,
    *,
    layer: str | None,
    output: str | None,
    **options: Any,  # noqa: ANN401 (the run's, and the recipe's fields)
) -> None:
    """Paint what a layer still knows of IMAGE: a picture, begun from noise, that the layer takes for it.

    Ctrl-C saves the picture as it stands.
    """
    from vggfeat.pictures import images
    from vggfeat.transfer.beyond import invert
    from vggfeat.transfer.record import record

    how = How.taken(options)
    chosen = chosen_recipe("invert", {**options, "content_layers": layer}, how.resume)
    job = Job(output, f"{Path(image).stem}-invert.png", [("content", image), *recipe_files(chosen)], how)
    picture = images.read_picture(image)
    run = invert(images.flatten(picture), None, chosen, resume=how.resume, **how.arguments())
    paint(job, run, text=record(chosen, job.read).text(), facts={"recipe": chosen.as_dict()}, like=picture)
