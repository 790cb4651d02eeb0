"""What the commands that paint share: options of a recipe, and a run whose picture is saved whatever ends it."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from vggfeat.transfer.recipe import CHOICES, LAYER_FIELDS, RECIPES, Recipe, format_layers, parse_layers, recipe

from ._files import check_spares
from ._progress import report, tell, uninterrupted

if TYPE_CHECKING:
    from torch import Tensor

    from vggfeat.transfer.run import Progress

_Function = TypeVar("_Function", bound=Callable[..., None])


def recipe_options(preset: str, names: Sequence[str]) -> Callable[[_Function], _Function]:
    """An option for each of these fields of a recipe, that shows the preset's value; None stands for the recipe's."""
    known = {field.name: field for field in fields(Recipe)}

    def add(command: _Function) -> _Function:
        for name in reversed(names):
            default: Any = getattr(RECIPES[preset], name)
            kind = cast("Any", type(default))
            if name in CHOICES:
                kind = click.Choice(CHOICES[name])
            elif name in LAYER_FIELDS:
                kind, default = str, format_layers(default)
            text: str = known[name].metadata["help"]
            flags = [f"--{name.replace('_', '-')}", *(["--tv"] if name == "tv_weight" else [])]
            option = click.option(*flags, name, type=kind, help=f"{text[0].upper()}{text[1:]}.  [default: {default}]")
            command = option(command)
        return command

    return add


def run_options(command: _Function) -> _Function:
    """The options of every run: `seconds`, `device`, `precision`, `quiet` and `as_json`."""
    precisions = click.Choice(["auto", "float32", "bfloat16", "float16"])
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print a summary as JSON."),
        click.option("--quiet", is_flag=True, help="No progress."),
        click.option(
            "--precision",
            type=precisions,
            default="auto",
            show_default=True,
            help="Of the network; auto takes bfloat16 where it is fast.",
        ),
        click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 or mps."),
        click.option("--seconds", type=float, help="Time for the optimisation, instead of steps."),
    ):
        command = option(command)
    return command


def chosen_recipe(name: str, options: Mapping[str, Any]) -> Recipe:
    """The named recipe with those options that were given; layers are read for its network."""
    changes = {key: value for key, value in options.items() if value is not None}
    network = changes.get("network", recipe(name).network)
    for key in LAYER_FIELDS:
        if key in changes:
            changes[key] = parse_layers(network, changes[key])
    return recipe(name, **changes)


def paint(
    run: "Iterable[Progress]",
    target: Path,
    *,
    inputs: Iterable[str | Path],
    text: Mapping[str, str],
    facts: Mapping[str, object],
    quiet: bool,
    as_json: bool,
) -> None:
    """Show a run, and save its picture: at its end, or as it stands when something ends it before.

    `text` goes into the picture's metadata, `facts` into the summary.
    """
    from vggfeat import images

    def save(image: "Tensor") -> None:
        check_spares(target, inputs)
        images.write_picture(target, image, text=text)

    progress: Progress | None = None
    try:
        for latest in report(run, quiet=quiet):
            progress = latest
    except BaseException as error:
        if progress is not None:
            with uninterrupted():
                save(progress.image)
                tell(f"interrupted: '{target}' holds the picture after {progress.seconds:.0f} s")
                _tell_result(target, facts, progress, quiet=True, as_json=as_json)
        elif isinstance(error, KeyboardInterrupt):
            tell("interrupted before the first step: nothing was saved")
        if isinstance(error, KeyboardInterrupt):
            raise click.exceptions.Exit(130) from None
        raise
    assert progress is not None  # noqa: S101 (every stage takes a step)
    with uninterrupted():
        save(progress.image)
        _tell_result(target, facts, progress, quiet=quiet, as_json=as_json)


def _tell_result(
    target: Path, facts: Mapping[str, object], progress: "Progress", *, quiet: bool, as_json: bool
) -> None:
    if as_json:
        summary = {
            "output": str(target),
            "width": progress.image.shape[3],
            "height": progress.image.shape[2],
            "seconds": round(progress.seconds, 3),
            "losses": progress.losses,
            **facts,
        }
        click.echo(json.dumps(summary, allow_nan=False))
    elif not quiet:
        click.echo(str(target))
