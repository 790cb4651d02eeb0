"""`vggfeat stylize`: paint one picture in the manner of another."""

from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

import click

from vggfeat import weights
from vggfeat.transfer.recipe import CHOICES, LABELS, LAYER_FIELDS, RECIPES, Recipe, format_layers, parse_layers, recipe

from ._files import check_spares, check_text_file, unused
from ._orders import Order, paint_all
from ._painting import catching_sigterm, paint

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif")


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
@click.argument("pictures", nargs=-1, required=True, type=click.Path(), metavar="CONTENT STYLE...")
@click.option(
    "--style", "named_styles", multiple=True, type=click.Path(), help="Its style; then every argument is a content."
)
@click.option("-o", "--output", type=click.Path(), help="PNG, JPEG, WebP or TIFF.  [default: CONTENT-STYLE.png]")
@click.option(
    "--recipe",
    "recipe_name",
    help=f"{', '.join(RECIPES)}, a .toml file, or a picture painted before; options override it.  [default: default]",
)
@click.option("--mix", metavar="2,1", help="Weights of several styles.  [default: equal]")
@click.option(
    "--mask",
    "masks",
    multiple=True,
    metavar="MASK=STYLE",
    help="A style for the white parts of a mask; then every argument is a content.",
)
@click.option("--keep", type=click.Path(), help="A mask whose white parts stay as the content is.")
@click.option("--sequence", is_flag=True, help="Contents are frames: each starts from the one painted before.")
@click.option("--seconds", type=float, help="Time for the optimisation, instead of steps.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 or mps.")
@click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
    default="auto",
    show_default=True,
    help="Of the network; auto takes bfloat16 where it is fast.",
)
@click.option(
    "--memory", metavar="4GB", help="What a step may take; above it, in blocks.  [default: 0.6 of what is free]"
)
@click.option("--checkpoint", type=click.Path(), help="A file to resume from, written now and then, and at Ctrl-C.")
@click.option("--checkpoint-every", type=click.FloatRange(0), default=60.0, show_default=True, help="In seconds.")
@click.option("--resume", type=click.Path(), help="Go on from a checkpoint of the same pictures, with its recipe.")
@click.option("--save-every", type=click.IntRange(1), metavar="STEPS", help="Also save OUTPUT-0001.png and so on.")
@click.option("--plot", type=click.Path(), help="Draw the losses of the steps into a PNG.")
@click.option("--quiet", is_flag=True, help="No progress.")
@click.option("--json", "as_json", is_flag=True, help="Print a summary as JSON.")
@_recipe_options
def command(
    pictures: tuple[str, ...],
    *,
    named_styles: tuple[str, ...],
    output: str | None,
    recipe_name: str | None,
    mix: str | None,
    masks: tuple[str, ...],
    keep: str | None,
    sequence: bool,
    seconds: float | None,
    device: str,
    precision: Any,  # noqa: ANN401 (click has checked it)
    memory: str | None,
    checkpoint: str | None,
    checkpoint_every: float,
    resume: str | None,
    save_every: int | None,
    plot: str | None,
    quiet: bool,
    as_json: bool,
    **options: Any,  # noqa: ANN401 (the recipe's fields)
) -> None:
    """Paint CONTENT in the manner of STYLE.

    Several styles mix. With --style or --mask every argument is a content, also folders of them: then -o is a folder,
    what it holds already is left as it is, and a content that cannot be painted is named and passed over (exit code 3).

    Ctrl-C saves the picture as it stands.
    """
    contents, styles, places = _arguments(pictures, named_styles, masks)
    found, many = _expand(contents)
    if many and (checkpoint or resume or plot or save_every):
        raise click.UsageError("--checkpoint, --resume, --plot and --save-every are for a single content")
    if sequence and not many:
        raise click.UsageError("--sequence is for several contents, or a folder of frames")
    chosen = _resumed(resume, recipe_name, options) if resume else _recipe(recipe_name or "default", options)
    order = Order(
        styles=styles,
        recipe=chosen,
        options={
            "weights": _weights(mix, len(styles)),
            "masks": places,
            "keep": keep,
            "seconds": seconds,
            "memory_limit": memory,
            "resume": resume,
            "device": device,
            "precision": precision,
        },
        quiet=quiet,
        as_json=as_json,
    )
    with catching_sigterm():
        if many:
            paint_all(order, found, _folder(output), sequence=sequence)
            return
        default = unused(Path(f"{Path(contents[0]).stem}-{Path(styles[0]).stem}.png"))
        job = order.job(contents[0], Path(output) if output else default)
        job.save_every, job.checkpoint_every = save_every, checkpoint_every
        job.checkpoint, job.plot = (Path(name) if name else None for name in (checkpoint, plot))
        for path in filter(None, (job.checkpoint, job.plot)):
            check_text_file(path)
            check_spares(path, [*job.inputs, job.target])
        paint(job)


def _arguments(
    pictures: Sequence[str], named_styles: Sequence[str], masks: Sequence[str]
) -> tuple[list[str], list[str], list[str | None]]:
    """The contents, the styles, and for each style its mask or None."""
    pairs: list[tuple[str, str]] = []
    for item in masks:
        mask, equals, style = item.partition("=")
        if not equals or not mask or not style:
            raise click.UsageError(f"--mask {item} is no MASK=STYLE, such as sky.png=waves.jpg")
        pairs.append((mask, style))
    if not pairs and not named_styles:
        if len(pictures) == 1:
            raise click.UsageError(f"there is no style for '{pictures[0]}': CONTENT STYLE, or CONTENT --style STYLE")
        return [pictures[0]], list(pictures[1:]), [None] * (len(pictures) - 1)
    styles = [*named_styles, *(style for _, style in pairs)]
    return list(pictures), styles, [*([None] * len(named_styles)), *(mask for mask, _ in pairs)]


def _expand(contents: Sequence[str]) -> tuple[list[str], bool]:
    """Every content, of folders their pictures by name; and whether there may be several."""
    found: list[str] = []
    for name in contents:
        if not Path(name).is_dir():
            found.append(name)
            continue
        inside = sorted(str(path) for path in Path(name).iterdir() if path.suffix.lower() in SUFFIXES)
        if not inside:
            raise click.UsageError(f"there is no picture in '{name}'")
        found += inside
    return found, len(contents) > 1 or found != list(contents)


def _folder(output: str | None) -> Path:
    if output is None:
        raise click.UsageError("several contents need -o DIR, the folder that they are painted into")
    if Path(output).is_file() or Path(output).suffix.lower() in SUFFIXES:
        raise click.UsageError(f"several contents are painted into a folder, and '{output}' is a file")
    return Path(output)


def _weights(mix: str | None, styles: int) -> list[float] | None:
    if mix is None:
        return None
    try:
        return [float(part) for part in mix.split(",")]
    except ValueError:
        raise click.UsageError(f"--mix {mix} is no list of {styles} numbers, such as 2,1") from None


def _resumed(resume: str, recipe_name: str | None, options: dict[str, Any]) -> Recipe:
    """The recipe of a checkpoint, or the one that was asked for, which must then be the same."""
    from vggfeat.transfer import checkpoint
    from vggfeat.transfer.recipe import from_values

    if recipe_name is not None or any(value is not None for value in options.values()):
        return _recipe(recipe_name or "default", options)
    return from_values(checkpoint.load(resume).facts["recipe"], f"the checkpoint '{resume}'")


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
