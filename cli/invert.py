"""`vggfeat invert`: what a layer still knows of a picture."""

from pathlib import Path
from typing import Any

import click

from ._files import check_spares, unused
from ._runs import chosen_recipe, paint, recipe_options, run_options


@click.command()
@click.argument("image", type=click.Path())
@click.option(
    "-l", "--layer", metavar="NAME", help="The layer that is asked; NAME:WEIGHT,... several.  [default: relu4_2]"
)
@click.option("-o", "--output", type=click.Path(), help="PNG, JPEG, WebP or TIFF.  [default: IMAGE-invert.png]")
@click.option(
    "--recipe", "recipe_name", default="invert", show_default=True, help="A name, a .toml file, or a painted picture."
)
@run_options
@recipe_options(
    "invert",
    ("size", "tv_weight", "network", "weights", "pooling", "steps", "first_size", "growth", "margin", "start", "seed"),
)
def command(
    image: str,
    *,
    layer: str | None,
    output: str | None,
    recipe_name: str,
    seconds: float | None,
    device: str,
    precision: Any,  # noqa: ANN401 (click has checked it)
    quiet: bool,
    as_json: bool,
    **options: Any,  # noqa: ANN401 (the recipe's fields)
) -> None:
    """Paint what a layer still knows of IMAGE: a picture, begun from noise, that the layer takes for it.

    Ctrl-C saves the picture as it stands.
    """
    from vggfeat import images
    from vggfeat.transfer.beyond import invert
    from vggfeat.transfer.record import record

    chosen = chosen_recipe(recipe_name, {**options, "content_layers": layer})
    target = Path(output) if output is not None else unused(Path(f"{Path(image).stem}-invert.png"))
    images.check_writable(target)
    roles = {"content": image, "start": chosen.start, "weights": chosen.weights}
    read = [(role, Path(name)) for role, name in roles.items() if Path(name).is_file()]
    inputs = [path for _, path in read]
    check_spares(target, inputs)
    run = invert(image, None, chosen, seconds=seconds, device=device, precision=precision)
    text = record(chosen, read).text()
    paint(run, target, inputs=inputs, text=text, facts={"recipe": chosen.as_dict()}, quiet=quiet, as_json=as_json)
