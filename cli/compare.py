"""`vggfeat compare`: measure how much pictures differ."""

import os
from typing import Any

import click

from vggfeat.pairs.measure import DEFAULT_METRICS, METRICS
from vggfeat.pairs.run import Comparing
from vggfeat.pictures.sizes import parse_size

from ._comparison import print_comparison, report_missing
from ._options import SOME_FAILED, csv_option, device_option, json_option, parsed, precision_option, quiet_option, words
from ._outputs import check_text_outputs, write_texts
from ._progress import bar, tell
from ._signals import saving, uninterrupted


@click.command()
@click.argument("a", type=click.Path())
@click.argument("b", type=click.Path())
@click.option(
    "--metric",
    "metrics",
    default=",".join(DEFAULT_METRICS),
    metavar="NAME,...",
    callback=parsed(words),
    help=f"Any of {', '.join(METRICS)}.",
)
@click.option("--layers", is_flag=True, help="Also print each layer's contribution to LPIPS and DISTS.")
@click.option(
    "--resize",
    callback=parsed(parse_size),
    metavar="N|WxH",
    help="Resize every picture to a shorter side of N pixels, or to WxH; changes the values.  [default: no]",
)
@click.option(
    "--heatmap", "heatmaps", type=click.Path(), metavar="DIR", help="Save a heat map of each pair's differences."
)
@json_option
@csv_option
@click.option(
    "--batch-size", type=click.IntRange(1), default=8, help="Pairs of one size to compare at once; fewer above 512x512."
)
@device_option
@precision_option(help_text="Precision of the networks; published values are for float32.")
@quiet_option
def command(
    a: str,
    b: str,
    *,
    json_file: str | None,
    csv_file: str | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Compare pictures A and B, or two folders whose pictures are paired by name.

    psnr and ssim are higher for more similar pictures; the other metrics are lower, and 0 for equal pictures.
    Sub-folders are included, and endings may differ. Transparency is ignored. A pair fails if one of the metrics cannot
    be computed, for example because it is too small. Exit codes: 0 success; 3 some pairs failed; 2 nothing was done;
    130 after Ctrl-C, which saves the results so far.
    """
    run = Comparing(a, b, **options)
    texts = {option: name for option, name in (("--json", json_file), ("--csv", csv_file)) if name is not None}
    heatmaps = [("a heat map", path) for path in run.heatmaps.values()]
    made = {os.path.realpath(folder) for _, path in heatmaps for folder in path.parents}
    check_text_outputs(texts, heatmaps, run.pictures, made)

    def save() -> bool:
        result = run.result()
        if write_texts(texts, {"--json": result.as_json, "--csv": result.as_csv}):
            print_comparison(result)
        report_missing(result)
        return bool(result.failures)

    def save_interrupted() -> bool:
        if run.done:
            save()
            files = " and ".join(f"'{name}'" for name in texts.values() if name != "-")
            saved = f", saved in {files} and marked as incomplete" if files else ""
            tell(f"interrupted after {run.done} of {len(run)} pairs{saved}")
        return bool(run.done)

    with saving(save_interrupted), bar("comparing", quiet=quiet, total=len(run)) as update:
        for _ in run:
            update(completed=run.done)
    with uninterrupted():
        failed = save()
    if failed:
        raise click.exceptions.Exit(SOME_FAILED)
