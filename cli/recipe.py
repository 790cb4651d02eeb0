"""`vggfeat recipe`: print a recipe as a file to edit."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from vggfeat.transfer.named import recipe
from vggfeat.transfer.recipe import RECIPES, format_recipe

from ._text import print_table


@click.command()
@click.argument("source", required=False)
@click.option("--list", "listing", is_flag=True, help="List the presets.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of TOML.")
def command(source: str | None, listing: bool, as_json: bool) -> None:
    """Print the recipe SOURCE as TOML: a preset, a .toml file, or a picture made by vggfeat.

    A file is checked, and missing fields get their defaults. For a picture, the versions that made it and the hashes of
    its inputs are printed too.

    `vggfeat recipe default > my.toml` writes a file to edit; `vggfeat stylize --recipe my.toml` uses it.
    """
    if listing:
        presets = [(name, f"{chosen.size} px", chosen.about) for name, chosen in RECIPES.items()]
        print_table(["recipe", "size", "about"], presets)
        return
    if source is None:
        raise click.UsageError(f"name a recipe: {', '.join(RECIPES)}, a .toml file, or a painted picture")
    about: dict[str, Any] = {}
    if source in RECIPES or Path(source).suffix.lower() in {"", ".toml"}:
        chosen = recipe(source)
    else:
        from vggfeat.transfer.record import read_record

        found = read_record(source)
        chosen, about = found.recipe, {"versions": dict(found.versions), "inputs": [asdict(i) for i in found.inputs]}
    if as_json:
        click.echo(json.dumps({**chosen.as_dict(), **about}, indent=1))
        return
    if about:
        click.echo(f"# painted by {', '.join(f'{name} {number}' for name, number in about['versions'].items())}")
    for item in about.get("inputs", ()):
        click.echo(f"# {item['role']} {json.dumps(item['file'], ensure_ascii=False)} sha256 {item['sha256']}")
    click.echo(format_recipe(chosen), nl=False)
