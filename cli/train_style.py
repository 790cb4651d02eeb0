"""`vggfeat train-style`: train instant styles, for stylize --fast."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vggfeat.transfer.styles.recipe import LAYER_FIELDS, StyleRecipe

from ._options import Command, device_option, quiet_option, summary_option
from ._outputs import check_paths, check_text_file
from ._progress import bar, on_terminal, tell
from ._recipes import field_option
from ._signals import load_torch, stop_requests

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vggfeat.transfer.styles.run import StyleProgress, StyleTraining

# The flags of fields whose names would say less on a command line.
_FLAGS = {
    "photographs": "--squares",
    "styles": "--styles-per-square",
    **{name: f"--width-{name}" for name in ("full", "half", "quarter")},
}


def _recipe_options(command: Command) -> Command:
    """Add an option for each field of `StyleRecipe`."""
    from vggfeat.transfer.recipe import format_layers

    defaults = StyleRecipe()
    for field in reversed(fields(StyleRecipe)):
        default: Any = getattr(defaults, field.name)
        default = format_layers(default) if field.name in LAYER_FIELDS else default
        flag = _FLAGS.get(field.name, f"--{field.name.replace('_', '-')}")
        suffix = f"  [default: {default}]"
        command = field_option(field, type(default), None, flag, default=None, suffix=suffix, show_default=False)(
            command
        )
    return command


@click.command()
@click.argument("pictures", nargs=-1, required=True, type=click.Path(), metavar="STYLE...")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="A .safetensors file.")
@click.option(
    "--photos",
    multiple=True,
    type=click.Path(),
    help="A folder of photographs to train on, or one of them.  [default: six that ship with vggfeat]",
)
@click.option(
    "--add-to",
    type=click.Path(path_type=Path),
    help="Train only the scales and shifts of new styles, on top of this file's, which stay as they are.",
)
@click.option("--licence", default="", help="A line about the licence, to store in the file.", show_default=False)
@click.option("--resume", is_flag=True, help="Continue from the checkpoint beside the output, if there is one.")
@device_option
@click.option("--checkpoint-seconds", type=click.FloatRange(0), default=60.0, help="Time between checkpoints.")
@quiet_option
@summary_option
@_recipe_options
def command(
    pictures: tuple[str, ...],
    *,
    output: Path,
    photos: tuple[str, ...],
    add_to: Path | None,
    licence: str,
    resume: bool,
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Train a small network that paints any picture in the given styles in one pass (`stylize PHOTO --fast NAME`).

    STYLE is a picture, or NAME=PICTURE to give it a name other than that of its file. Writes the file, and beside it a
    preview after every evaluation and a checkpoint. Ctrl-C saves the checkpoint, from which --resume continues exactly.
    """
    styles = _named(pictures)
    outside = {name: options.pop(name) for name in ("device", "checkpoint_seconds")}
    recipe = _chosen(options, add_to)
    load_torch()
    from vggfeat.transfer.styles.run import checkpoint_path, preview_path, train_styles

    _check(output, [checkpoint_path(output), preview_path(output)], [*styles.values(), *photos])
    run = train_styles(
        styles,
        output,
        recipe,
        photographs=photos,
        add_to=add_to,
        licence=licence,
        resume=resume,
        **outside,
    )
    with stop_requests(terminating=True) as stop_code:
        for _ in _report(run, quiet=quiet):
            if code := stop_code():
                run.save()
                tell(f"interrupted: '{checkpoint_path(output)}' holds the run; --resume continues from it")
                raise click.exceptions.Exit(code)
    if as_json:
        import json

        step, objective = min(run.history, key=lambda each: each[1])
        facts = {"output": str(output), "styles": list(run.network.names), "seconds": round(run.seconds, 3)}
        click.echo(json.dumps({**facts, "step": step, "objective": objective}))
    elif not quiet:
        click.echo(str(output))


def _named(pictures: Sequence[str]) -> dict[str, str]:
    """{name: picture} of the arguments."""
    found: dict[str, str] = {}
    for item in pictures:
        name, equals, picture = item.partition("=")
        name, picture = (name, picture) if equals and not Path(item).exists() else (Path(item).stem, item)
        if name in found:
            raise click.UsageError(f"two styles are called {name}: write NAME=PICTURE")
        found[name] = picture
    return found


def _chosen(options: dict[str, Any], add_to: Path | None) -> StyleRecipe:
    """The recipe of the options. With --add-to, widths that are not given are those of the file."""
    from vggfeat.transfer.recipe import parse_layers

    changes = {name: value for name, value in options.items() if value is not None}
    network = changes.get("network", StyleRecipe().network)
    for name in LAYER_FIELDS:
        if name in changes:
            changes[name] = parse_layers(network, changes[name])
    if add_to is not None:
        load_torch()
        from vggfeat.transfer.styles.file import InstantStyles

        widths: dict[str, Any] = InstantStyles.load(add_to).network.widths.as_dict()
        changes = widths | changes
    return StyleRecipe(**changes)


def _check(output: Path, others: Sequence[Path], inputs: Sequence[str]) -> None:
    """Refuse files that cannot be written, before the training."""
    if output.suffix.lower() != ".safetensors":
        raise click.UsageError(f"cannot write '{output}': its name must end in .safetensors")
    for path in (output, *others):
        check_text_file(path)
    check_paths([("the output", output), *(("a file beside it", path) for path in others)], inputs)


def _report(run: "StyleTraining", *, quiet: bool) -> "Iterator[StyleProgress]":
    """Pass on a run's progress, and show it unless `quiet`: a bar on a terminal, and a line for each evaluation."""
    shown = not quiet and on_terminal()
    with bar("training", quiet=quiet, total=run.recipe.steps) as update:
        for progress in run:
            terms = ", ".join(f"{name} {value:.3f}" for name, value in progress.terms.items())
            update(completed=progress.step, **({"description": f"loss {progress.loss:.3f}"} if shown else {}))
            if progress.objective is not None and not quiet:
                tell(
                    f"step {progress.step}/{progress.steps}: objective {progress.objective:.4f} "
                    f"(last step: {terms}); {progress.seconds:.0f} s"
                )
            yield progress
