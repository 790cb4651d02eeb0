"""`vggfeat train`: train or fine-tune a VGG."""

import json
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vggfeat.training.recipe import CHOICES, TrainingRecipe, training_recipe

from ._options import Command, device_option, precision_option, quiet_option, summary_option
from ._progress import bar, on_terminal, tell
from ._recipes import field_option
from ._signals import stop_requests

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vggfeat.training.run import Training, TrainingProgress

_NAMES = {"source": "from"}


def _recipe_options(command: Command) -> Command:
    """Add an option for each field of `TrainingRecipe`."""
    for field in reversed(fields(TrainingRecipe)):
        name = _NAMES.get(field.name, field.name).replace("_", "-")
        default: Any = field.default
        flag = f"--{name}/--no-{name}" if isinstance(default, bool) else f"--{name}"
        add_option = field_option(
            field, type(default), CHOICES.get(field.name), flag, default=default, show_default=bool(str(default))
        )
        command = add_option(command)
    return command


@click.command()
@click.option(
    "--data", required=True, help="A folder of pictures (DIR/CLASS/*, or DIR/train and DIR/val), stl10 or digits."
)
@click.option("-o", "--output", type=click.Path(), help="Folder for the results.  [default: DATA-NETWORK]")
@_recipe_options
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
    resume: bool,
    device: str,
    precision: Any,
    channels_last: bool,
    checkpoint_seconds: float,
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

    recipe = training_recipe(**options)
    folder = Path(output) if output is not None else Path(f"{Path(data).name}-{recipe.row().name}")
    processes.join()
    try:
        with bar("reading", quiet=quiet or processes.rank() > 0) as update:
            run = train(
                data,
                folder,
                recipe,
                resume=resume,
                device=device,
                precision=precision,
                channels_last=channels_last,
                checkpoint_seconds=checkpoint_seconds,
                report=lambda done, total: update(completed=done, total=total),
            )
        for path, reason in run.data.skipped.items() if run.first else ():
            tell(f"skipped '{path}': {reason}")
        with stop_requests(terminating=processes.count() == 1) as stop_code:
            for _ in _report(run, quiet=quiet or not run.first):
                if code := stop_code():
                    run.save()
                    tell(f"interrupted: '{folder}' holds a checkpoint; --resume continues from it")
                    raise click.exceptions.Exit(code)
        if run.first:
            _print_result(run, quiet=quiet, as_json=as_json)
    finally:
        processes.leave()


def _report(run: "Training", *, quiet: bool) -> "Iterator[TrainingProgress]":
    """Pass on a run's progress, and show it unless `quiet`: a bar on a terminal, and a line for each epoch."""
    shown = not quiet and on_terminal()
    with bar("training", quiet=quiet, total=run.recipe.epochs, unit=False) as update:
        for progress in run:
            if shown:  # reading the loss waits for the device
                update(description=_short_line(progress), completed=progress.epoch - 1 + progress.step / progress.steps)
            if progress.evaluation and not quiet:
                tell(_line(progress))
            yield progress


def _short_line(progress: "TrainingProgress") -> str:
    return f"epoch {progress.epoch}/{progress.epochs}  loss {progress.loss:.3f}  accuracy {progress.accuracy:.1%}"


def _line(progress: "TrainingProgress") -> str:
    assert progress.evaluation is not None  # noqa: S101 (only called at the end of an epoch)
    return (
        f"epoch {progress.epoch}/{progress.epochs}: loss {progress.loss:.4f}, accuracy {progress.accuracy:.2%}; "
        f"held out: loss {progress.evaluation.loss:.4f}, accuracy {progress.evaluation.accuracy:.2%}; "
        f"{progress.seconds:.0f} s"
    )


def _print_result(run: "Training", *, quiet: bool, as_json: bool) -> None:
    from vggfeat.training.run import BEST

    assert run.best is not None  # noqa: S101 (every run has an epoch)
    if as_json:
        facts = {"network": run.model.network.name, "weights": str(run.output / BEST)}
        click.echo(json.dumps({**facts, "seconds": round(run.seconds, 3), **run.best.as_dict()}, allow_nan=False))
    elif not quiet:
        worst = sorted(run.best.class_accuracy.items(), key=lambda item: item[1])[:3]
        shares = ", ".join(f"{name} {share:.1%}" for name, share in worst)
        tell(f"best: {run.best.accuracy:.2%} of the held-out pictures; lowest: {shares}")
        click.echo(str(run.output / BEST))
