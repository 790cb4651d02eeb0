"""`vggfeat recipe`: show a recipe as a file to copy and change."""

import json

import click

from vggfeat.transfer.recipe import RECIPES, format_recipe, recipe

from ._tables import print_table


@click.command()
@click.argument("source", required=False)
@click.option("--list", "listing", is_flag=True, help="List the presets.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of TOML.")
def command(source: str | None, listing: bool, as_json: bool) -> None:
    """Print the recipe SOURCE as TOML: a preset, or a .toml file, completed and checked.

    `vggfeat recipe default > my.toml` makes a file to change; `vggfeat stylize --recipe my.toml` reads it.
    """
    if listing:
        presets = [(name, f"{chosen.size} px", chosen.about) for name, chosen in RECIPES.items()]
        print_table(["recipe", "size", "about"], presets)
    elif source is None:
        raise click.UsageError(f"name a recipe: {', '.join(RECIPES)}, or a .toml file")
    else:
        chosen = recipe(source)
        click.echo(json.dumps(chosen.as_dict(), indent=1) if as_json else format_recipe(chosen), nl=as_json)
