"""`vggfeat layers`: the layer table of a network."""

import json
from dataclasses import asdict, fields

import click

from vggfeat import arch

from ._tables import print_table


@click.command()
@click.argument("network", default="vgg16")
@click.option(
    "--size",
    type=click.IntRange(1, 100_000),
    default=224,
    show_default=True,
    help="Side of the square image, in pixels.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list of objects.")
def command(network: str, size: int, as_json: bool) -> None:
    """Print the layers of NETWORK: names, indices, shapes, receptive fields, and cumulative costs."""
    rows = arch.sized_layers(network, size)
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], indent=1))
        return
    columns = [field.name.replace("_", " ") for field in fields(arch.SizedLayer)]
    print_table(columns, [[str(value) for value in asdict(row).values()] for row in rows])
