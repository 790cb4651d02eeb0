"""`vggfeat weights`: list the available weights, or verify their files."""

import click

from vggfeat.errors import WeightsError
from vggfeat.networks import weights

from ._text import print_table


@click.command()
@click.argument("action", type=click.Choice(["list", "verify"]), default="list")
def command(action: str) -> None:
    """List the known weights, or verify the files that are on this machine.

    Verification checks the hash of each file and the fingerprint of each layer.
    """
    if action == "verify":
        damaged: list[str] = []
        for row in weights.TABLE:
            if row.status == "to be downloaded":
                continue
            try:
                weights.verify(row)
            except WeightsError as error:
                damaged.append(str(error))
            else:
                click.echo(f"{row}: {row.status}, intact")
        if damaged:
            raise WeightsError("; ".join(damaged))
        return
    print_table(
        ["network", "weights", "status", "MB", "licence", "mean", "std", "source"],
        [
            [
                *(row.network, row.name, row.status, f"{row.size / 1e6:.0f}", row.licence),
                *(" ".join(f"{value:.5f}" for value in triple) for triple in (row.mean, row.std)),
                row.source,
            ]
            for row in weights.TABLE
        ],
    )
