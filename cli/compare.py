"""`vggfeat compare`: how far two pictures, or the pictures of two folders, are apart."""

import os
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from vggfeat.errors import InputError
from vggfeat.pairs.measure import DEFAULT_METRICS, METRICS
from vggfeat.pairs.result import Comparison
from vggfeat.pairs.run import Comparing
from vggfeat.pictures.sizes import parse_size

from ._comparison import print_comparison, report_missing
from ._files import check_text_file, write_text_file
from ._progress import tell, uninterrupted
from ._text import printable

_SOME_FAILED = 3
_INTERRUPTED = 130


def _parse_resize(_context: click.Context, _option: click.Parameter, text: str | None) -> int | tuple[int, int] | None:
    if text is None:
        return None
    try:
        return parse_size(text)
    except InputError as error:
        raise click.BadParameter(str(error)) from error


@click.command()
@click.argument("a", type=click.Path())
@click.argument("b", type=click.Path())
@click.option(
    "--metric",
    default=",".join(DEFAULT_METRICS),
    show_default=True,
    metavar="NAME,...",
    help=f"Of {', '.join(METRICS)}.",
)
@click.option("--layers", is_flag=True, help="Also what each layer contributes to LPIPS and DISTS.")
@click.option(
    "--resize",
    callback=_parse_resize,
    metavar="N|WxH",
    help="Bring every picture to a shorter side of N pixels, or to WxH; changes the values.  [default: no]",
)
@click.option("--heatmap", type=click.Path(), metavar="DIR", help="Save where each pair differs, a PNG a pair.")
@click.option("--json", "json_file", type=click.Path(), metavar="FILE", help="Write all there is to know; - prints it.")
@click.option(
    "--csv", "csv_file", type=click.Path(), metavar="FILE", help="Write a row a pair, then the mean; - prints."
)
@click.option(
    "--batch-size",
    type=click.IntRange(1),
    default=8,
    show_default=True,
    help="Pairs of one size at once; fewer where they exceed 512x512.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 or mps.")
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16", "float16", "auto"]),
    default="float32",
    show_default=True,
    help="Of the networks; published numbers are float32's.",
)
@click.option("--quiet", is_flag=True, help="No progress.")
def command(
    a: str,
    b: str,
    *,
    metric: str,
    heatmap: str | None,
    json_file: str | None,
    csv_file: str | None,
    quiet: bool,
    **options: Any,  # noqa: ANN401 (those of vggfeat.compare)
) -> None:
    """Compare two pictures A and B, or two folders whose pictures are matched by name.

    psnr and ssim rise with likeness; the others fall, to 0 for equal pictures. Sub-folders are read, and endings may
    differ. Transparency is not read: the colours beneath it are compared. A pair that one of the metrics cannot take,
    such as one too small for it, fails as a whole. Exit codes: 0; 3 if some pairs could not be compared; 2 if nothing
    could begin; 130 after Ctrl-C, which keeps what was done.
    """
    run = Comparing(a, b, [name.strip() for name in metric.split(",") if name.strip()], heatmaps=heatmap, **options)
    wanted = {form: name for form, name in (("json", json_file), ("csv", csv_file)) if name is not None}
    _check_outputs(wanted, run)
    try:
        with _bar(len(run), quiet=quiet) as advance:
            for _ in run:
                advance()
    except KeyboardInterrupt:
        with uninterrupted():
            if run.done:
                _write(run.result(), wanted)
            tell(printable(f"interrupted after {run.done} of {len(run)} pairs{_whereabouts(run, wanted)}"))
        raise click.exceptions.Exit(_INTERRUPTED) from None
    result = run.result()
    _write(result, wanted)
    if result.failures:
        raise click.exceptions.Exit(_SOME_FAILED)


def _write(result: Comparison, wanted: Mapping[str, str]) -> None:
    texts: Mapping[str, Callable[[], str]] = {"json": result.as_json, "csv": result.as_csv}
    for form, name in wanted.items():
        if name == "-":
            click.echo(texts[form](), nl=False)
        else:
            write_text_file(Path(name), texts[form]())
    if "-" not in wanted.values():
        print_comparison(result)
    report_missing(result)


def _whereabouts(run: Comparing, wanted: Mapping[str, str]) -> str:
    files = " and ".join(f"'{name}'" for name in wanted.values() if name != "-")
    if not (run.done and files):
        return "" if run.done else ": nothing was written"
    return f": {files} {'hold' if ' and ' in files else 'holds'} them, marked as incomplete"


def _check_outputs(wanted: Mapping[str, str], run: Comparing) -> None:
    """Refuse outputs that replace a picture or each other, or cannot be written."""
    heatmaps = {os.path.realpath(path) for path in run.heatmaps.values()}
    rooms = {os.path.realpath(room) for room in {room for path in run.heatmaps.values() for room in path.parents}}
    for name in wanted.values():
        if name == "-":
            continue
        if not name:
            raise click.UsageError("an output has an empty name: - prints")
        if os.path.realpath(name) in heatmaps:
            raise click.UsageError(f"the output '{name}' is one of the heat maps")
        check_text_file(Path(name), rooms)
        if run.reads(name):
            raise click.UsageError(f"the output '{name}' is one of the inputs")
    if len({name if name == "-" else os.path.realpath(name) for name in wanted.values()}) < len(wanted):
        raise click.UsageError(f"--json and --csv cannot both go to '{wanted['csv']}'")


@contextmanager
def _bar(total: int, *, quiet: bool) -> Generator[Callable[[], None]]:
    """A bar on a terminal, on standard error; calling what it gives moves it on by one."""
    if quiet or not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("comparing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=total)
        yield lambda: bar.advance(task)
