"""`vggfeat visualize`: paint from noise what a channel responds to."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._options import (
    chosen_network,
    device_option,
    network_option,
    output_option,
    precision_option,
    quiet_option,
    size_option,
    weights_option,
)
from ._outputs import picture_output, save_picture
from ._progress import report, tell
from ._signals import saving, uninterrupted
from ._text import escaped

if TYPE_CHECKING:
    from vggfeat.transfer.visualize import Visualization


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
@click.option("--seed", type=int, default=0, help="Seed of the noise and the random shifts.")
@device_option
@precision_option()
@quiet_option
def command(
    *,
    layer: str,
    channel: int | None,
    direction: str | None,
    output: str | None,
    dump: str | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Paint from noise what a channel, a neuron or a direction of a layer responds to most.

    With --dump, also say how its response compares with that of the dump's strongest picture. Ctrl-C saves the picture
    as it is.
    """
    from vggfeat.explore.patches import strongest
    from vggfeat.transfer.visualize import visualize

    if dump is not None and channel is None:
        raise click.UsageError("--dump needs --channel")
    options["network"] = chosen_network(options)
    best = None if dump is None or channel is None else strongest(dump, layer, channel, network=options["network"])
    name = f"{layer}-{Path(direction).stem if direction else channel}.png"
    read = [path for path in (direction, options["weights"]) if path]
    size = options["size"], options["size"] * options["count"]
    target = picture_output(output, name, read, size=size)
    run = visualize(layer, channel=channel, direction=None if direction is None else _read(direction), **options)

    def save() -> bool:
        save_picture(target, _side_by_side(run))
        return True

    def save_interrupted() -> bool:
        tell(f"interrupted: saving '{target}' as it is")
        return save()

    with saving(save_interrupted):
        for _ in report(run, quiet=quiet):
            pass
    with uninterrupted():
        save()
    click.echo(str(target))
    response = max(run.responses())
    if best is None:
        click.echo(f"largest response {response:.4g}")
    else:
        value, picture = best
        times = f", {response / value:.3g} times" if value > 0 else ", and"
        click.echo(f"largest response {response:.4g}{times} that of '{escaped(picture)}', {value:.4g}")


def _side_by_side(run: "Visualization") -> Any:
    """The pictures in one row, (1, 3, size, count * size)."""
    import torch

    return torch.cat([*run.image.cpu().split(1)], dim=3)


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
