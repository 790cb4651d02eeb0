"""`vggfeat dream`: amplify what a layer responds to (DeepDream)."""

from pathlib import Path
from typing import Any

import click

from ._options import (
    ORDER_FLAGS,
    chosen_network,
    network_option,
    output_option,
    preprocessing_options,
    size_option,
    weights_option,
)
from ._painting import PaintingFiles, RunOptions, paint, run_options


@click.command()
@click.argument("image", type=click.Path())
@click.option(
    "-l",
    "--layer",
    default="relu4_3",
    metavar="NAME[:CHANNEL]",
    help="The layer, or one of its channels, whose activation is increased.",
)
@output_option("IMAGE-dream.png")
@size_option(512, "Long side of the result; smaller pictures are not enlarged.")
@click.option("--enlarge", is_flag=True, help="Enlarge a picture that is smaller than the size.")
@click.option("--octaves", type=int, default=4, help="Number of sizes, from small to large.")
@click.option("--octave-scale", type=float, default=1.4, help="Ratio of one size to the previous.")
@click.option("--steps", type=int, default=20, help="Steps at each size.")
@click.option("--rate", type=float, default=0.007, help="Mean change of a value per step.")
@click.option("--jitter", type=int, default=16, help="Largest random shift per step, in pixels.")
@network_option
@weights_option
@preprocessing_options(*ORDER_FLAGS)
@click.option("--seed", type=int, default=0, help="Seed of the shifts.")
@run_options(without=("checkpoint", "checkpoint_every", "resume"))
def command(
    image: str,
    *,
    output: str | None,
    **options: Any,
) -> None:
    """Change IMAGE so that a layer responds more strongly.

    Deep layers bring out objects, shallow layers patterns. Ctrl-C saves the picture as it is.
    """
    from vggfeat.pictures import images
    from vggfeat.transfer.dreams import dream
    from vggfeat.transfer.record import dream_text

    run_with = RunOptions.pop_from(options)
    options["network"] = chosen_network(options)
    inputs = [("content", image), ("weights", options["weights"])]
    painting = PaintingFiles(output, f"{Path(image).stem}-dream.png", inputs, run_with)
    picture = images.read_picture(image)
    run = dream(images.flatten(picture), **options, **run_with.arguments())
    paint(painting, run, text=dream_text(image, options), facts=options, like=picture)
