"""`vggfeat compare`: measure how much pictures differ."""

import os
from pathlib import Path
from typing import Any

import click

from vggfeat.pairs.clips import CLIP_METRICS, DEFAULT_CLIP_METRICS, ComparingClips
from vggfeat.pairs.measure import DEFAULT_METRICS, METRICS
from vggfeat.pairs.run import Comparing
from vggfeat.pictures.sizes import parse_size
from vggfeat.pictures.video.names import is_video

from ._comparison import print_comparison, report_missing
from ._options import (
    SOME_FAILED,
    csv_option,
    device_option,
    flow_option,
    json_option,
    megapixels_option,
    parsed,
    precision_option,
    quiet_option,
    refuse_unless,
    refuse_with,
    words,
)
from ._outputs import check_text_outputs, write_texts
from ._progress import bar, tell
from ._signals import saving, uninterrupted


@click.command()
@click.argument("a", type=click.Path())
@click.argument("b", type=click.Path())
@click.option(
    "--metric",
    "metrics",
    metavar="NAME,...",
    callback=parsed(words),
    help=f"Any of {', '.join(METRICS)}.  [default: {','.join(DEFAULT_METRICS)}]",
)
@click.option(
    "--video",
    is_flag=True,
    help="A is a painted clip, B its original: measure how steady A is. --metric is then any of "
    f"{', '.join(CLIP_METRICS)}.  [default: {','.join(DEFAULT_CLIP_METRICS)}]",
)
@flow_option
@click.option("--layers", is_flag=True, help="Also print each layer's contribution to metrics that add up layers.")
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
@megapixels_option
@device_option
@precision_option(help_text="Precision of the networks; published values are for float32.")
@quiet_option
def command(
    a: str,
    b: str,
    *,
    metrics: list[str] | None,
    video: bool,
    flow: str,
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

    With --video, A and B are clips: video files (extra `video`), animated pictures, or folders of frames. Each frame of
    A is compared with the frame before, and (as NAME-long) with the first, warped by the optical flow of B. Lower is
    steadier. Pixels that are hidden in one of the two frames are ignored.
    """
    run = _clips(a, b, metrics, flow, options) if video else _pictures(a, b, metrics, options)
    texts = {option: name for option, name in (("--json", json_file), ("--csv", csv_file)) if name is not None}
    heatmaps = [("a heat map", path) for path in run.heatmaps.values()] if isinstance(run, Comparing) else []
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


def _pictures(a: str, b: str, metrics: list[str] | None, options: dict[str, Any]) -> Comparing:
    refuse_unless("--video", ("flow",))
    clips = [name for name in (a, b) if is_video(name)]
    if clips:
        raise click.UsageError(f"'{clips[0]}' is a clip: add --video")
    return Comparing(a, b, DEFAULT_METRICS if metrics is None else metrics, **options)


def _clips(a: str, b: str, metrics: list[str] | None, flow: str, options: dict[str, Any]) -> ComparingClips:
    refuse_with("--video", ("layers", "resize", "heatmaps", "batch_size"))
    chosen = DEFAULT_CLIP_METRICS if metrics is None else metrics
    return ComparingClips(Path(a), Path(b), chosen, flow=flow, device=options["device"], precision=options["precision"])
