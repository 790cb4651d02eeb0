"""`vggfeat dump-verify`: check the files of a dump, and recompute some of its activations."""

import click

from ._options import device_option
from ._progress import tell
from ._text import escaped


@click.command()
@click.argument("dump", type=click.Path())
@click.option("--rows", type=click.IntRange(0), default=16, help="Number of random pictures to recompute.")
@click.option("--seed", type=int, default=0, help="Seed for choosing the pictures.")
@device_option
def command(dump: str, *, rows: int, seed: int, device: str) -> None:
    """Check every file of DUMP against its hash, and recompute the activations of random pictures.

    Exit codes: 0 correct; 1 something is wrong, or a picture is missing or has changed; 2 DUMP cannot be opened.
    """
    from vggfeat.dumps.verify import Verifying

    checks = list(Verifying(dump, rows=rows, seed=seed, device=device))
    unchecked = [check for check in checks if check.unchecked]
    wrong = [check for check in checks if check.error and not check.unchecked]
    for word, found in (("wrong", wrong), ("not checked", unchecked)):
        for check in found:
            tell(escaped(f"{word}: '{check.what}': {check.error}"))
    pictures = [check for check in checks if check.picture and not check.unchecked]
    files = sum(not check.picture for check in checks)
    more = f", {len(unchecked)} could not be checked" if unchecked else ""
    click.echo(f"{files} files, {len(pictures)} pictures recomputed, {len(wrong)} wrong{more}")
    if pictures:
        worst = max(check.difference for check in pictures)
        click.echo(f"largest difference: {worst:.2g} times the array's largest value")
    if wrong or unchecked:
        raise click.exceptions.Exit(1)
