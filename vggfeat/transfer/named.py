"""Find a recipe: a preset by its name, a TOML file, or a picture that was painted with it."""

import os
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from vggfeat.errors import RecipeError, near, one_of
from vggfeat.transfer.recipe import RECIPES, Recipe, read_recipe


def recipe(source: str | os.PathLike[str], /, **changes: Any) -> Recipe:
    """A preset or the recipe in a file, with some fields replaced.

    Args:
        source: the name of a preset, a recipe file (.toml), or a picture that `vggfeat stylize` painted, whose metadata
            hold its recipe.
        changes: fields of `Recipe` with their new values.

    Raises `RecipeError`, `LayerError` for an unknown layer in `changes`, `ImageError` for an unreadable picture.

    Example:
        >>> from vggfeat import recipe
        >>> chosen = recipe("gatys", steps=20)
        >>> chosen.name, chosen.network, chosen.steps
        ('gatys', 'vgg19', 20)
    """
    known = {field.name for field in fields(Recipe)}
    for option in changes:
        one_of("option", option, known, of="a recipe", kind=RecipeError)
    return replace(_find(os.fspath(source)), **changes)


def _find(name: str) -> Recipe:
    if name in RECIPES:
        return RECIPES[name]
    suffix = Path(name).suffix.lower()
    if suffix == ".toml":
        return read_recipe(name)
    if suffix:
        from vggfeat.transfer.record import read_record  # imported late because it loads torch

        return read_record(name).recipe
    raise RecipeError(f"unknown recipe '{name}', and not a .toml file: {near(name, RECIPES)}")
