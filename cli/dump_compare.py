"""`vggfeat dump-compare`: compare two dumps as sets of pictures."""

import json
from typing import Any

import click

from ._options import array_option, parsed, result_option, words
from ._progress import tell
from ._signals import exiting
from ._text import interval_text, print_table


@click.command()
@click.argument("reference", type=click.Path())
@click.argument("dump", type=click.Path())
@array_option
@click.option(
    "--measures",
    default="frechet,kid,coverage",
    callback=parsed(words),
    metavar="NAME,...",
    help="frechet, kid, coverage (precision, recall, density, coverage).",
)
@click.option("--k", type=int, default=5, help="For coverage: balls reach to the K-th nearest neighbour.")
@click.option("--subsets", type=int, default=100, help="For kid: number of random subsets.")
@click.option("--subset-size", type=int, help="For kid: pictures of a subset.  [default: 1000, or half of a dump]")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=2020, help="Seed of the random subsets.")
@result_option
def command(reference: str, dump: str, *, array: str | None, as_json: bool, **options: Any) -> None:
    """Measure how far the pictures of DUMP, such as generated ones, are from those of REFERENCE.

    Both dumps need the same network, weights and array. Each number has a 95 % confidence interval. The Fréchet
    distance of these features is not the FID, which is of Inception features.
    """
    from vggfeat.dumps.reading import open_dump

    with exiting("interrupted"):
        found = open_dump(reference).compare(open_dump(dump), array, **options)
    for note in found.notes:
        tell(f"note: {note}")
    if as_json:
        click.echo(json.dumps(found.as_dict()))
        return
    rows = [[name, f"{one.value:.6g}", interval_text(one.ends, ".6g")] for name, one in found.measures().items()]
    print_table([f"{found.array}, {found.counts[0]} and {found.counts[1]} pictures", "value", "95 % interval"], rows)
