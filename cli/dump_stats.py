"""`vggfeat dump-stats`: print the statistics that were collected while a dump was made."""

import json
from pathlib import Path

import click

from ._dumps import print_statistics
from ._outputs import save_picture


@click.command()
@click.argument("dump", type=click.Path())
@click.option("--layer", metavar="NAME", help="Print the channels of this layer.  [default: all layers]")
@click.option("--unbiased", is_flag=True, help="Print unbiased CKA, for few pictures.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option("--plot", type=click.Path(), metavar="FILE", help="Also save charts: PNG, JPEG, WebP or TIFF.")
def command(dump: str, *, layer: str | None, unbiased: bool, as_json: bool, plot: str | None) -> None:
    """Print what `vggfeat dump --statistics`, `--cka` and `--rdm` measured.

    Without --layer: means over the channels of each layer, and the number of dead channels (always zero). With
    --layer: each channel, and the picture that activates it most.
    """
    from vggfeat.dumps.reading import open_dump
    from vggfeat.dumps.summary import summary
    from vggfeat.errors import one_of

    opened = open_dump(dump)
    if layer is not None:
        one_of("layer", layer, opened.layers, of="the dump")
    if plot is not None:
        from vggfeat.explore.pages.statistics import chart
        from vggfeat.pictures import images

        images.check_writable(plot)
        save_picture(Path(plot), images.from_pil(chart(opened, layer)).rgb)
    if as_json:
        click.echo(json.dumps(summary(opened), allow_nan=False))
    else:
        print_statistics(opened, layer, unbiased=unbiased)
