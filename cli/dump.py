"""`vggfeat dump`: write the activations of many pictures to disk as arrays."""

from typing import Any, get_args

import click

from vggfeat.dumps.recipe import REDUCTIONS, Dtype, parse_resize
from vggfeat.networks import arch
from vggfeat.pictures.sizes import Interpolation

from ._dumps import confirm_size, print_estimate, report_dump
from ._options import (
    ORDER_FLAGS,
    SOME_FAILED,
    chosen_network,
    device_option,
    network_option,
    parse_count,
    parsed,
    precision_option,
    preprocessing_options,
    quiet_option,
)
from ._progress import bar, tell
from ._signals import exiting


@click.command()
@click.argument("source", nargs=-1, required=True, type=click.Path())
@click.option(
    "-o", "--output", required=True, type=click.Path(), help="Folder of the dump; an unfinished dump is continued."
)
@network_option
@click.option("--layers", required=True, metavar="NAME,...", help="Layer names, feature indices or globs.")
@click.option(
    "--reduce",
    default="full",
    metavar="NAME,...",
    help=f"Any of {', '.join(REDUCTIONS)}; LAYER:NAME applies to matching layers only.",
)
@click.option("--weights", default="default", help="A name, a file, or random.")
@preprocessing_options(*ORDER_FLAGS)
@click.option("--pooling", type=click.Choice(get_args(arch.Pooling)), default="max", help="Kind of pooling.")
@click.option(
    "--resize",
    default="224",
    callback=parsed(parse_resize),
    metavar="N|WxH|none",
    help="Shorter side, or width and height, with antialiasing.",
)
@click.option(
    "--crop",
    default="auto",
    callback=parsed(parse_count(auto="auto", none=None)),
    metavar="N|auto|none",
    help="Side of the central square; auto: the shorter side of --resize.",
)
@click.option(
    "--interpolation",
    type=click.Choice(get_args(Interpolation)),
    default="bilinear",
    help="Of --resize; antialiased, except nearest.",
)
@click.option(
    "--dtype",
    type=click.Choice(get_args(Dtype)),
    default="float32",
    help="Type of the stored arrays; float16 clips larger values and counts them.",
)
@precision_option()
@click.option("--seed", type=int, default=0, help="Seed of projections and random weights.")
@click.option("--statistics", is_flag=True, help="Also measure each channel; see `vggfeat dump-stats`.")
@click.option("--cka", is_flag=True, help="Also measure linear CKA between the layers.")
@click.option(
    "--rdm", type=click.IntRange(0), default=0, metavar="N", help="Also measure RDMs of the first N pictures."
)
@click.option(
    "--batch-size",
    default="auto",
    callback=parsed(parse_count(auto=None)),
    metavar="N|auto",
    help="Pictures per forward pass.",
)
@click.option(
    "--shard-size", type=click.IntRange(1), help="Pictures per shard; a kill loses at most a shard.  [default: auto]"
)
@click.option("--workers", type=click.IntRange(0), help="Decoding processes.  [default: by cores and device]")
@device_option
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    help="ray: on the cluster at RAY_ADDRESS; needs the extra `ray`.",
)
@click.option(
    "--manifest", type=click.Choice(["csv", "parquet"]), default="csv", help="Format of the list of pictures."
)
@click.option("--include", multiple=True, metavar="GLOB", help="Only names that match, such as '*.jpg'; repeatable.")
@click.option("--exclude", multiple=True, metavar="GLOB", help="No names that match, such as '*.seg.png'; repeatable.")
@click.option("--column", metavar="NAME", help="Column or array of the pictures or paths.  [default: path, image, ...]")
@click.option("--follow-links", is_flag=True, help="Read folders behind links, each once.")
@click.option("--append", is_flag=True, help="Add new pictures and layers to a complete dump; the rest stays.")
@click.option("--root", type=click.Path(), help="The folder of the sources now, if it moved since the dump was begun.")
@click.option("--retry-failed", is_flag=True, help="Recompute shards whose unreadable pictures have changed.")
@click.option("--dry-run", is_flag=True, help="Only estimate size and time, from a few timed batches.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask before writing more than 10 GB.")
@quiet_option
def command(
    source: tuple[str, ...],
    *,
    output: str,
    weights: str,
    dry_run: bool,
    yes: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Write the activations of SOURCE into a folder: .npy files, and a manifest that lists every picture.

    SOURCE: pictures; folders with their sub-folders; lists of paths (.txt, .csv, .tsv, .jsonl, .parquet, or - for
    standard input); .tar, .zip and .parquet files of pictures; arrays of pictures (.npy, .npz, .h5). To continue after
    a kill, run the same command again. Exit codes: 0 success; 3 complete, but some pictures could not be read; 2
    failure.
    """
    options["network"] = chosen_network({**options, "weights": weights})
    # An unknown layer is an error before torch is loaded.
    arch.find_layers(options["network"], options["layers"], pooling=options["pooling"], head="paper")
    from vggfeat.dumps.run import Dumping

    run = Dumping(source, output, weights=None if weights == "random" else weights, **options)
    if run.moved is not None:
        tell(f"moved: {run.moved}")
    if run.skipped:
        tell(f"skipped: {run.skipped}")
    if dry_run:
        print_estimate(run.estimate())
        return
    if not yes:
        confirm_size(output, run.bytes_left())
    with exiting("interrupted: finished shards are kept; run the same command to continue"):
        with bar("dumping", quiet=quiet) as update:
            for progress in run:
                bad = f", {progress.failed} unreadable" if progress.failed else ""
                update(completed=progress.done, total=progress.pictures, description=f"dumping{bad}")
        found = run.result()
        for note in run.notes:
            tell(note)
        report_dump(found, quiet=quiet)
    if found.failed:
        raise click.exceptions.Exit(SOME_FAILED)
