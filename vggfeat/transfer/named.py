"""Find a recipe by the name of a preset, in a TOML file, or in a picture that was painted with it."""

import os
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from vggfeat.errors import RecipeError, near
from vggfeat.transfer.recipe import RECIPES, Recipe, read_recipe


def recipe(source: str | os.PathLike[str], /, **changes: Any) -> Recipe:  # noqa: ANN401 (the fields' own types)
    """The preset called `source`, or the recipe in the file `source`, with the fields in `changes` replaced.

    A file is a recipe file (.toml), or a picture that `vggfeat stylize` painted: its recipe is in it.
    Raises `RecipeError`, `LayerError` for a layer in `changes`, `ImageError` for a picture that cannot be read.
    """
    known = {field.name for field in fields(Recipe)}
    for option in changes:
        if option not in known:
            raise RecipeError(f"unknown option '{option}' of a recipe: {near(option, known)}")
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
    raise RecipeError(f"unknown recipe '{name}': {near(name, RECIPES)}; a recipe file ends in .toml")
