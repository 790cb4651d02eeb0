"""`vggfeat train`: train or fine-tune a VGG."""

from pathlib import Path
from typing import Any

import click

from ._options import device_option, precision_option, quiet_option, summary_option
from ._progress import bar, tell
from ._signals import stop_requests
from ._training import pop_training_recipe, print_result, report_training, training_options


@click.command()
@click.option(
    "--data", required=True, help="A folder of pictures (DIR/CLASS/*, or DIR/train and DIR/val), stl10 or digits."
)
@click.option("-o", "--output", type=click.Path(), help="Folder for the results.  [default: DATA-NETWORK]")
@training_options
@click.option("--resume", is_flag=True, help="Continue from the folder's checkpoint, if there is one.")
@device_option
@precision_option("auto", "Precision of the forward and backward pass; auto is bfloat16 where that is faster.")
@click.option(
    "--channels-last/--no-channels-last", default=True, help="Memory layout of the network and its activations."
)
@click.option(
    "--checkpoint-seconds", type=click.FloatRange(0), default=60.0, help="Time between checkpoints within an epoch."
)
@quiet_option
@summary_option
def command(
    data: str,
    *,
    output: str | None,
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Train a network to classify pictures.

    Writes best.safetensors, which other commands accept as --weights, and metrics, charts and a checkpoint. Ctrl-C
    saves a checkpoint, from which --resume continues exactly. To use several processes, run
    `torchrun --nproc-per-node 2 -m vggfeat_cli train ...`; each batch is divided among them.
    """
    from vggfeat.training import processes
    from vggfeat.training.run import train

    recipe = pop_training_recipe(options)
    folder = Path(output) if output is not None else Path(f"{Path(data).name}-{recipe.architecture().name}")
    processes.join()
    try:
        with bar("reading", quiet=quiet or processes.rank() > 0) as update:
            run = train(data, folder, recipe, **options, report=lambda done, total: update(completed=done, total=total))
        for path, reason in run.data.skipped.items() if run.first else ():
            tell(f"skipped '{path}': {reason}")
        with stop_requests(terminating=processes.count() == 1) as stop_code:
            for _ in report_training(run, quiet=quiet or not run.first):
                if code := stop_code():
                    run.save()
                    tell(f"interrupted: '{folder}' holds a checkpoint; --resume continues from it")
                    raise click.exceptions.Exit(code)
        if run.first:
            print_result(run, quiet=quiet, as_json=as_json)
    finally:
        processes.leave()
