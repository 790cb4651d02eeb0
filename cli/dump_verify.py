"""`vggfeat dump-verify`: check the files of a dump, and recompute some of its activations."""

import click

from ._options import device_option
from ._progress import tell
from ._text import printable


@click.command()
@click.argument("dump", type=click.Path())
@click.option("--rows", type=click.IntRange(0), default=16, help="Random pictures to recompute.")
@click.option("--seed", type=int, default=0, help="Seed of their choice.")
@device_option
def command(dump: str, *, rows: int, seed: int, device: str) -> None:
    """Check every file of DUMP against its hash, and recompute the activations of random pictures.

    Exit codes: 0 correct; 1 something is wrong; 2 it could not be checked.
    """
    from vggfeat.dumps.verify import Verifying

    checks = list(Verifying(dump, rows=rows, seed=seed, device=device))
    wrong = [check for check in checks if check.error]
    for check in wrong:
        tell(printable(f"wrong: '{check.what}': {check.error}"))
    pictures = [check for check in checks if check.picture]
    worst = max((check.difference for check in pictures), default=0.0)
    click.echo(f"{len(checks) - len(pictures)} files, {len(pictures)} pictures recomputed, {len(wrong)} wrong")
    if pictures:
        click.echo(f"largest difference: {worst:.2g} of an array's largest value")
    if wrong:
        raise click.exceptions.Exit(1)
