"""`vggfeat dream`: a picture in which a layer sees more of what it looks for."""

from pathlib import Path
from typing import Any

import click

from ._networks import chosen_network, network_option
from ._painting import How, Job, paint, run_options


@click.command()
@click.argument("image", type=click.Path())
@click.option(
    "-l",
    "--layer",
    default="relu4_3",
    show_default=True,
    metavar="NAME[:CHANNEL]",
    help="What is to see more: a layer, or one of its channels.",
)
@click.option("-o", "--output", type=click.Path(), help="PNG, JPEG, WebP or TIFF.  [default: IMAGE-dream.png]")
@click.option(
    "--size",
    type=click.IntRange(1),
    default=512,
    show_default=True,
    help="Long side of the result; a smaller picture stays small.",
)
@click.option("--octaves", type=int, default=4, show_default=True, help="How many sizes, from small to large.")
@click.option("--octave-scale", type=float, default=1.4, show_default=True, help="Factor from one size to the next.")
@click.option("--steps", type=int, default=20, show_default=True, help="At each size.")
@click.option("--rate", type=float, default=0.007, show_default=True, help="Mean change of a value in a step.")
@click.option("--jitter", type=int, default=16, show_default=True, help="Pixels by which each step is shifted at most.")
@network_option
@click.option("--weights", default="default", show_default=True, help="A name of `vggfeat weights`, or a file.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the shifts.")
@run_options(without=("checkpoint", "checkpoint_every", "resume"))
def command(
    image: str,
    *,
    output: str | None,
    **options: Any,  # noqa: ANN401 (the run's, and those of vggfeat.dream)
) -> None:
    """Change IMAGE so that a layer sees more of what it looks for.

    Deep layers dream of things, shallow ones of patterns. Ctrl-C saves the picture as it stands.
    """
    from vggfeat.pictures import images
    from vggfeat.transfer.dreams import dream
    from vggfeat.transfer.record import dream_text

    how = How.taken(options)
    options["network"] = chosen_network(options["network"], options["weights"])
    job = Job(output, f"{Path(image).stem}-dream.png", [("content", image), ("weights", options["weights"])], how)
    picture = images.read_picture(image)
    run = dream(images.flatten(picture), **options, **how.arguments())
    paint(job, run, text=dream_text(image, options), facts=options, like=picture)
