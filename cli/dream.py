"""`vggfeat dream`: amplify what a layer responds to (DeepDream)."""

from pathlib import Path
from typing import Any

import click

from ._batch import Dreaming, expand, paint_all, target_folder
from ._options import (
    ORDER_FLAGS,
    chosen_network,
    network_option,
    output_option,
    preprocessing_options,
    size_option,
    weights_option,
)
from ._painting import RunOptions, run_options


@click.command()
@click.argument("pictures", nargs=-1, required=True, type=click.Path(), metavar="IMAGE...")
@click.option(
    "-l",
    "--layer",
    default="relu4_3",
    metavar="NAME[:CHANNEL]",
    help="The layer, or one of its channels, whose activation is increased.",
)
@click.option("--guide", type=click.Path(), help="Draw the layer towards the features of this picture.")
@output_option("IMAGE-dream.png", "PNG, JPEG, WebP or TIFF; a folder for several pictures.")
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
    pictures: tuple[str, ...],
    *,
    output: str | None,
    **options: Any,
) -> None:
    """Change IMAGE so that a layer responds more strongly.

    Deep layers bring out objects, shallow layers patterns. IMAGE may be a folder, or several pictures; -o is then a
    folder, and pictures that are already in it are skipped. Ctrl-C saves the picture as it is.
    """
    run_with = RunOptions.pop_from(options)
    found, many = expand(pictures, quiet=run_with.quiet)
    if many and (run_with.plot or run_with.save_every):
        raise click.UsageError("--plot and --save-every are for a single picture")
    options["network"] = chosen_network(options)
    painter = Dreaming(options=run_with, arguments=options)
    if many:
        paint_all(painter, found, target_folder(output, pictures))
    else:
        painter.paint(pictures[0], output, f"{Path(pictures[0]).stem}-dream.png")
