"""`vggfeat dump`: the activations of many pictures, as arrays on disk."""

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import click

from vggfeat.dumps.recipe import REDUCTIONS, Resize, parse_resize
from vggfeat.errors import RecipeError
from vggfeat.networks import arch

from ._networks import chosen_network, network_option
from ._progress import tell, terminable
from ._sizes import bytes_text, seconds_text

if TYPE_CHECKING:
    from vggfeat.dumps.estimate import Estimate
    from vggfeat.dumps.reading import Dump
    from vggfeat.dumps.run import Dumping, DumpProgress

_SOME_FAILED = 3
_ASK_ABOVE = 10 * 10**9
_SHOWN_FAILURES = 10


def _parse_resize(_context: click.Context, _option: click.Parameter, text: str) -> Resize:
    try:
        return parse_resize(text)
    except RecipeError as error:
        raise click.BadParameter(str(error)) from error


def _parse_crop(_context: click.Context, _option: click.Parameter, text: str) -> int | Literal["auto"] | None:
    if text in ("auto", "none"):
        return "auto" if text == "auto" else None
    if not text.isdecimal():
        raise click.BadParameter(f"'{text}' is neither a number of pixels, auto nor none")
    return int(text)


def _parse_batch(_context: click.Context, _option: click.Parameter, text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdecimal():
        raise click.BadParameter(f"'{text}' is neither a whole number nor auto")
    return int(text)


@click.command()
@click.argument("source", nargs=-1, required=True, type=click.Path())
@click.option("-o", "--output", required=True, type=click.Path(), help="Folder of the dump; what is begun goes on.")
@network_option
@click.option("--layers", required=True, metavar="NAME,...", help="Names, features indices or globs.")
@click.option(
    "--reduce",
    default="full",
    show_default=True,
    metavar="WORD,...",
    help=f"Of {', '.join(REDUCTIONS)}; LAYER:WORD is for some layers alone.",
)
@click.option("--weights", default="default", show_default=True, help="A name, a file, or random.")
@click.option("--pooling", type=click.Choice(["max", "avg", "l2"]), default="max", show_default=True)
@click.option("--resize", default="224", show_default=True, callback=_parse_resize, metavar="N|WxH|none",
              help="Short side, or size; antialiased.")  # fmt: skip
@click.option("--crop", default="auto", show_default=True, callback=_parse_crop, metavar="N|auto|none",
              help="Square from the middle; auto is the short side that --resize names.")  # fmt: skip
@click.option("--dtype", type=click.Choice(["float32", "float16"]), default="float32", show_default=True,
              help="Of what is stored; float16 clips what is beyond its range, and counts it.")  # fmt: skip
@click.option("--precision", type=click.Choice(["float32", "bfloat16", "float16", "auto"]), default="float32",
              show_default=True, help="Of the network; auto takes bfloat16 where it is fast.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Of projections and random weights.")
@click.option("--statistics", is_flag=True, help="Measure each channel; see `vggfeat dump-stats`.")
@click.option("--cka", is_flag=True, help="Keep what linear CKA between the layers needs.")
@click.option(
    "--rdm", type=click.IntRange(0), default=0, metavar="N", help="Keep what RDMs of the first N pictures need."
)
@click.option("--batch-size", default="auto", show_default=True, callback=_parse_batch, metavar="N|auto")
@click.option("--shard-size", type=click.IntRange(1), help="Pictures of a shard, which a kill costs.  [default: auto]")
@click.option("--workers", type=click.IntRange(0), help="Processes that decode.  [default: by cores and device]")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 or mps.")
@click.option("--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True,
              help="ray: on the cluster of RAY_ADDRESS; extra `ray`.")  # fmt: skip
@click.option("--manifest", type=click.Choice(["csv", "parquet"]), default="csv", show_default=True)
@click.option("--retry-failed", is_flag=True, help="Do again the shards whose bad pictures have changed.")
@click.option("--dry-run", is_flag=True, help="Say what it will take, from a few timed batches.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask above 10 GB.")
@click.option("--quiet", is_flag=True, help="No progress.")
def command(
    source: tuple[str, ...],
    *,
    output: str,
    weights: str,
    dry_run: bool,
    yes: bool,
    quiet: bool,
    **options: Any,  # noqa: ANN401 (those of vggfeat.dump)
) -> None:
    """Write the activations of SOURCE into a folder: .npy files, and a manifest with a row for every picture.

    SOURCE: pictures, folders (sub-folders too), lists of paths (.txt, .csv, .tsv, .parquet) and .tar files. A run that
    was killed goes on when the same command is given again. Exit codes: 0; 3 if it is complete but some pictures are
    bad; 2 if it could not be done.
    """
    options["network"] = chosen_network(options["network"], weights)
    arch.find_layers(options["network"], options["layers"], pooling=options["pooling"])  # before torch is loaded
    from vggfeat.dumps.run import Dumping

    run = Dumping(source, output, weights=None if weights == "random" else weights, **options)
    if dry_run:
        _print_estimate(run.estimate())
        return
    size = run.bytes_left()
    if size > _ASK_ABOVE and not yes:
        if not sys.stdin.isatty():
            raise click.UsageError(f"'{output}' would take about {bytes_text(size)}: pass --yes to go on")
        click.confirm(f"'{output}' will take about {bytes_text(size)}. Go on?", abort=True, err=True)
    with terminable("interrupted: the finished shards are kept, the same command goes on"):
        _watch(run, quiet=quiet)
        found = run.result()
        for note in run.notes:
            tell(note)
        _report(found, quiet=quiet)


def _print_estimate(estimate: "Estimate") -> None:
    click.echo(f"pictures    {estimate.left} of {estimate.pictures}")
    click.echo(f"disk        {bytes_text(estimate.bytes)}")
    click.echo(f"work        {estimate.macs / 1e9:.1f} GMAC")
    click.echo(f"time        about {seconds_text(estimate.seconds)}")


def _report(dump: "Dump", *, quiet: bool) -> None:
    for row in dump.failed[:_SHOWN_FAILURES]:
        tell(f"failed: '{row.id}': {row.error}")
    if len(dump.failed) > _SHOWN_FAILURES:
        tell(f"failed: {len(dump.failed) - _SHOWN_FAILURES} more, which the manifest lists")
    for name, count in dump.clipped().items():
        tell(f"clipped to float16's range: {count} values of {name}")
    for name, count in dump.not_finite().items():
        tell(f"infinite or no number: {count} values of {name}; --precision float32 avoids that")
    if not quiet:
        click.echo(f"{dump.path}: {len(dump)} of {len(dump.manifest)} pictures")
    if dump.failed:
        raise click.exceptions.Exit(_SOME_FAILED)


def _watch(run: "Dumping", *, quiet: bool) -> None:
    with _bar(quiet=quiet) as show:
        for progress in run:
            show(progress)


@contextmanager
def _bar(*, quiet: bool) -> Generator[Callable[["DumpProgress"], None]]:
    """A bar on a terminal, on standard error."""
    if quiet or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("dumping", total=None)

        def show(progress: "DumpProgress") -> None:
            bad = f", {progress.failed} bad" if progress.failed else ""
            bar.update(task, completed=progress.done, total=progress.pictures, description=f"dumping{bad}")

        yield show
