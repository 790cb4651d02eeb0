"""`vggfeat visualize`: paint from noise what a channel responds to."""

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
from ._text import escaped


@click.command()
@click.option("-l", "--layer", required=True, metavar="NAME", help="The layer, such as relu4_3.")
@click.option("--channel", type=click.IntRange(0), metavar="N", help="The channel to activate, counted from 0.")
@click.option(
    "--direction", type=click.Path(), metavar="FILE", help="Instead: a direction, .npy of one number a channel."
)
@click.option("--neuron", is_flag=True, help="Activate only the position in the middle.")
@output_option("LAYER-CHANNEL.png")
@click.option("--dump", type=click.Path(), help="Compare with the strongest picture of a dump made with --statistics.")
@click.option("--count", type=int, default=1, metavar="N", help="Number of pictures, painted side by side.")
@click.option("--diversity", type=float, default=1.0, help="How strongly several pictures are made to differ.")
@size_option(224, "Side of a picture.")
@click.option("--steps", type=int, default=256, help="Steps of the ascent.")
@network_option
@weights_option
@preprocessing_options(*ORDER_FLAGS)
@click.option("--seed", type=int, default=0, help="Seed of the noise and the random shifts.")
@run_options(without=("checkpoint", "checkpoint_every", "resume", "max_megapixels"))
def command(
    *,
    layer: str,
    channel: int | None,
    direction: str | None,
    output: str | None,
    dump: str | None,
    **options: Any,
) -> None:
    """Paint from noise what a channel, a neuron or a direction of a layer responds to most.

    With --dump, also say how its response compares with that of the dump's strongest picture. Ctrl-C saves the picture
    as it is.
    """
    from vggfeat.explore.patches import strongest
    from vggfeat.pictures import images
    from vggfeat.transfer.visualize import visualize

    if dump is not None and channel is None:
        raise click.UsageError("--dump needs --channel")
    run_with = RunOptions.pop_from(options)
    options["network"] = chosen_network(options)
    best = None if dump is None or channel is None else strongest(dump, layer, channel, network=options["network"])
    name = f"{layer}-{Path(direction).stem if direction else channel}.png"
    read = [(role, path) for role, path in (("direction", direction), ("weights", options["weights"])) if path]
    painting = PaintingFiles(output, name, read, run_with)
    images.check_writable(painting.output, size=(options["size"], options["size"] * options["count"]))
    options["direction"] = None if direction is None else _read(direction)
    run = visualize(layer, channel=channel, **options, **run_with.arguments())

    def response() -> dict[str, object]:
        found: dict[str, object] = {"response": max(run.responses())}
        return found if best is None else {**found, "strongest": best[0], "of": best[1]}

    paint(painting, run, text={}, facts=response)
    if run_with.quiet or run_with.as_json:
        return
    largest = max(run.responses())
    if best is None:
        click.echo(f"largest response {largest:.4g}")
    else:
        value, picture = best
        times = f", {largest / value:.3g} times" if value > 0 else ", and"
        click.echo(f"largest response {largest:.4g}{times} that of '{escaped(picture)}', {value:.4g}")


def _read(path: str) -> Any:
    import numpy as np

    from vggfeat import files
    from vggfeat.errors import InputError

    try:
        return np.load(path, allow_pickle=False)
    except OSError as error:
        raise InputError(f"cannot read '{path}': {files.reason(error)}") from error
    except (ValueError, EOFError) as error:
        raise InputError(f"cannot read '{path}': it is not an array of numbers (.npy)") from error
