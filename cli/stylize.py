"""`vggfeat stylize`: paint one picture in the manner of another."""

import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from vggfeat import weights
from vggfeat.transfer.recipe import CHOICES, LABELS, LAYER_FIELDS, RECIPES, Recipe, format_layers, parse_layers, recipe

from ._files import check_spares, unused
from ._progress import report, tell, uninterrupted

if TYPE_CHECKING:
    from torch import Tensor

    from vggfeat.images import Picture
    from vggfeat.transfer.run import Progress


def _recipe_options(command: Callable[..., None]) -> Callable[..., None]:
    """An option for each field of a recipe, that shows the default recipe's value; None stands for the recipe's."""
    for field in reversed([field for field in fields(Recipe) if field.name not in LABELS]):
        default: Any = getattr(RECIPES["default"], field.name)
        kind = cast("Any", type(default))
        if field.name in CHOICES:
            kind = click.Choice(CHOICES[field.name])
        elif field.name in LAYER_FIELDS:
            kind, default = str, format_layers(default)
        text: str = field.metadata["help"]
        command = click.option(
            f"--{field.name.replace('_', '-')}",
            *(["--tv"] if field.name == "tv_weight" else []),
            field.name,
            type=kind,
            help=f"{text[0].upper()}{text[1:]}.  [default: {default}]",
        )(command)
    return command


@click.command()
@click.argument("content", type=click.Path())
@click.argument("style", type=click.Path())
@click.option("-o", "--output", type=click.Path(), help="PNG, JPEG, WebP or TIFF.  [default: CONTENT-STYLE.png]")
@click.option(
    "--recipe",
    "recipe_name",
    default="default",
    show_default=True,
    help=f"One of {', '.join(RECIPES)}, a .toml file, or a picture painted before; options override it.",
)
@click.option("--seconds", type=float, help="Time for the optimisation, instead of steps.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 or mps.")
@click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
    default="auto",
    show_default=True,
    help="Of the network; auto takes bfloat16 where it is fast.",
)
@click.option("--save-every", type=click.IntRange(1), metavar="STEPS", help="Also save OUTPUT-0001.png and so on.")
@click.option("--quiet", is_flag=True, help="No progress.")
@click.option("--json", "as_json", is_flag=True, help="Print a summary as JSON.")
@_recipe_options
def command(
    content: str,
    style: str,
    *,
    output: str | None,
    recipe_name: str,
    seconds: float | None,
    device: str,
    precision: Any,  # noqa: ANN401 (click has checked it)
    save_every: int | None,
    quiet: bool,
    as_json: bool,
    **options: Any,  # noqa: ANN401 (the recipe's fields)
) -> None:
    """Paint CONTENT in the manner of STYLE.

    Ctrl-C saves the picture as it stands.
    """
    from vggfeat import images
    from vggfeat.transfer.record import record
    from vggfeat.transfer.run import stylize

    chosen = _recipe(recipe_name, options)
    target = Path(output) if output is not None else unused(Path(f"{Path(content).stem}-{Path(style).stem}.png"))
    images.check_writable(target)
    sources = {"content": content, "style": style, "start": chosen.start, "weights": chosen.weights}
    read = [(role, Path(name)) for role, name in sources.items() if Path(name).is_file()]
    inputs = [path for _, path in read]
    picture = images.read_picture(content)
    text = record(chosen, read).text()
    run = stylize(
        images.flatten(picture), style, chosen, size=chosen.size, seconds=seconds, device=device, precision=precision
    )

    def save(path: Path, image: "Tensor") -> None:
        check_spares(path, inputs)
        _save(path, image, picture, text)

    check_spares(target, inputs)
    progress: Progress | None = None
    try:
        for number, progress in enumerate(report(run, quiet=quiet), 1):
            if save_every and number % save_every == 0:
                save(target.with_stem(f"{target.stem}-{number:04}"), progress.image)
    except BaseException as error:
        # Whatever ended the run, what was painted is not lost.
        if progress is not None:
            with uninterrupted():
                save(target, progress.image)
                height, width = progress.image.shape[2:]
                tell(f"interrupted: '{target}' holds the picture after {progress.seconds:.0f} s, {width}x{height}")
                _tell_result(target, chosen, progress, quiet=True, as_json=as_json)
        elif isinstance(error, KeyboardInterrupt):
            tell("interrupted before the first step: nothing was saved")
        if isinstance(error, KeyboardInterrupt):
            raise click.exceptions.Exit(130) from None
        raise
    assert progress is not None  # noqa: S101 (every stage takes a step)
    with uninterrupted():
        save(target, progress.image)
        _tell_result(target, chosen, progress, quiet=quiet, as_json=as_json)


def _tell_result(target: Path, chosen: Recipe, progress: "Progress", *, quiet: bool, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(_summary(target, chosen, progress), allow_nan=False))
    elif not quiet:
        click.echo(str(target))


def _recipe(name: str, options: dict[str, Any]) -> Recipe:
    """The named recipe with the options that were given; layers are read for its network."""
    changes = {key: value for key, value in options.items() if value is not None}
    network = changes.get("network", recipe(name).network)
    if "network" not in changes and "weights" in changes and (named := weights.named_network(changes["weights"])):
        network = changes["network"] = named  # what a file of `vggfeat train` says of itself
    for key in LAYER_FIELDS:
        if key in changes:
            changes[key] = parse_layers(network, changes[key])
    return recipe(name, **changes)


def _save(target: Path, image: "Tensor", content: "Picture", text: Mapping[str, str]) -> None:
    """Write `image` with the content's alpha, at its size, the content's profile, and `text` in its metadata."""
    from vggfeat import images

    height, width = image.shape[2:]
    alpha = None if content.alpha is None else images.resize(content.alpha, height, width)
    images.write_picture(target, image, alpha=alpha, icc=content.icc, text=text, bits=content.bits)


def _summary(target: Path, chosen: Recipe, progress: "Progress") -> dict[str, Any]:
    return {
        "output": str(target),
        "width": progress.image.shape[3],
        "height": progress.image.shape[2],
        "seconds": round(progress.seconds, 3),
        "losses": progress.losses,
        "recipe": chosen.as_dict(),
    }
