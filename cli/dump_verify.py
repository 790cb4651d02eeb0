"""`vggfeat dump-verify`: check the files of a dump, and some of its rows against what is computed anew."""

import click

from ._progress import tell


@click.command()
@click.argument("dump", type=click.Path())
@click.option("--rows", type=click.IntRange(0), default=16, show_default=True, help="Random pictures to compute anew.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of their choice.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 or mps.")
def command(dump: str, *, rows: int, seed: int, device: str) -> None:
    """Check every file of DUMP against its hash, and random pictures against what is computed anew.

    Exit codes: 0 all is well; 1 something is wrong; 2 it could not be checked.
    """
    from vggfeat.dumps.verify import Verifying

    checks = list(Verifying(dump, rows=rows, seed=seed, device=device))
    wrong = [check for check in checks if check.error]
    for check in wrong:
        tell(f"wrong: '{check.what}': {check.error}")
    pictures = [check for check in checks if check.picture]
    worst = max((check.difference for check in pictures), default=0.0)
    click.echo(f"{len(checks) - len(pictures)} files, {len(pictures)} pictures computed anew, {len(wrong)} wrong")
    if pictures:
        click.echo(f"largest difference: {worst:.2g} of an array's greatest value")
    if wrong:
        raise click.exceptions.Exit(1)
