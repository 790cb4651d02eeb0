"""`vggfeat texture`: more of a picture's texture, in any size."""

import re
from pathlib import Path
from typing import Any

import click

from ._files import check_spares, unused
from ._runs import chosen_recipe, paint, recipe_options, run_options


def _parse_size(_context: click.Context, _option: click.Parameter, text: str) -> tuple[int, int]:
    if not (found := re.fullmatch(r"\s*(\d{1,5})\s*(?:[xX,]\s*(\d{1,5})\s*)?", text)):
        raise click.BadParameter(f"'{text}' is not a size WxH such as 640x480")
    return int(found[1]), int(found[2] or found[1])


@click.command()
@click.argument("style", type=click.Path())
@click.option(
    "--size",
    callback=_parse_size,
    default="512x512",
    show_default=True,
    metavar="WxH",
    help="Width and height in pixels; one number is both.",
)
@click.option(
    "--seamless", is_flag=True, help="The left edge meets the right, the top the bottom: copies tile a plane."
)
@click.option("-o", "--output", type=click.Path(), help="PNG, JPEG, WebP or TIFF.  [default: STYLE-texture.png]")
@click.option(
    "--recipe", "recipe_name", default="texture", show_default=True, help="A name, a .toml file, or a painted picture."
)
@run_options
@recipe_options(
    "texture",
    (
        *("style_scale", "objective", "style_layers", "network", "weights", "pooling", "steps", "first_size", "growth"),
        *("margin", "start", "seed"),
    ),
)
def command(
    style: str,
    *,
    size: tuple[int, int],
    seamless: bool,
    output: str | None,
    recipe_name: str,
    seconds: float | None,
    device: str,
    precision: Any,  # noqa: ANN401 (click has checked it)
    quiet: bool,
    as_json: bool,
    **options: Any,  # noqa: ANN401 (the recipe's fields)
) -> None:
    """Make more of the texture of STYLE, from noise.

    Strokes are as large as in STYLE: --style-scale 0.5 makes them half as large. Ctrl-C saves the picture as it stands.
    """
    from vggfeat import images
    from vggfeat.transfer.beyond import texture
    from vggfeat.transfer.record import record

    chosen = chosen_recipe(recipe_name, {**options, "edges": "wrap" if seamless else None})
    target = Path(output) if output is not None else unused(Path(f"{Path(style).stem}-texture.png"))
    images.check_writable(target)
    roles = {"style": style, "start": chosen.start, "weights": chosen.weights}
    read = [(role, Path(name)) for role, name in roles.items() if Path(name).is_file()]
    inputs = [path for _, path in read]
    check_spares(target, inputs)
    run = texture(style, chosen, size=size, seamless=seamless, seconds=seconds, device=device, precision=precision)
    facts = {"seamless": chosen.edges == "wrap", "recipe": chosen.as_dict()}
    text = record(chosen, read).text()
    paint(run, target, inputs=inputs, text=text, facts=facts, quiet=quiet, as_json=as_json)
