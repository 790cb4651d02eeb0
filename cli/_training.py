"""The options of a training recipe, and the text about a run."""

import json
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import click

from vggfeat.training.recipe import CHOICES, TrainingRecipe

from ._options import ORDER_FLAGS, Command
from ._progress import bar, on_terminal, tell
from ._recipes import field_option

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vggfeat.training.run import Training, TrainingProgress

_NAMES = {"source": "from"}


def training_options(command: Command) -> Command:
    """Add an option for each field of `TrainingRecipe`."""
    for field in reversed(fields(TrainingRecipe)):
        name = _NAMES.get(field.name, field.name).replace("_", "-")
        default: Any = field.default
        flags = ORDER_FLAGS if field.name == "input_order" else (f"--{name}",)
        flags = (f"--{name}/--no-{name}",) if isinstance(default, bool) else flags
        add_option = field_option(
            field, type(default), CHOICES.get(field.name), *flags, default=default, show_default=default not in ("", ())
        )
        command = add_option(command)
    return command


def pop_training_recipe(options: dict[str, Any]) -> TrainingRecipe:
    """Remove the recipe's fields from the options of a command. Returns the recipe."""
    return TrainingRecipe(**{field.name: options.pop(field.name) for field in fields(TrainingRecipe)})


def report_training(run: "Training", *, quiet: bool) -> "Iterator[TrainingProgress]":
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


def print_result(run: "Training", *, quiet: bool, as_json: bool) -> None:
    """Print the path of the best weights and their accuracy, or a summary as JSON."""
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
