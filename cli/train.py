"""`vggfeat train`: train a VGG, or tune one further."""

import json
import signal
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from vggfeat.training.recipe import CHOICES, TrainingRecipe, training_recipe

from ._progress import tell

if TYPE_CHECKING:
    from vggfeat.training.run import Progress, Training

_NAMES = {"source": "from"}


def _recipe_options(command: Callable[..., None]) -> Callable[..., None]:
    """An option for each field of a recipe, with its default."""
    for field in reversed(fields(TrainingRecipe)):
        default: Any = field.default
        name = _NAMES.get(field.name, field.name).replace("_", "-")
        text: str = field.metadata["help"]
        kind = click.Choice(CHOICES[field.name]) if field.name in CHOICES else cast("Any", type(default))
        command = click.option(
            f"--{name}/--no-{name}" if isinstance(default, bool) else f"--{name}",
            field.name,
            type=kind,
            default=default,
            show_default=bool(str(default)),
            help=f"{text[0].upper()}{text[1:]}.",
        )(command)
    return command


@click.command()
@click.option(
    "--data", required=True, help="A folder of pictures (DIR/CLASS/*, or DIR/train and DIR/val), stl10 or digits."
)
@click.option("-o", "--output", type=click.Path(), help="Folder for what comes of it.  [default: DATA-NETWORK]")
@_recipe_options
@click.option("--resume", is_flag=True, help="Go on from the folder's checkpoint, if there is one.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 or mps.")
@click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
    default="auto",
    show_default=True,
    help="Of the arithmetic; auto takes bfloat16 where it is fast.",
)
@click.option("--channels-last/--no-channels-last", default=True, show_default=True, help="Memory layout.")
@click.option(
    "--checkpoint-seconds",
    type=click.FloatRange(0),
    default=60.0,
    show_default=True,
    help="Time between checkpoints within an epoch.",
)
@click.option("--quiet", is_flag=True, help="No progress.")
@click.option("--json", "as_json", is_flag=True, help="Print a summary as JSON.")
def command(
    data: str,
    *,
    output: str | None,
    resume: bool,
    device: str,
    precision: Any,  # noqa: ANN401 (click has checked it)
    channels_last: bool,
    checkpoint_seconds: float,
    quiet: bool,
    as_json: bool,
    **options: Any,  # noqa: ANN401 (the recipe's fields)
) -> None:
    """Train a network to tell the classes of pictures apart.

    Writes best.safetensors, which --weights of other commands reads, and metrics, charts and a checkpoint. Ctrl-C
    keeps a checkpoint; --resume goes on exactly where it was. `torchrun --nproc-per-node 2 -m vggfeat_cli train ...`
    shares each batch out.
    """
    from vggfeat.training import processes
    from vggfeat.training.run import train

    recipe = training_recipe(**options)
    folder = Path(output) if output is not None else Path(f"{Path(data).name}-{recipe.row().name}")
    processes.join()
    try:
        with _looking(quiet=quiet or processes.rank() > 0) as report:
            run = train(
                data,
                folder,
                recipe,
                resume=resume,
                device=device,
                precision=precision,
                channels_last=channels_last,
                checkpoint_seconds=checkpoint_seconds,
                report=report,
            )
        for path, reason in run.data.skipped.items() if run.first else ():
            tell(f"skipped '{path}': {reason}")
        with _stoppable() as stopped:
            for _ in _report(run, quiet=quiet or not run.first):
                if stopped():
                    run.save()
                    tell(f"interrupted: '{folder}' holds a checkpoint, --resume goes on")
                    raise click.exceptions.Exit(130)
        if run.first:
            _tell_result(run, quiet=quiet, as_json=as_json)
    finally:
        processes.leave()


@contextmanager
def _stoppable() -> Generator[Callable[[], bool]]:
    """What it gives says whether Ctrl-C was pressed; the step that runs then is finished. A second one ends at once."""
    pressed: list[int] = []

    def press(number: int, _frame: object) -> None:
        pressed.append(number)
        signal.signal(signal.SIGINT, before)

    try:
        before = signal.signal(signal.SIGINT, press)
    except ValueError:  # not the main thread
        yield lambda: False
        return
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _looking(*, quiet: bool) -> Generator[Callable[[int, int], None] | None]:
    """A bar for the pictures of a folder that were decoded, on a terminal."""
    if quiet or not _on_terminal():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar

    with Bar(TextColumn("looking at"), BarColumn(), MofNCompleteColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _on_terminal() -> bool:
    # A process may be started without a standard error.
    return sys.stderr is not None and sys.stderr.isatty()  # pyright: ignore[reportUnnecessaryComparison]


def _report(run: "Training", *, quiet: bool) -> "Iterator[Progress]":
    """Pass on a run's progress: a bar on a terminal, a line an epoch elsewhere."""
    if quiet:
        yield from run
        return
    with _bar(run, wanted=_on_terminal()) as update:
        for progress in run:
            update(progress)
            if progress.evaluation:
                tell(_line(progress))
            yield progress


@contextmanager
def _bar(run: "Training", *, wanted: bool) -> "Generator[Callable[[Progress], None]]":
    if not wanted:
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=run.recipe.epochs)

        def update(progress: "Progress") -> None:
            text = (
                f"epoch {progress.epoch}/{progress.epochs}  loss {progress.loss:.3f}  accuracy {progress.accuracy:.1%}"
            )
            bar.update(task, description=text, completed=progress.epoch - 1 + progress.step / progress.steps)

        yield update


def _line(progress: "Progress") -> str:
    assert progress.evaluation is not None  # noqa: S101 (asked for at the end of an epoch alone)
    return (
        f"epoch {progress.epoch}/{progress.epochs}: loss {progress.loss:.4f}, accuracy {progress.accuracy:.2%}; "
        f"held out: loss {progress.evaluation.loss:.4f}, accuracy {progress.evaluation.accuracy:.2%}; "
        f"{progress.seconds:.0f} s"
    )


def _tell_result(run: "Training", *, quiet: bool, as_json: bool) -> None:
    from vggfeat.training.run import BEST

    assert run.best is not None  # noqa: S101 (every run has an epoch)
    if as_json:
        summary = {
            "network": run.model.network.name,
            "weights": str(run.output / BEST),
            "seconds": round(run.seconds, 3),
            **run.best.as_dict(),
        }
        click.echo(json.dumps(summary, allow_nan=False))
    elif not quiet:
        worst = sorted(run.best.class_accuracy.items(), key=lambda item: item[1])[:3]
        tell(f"best: {run.best.accuracy:.2%} of the held-out pictures; least: "
             + ", ".join(f"{name} {share:.1%}" for name, share in worst))  # fmt: skip
        click.echo(str(run.output / BEST))
