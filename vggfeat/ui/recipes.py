"""Recipes as the page edits them: as TOML text, and as controls for the most important fields."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vggfeat.errors import RecipeError, near, one_of
from vggfeat.networks import weights
from vggfeat.transfer.named import recipe
from vggfeat.transfer.recipe import RECIPES, Recipe, format_recipe, from_values
from vggfeat.ui.limits import Limits

CONTROLS = ("size", "steps", "content_weight", "style_weight", "style_scale", "objective", "color")
"""The fields that have a control, in their order on the page."""

# A recipe may also name a file to start from; a page must not read files of the server.
_STARTS = ("content", "noise")

LONGEST_TEXT = 20_000
"""The most characters that a recipe may have."""


def controls(chosen: Recipe, limits: Limits) -> tuple[Any, ...]:
    """The values of the controls for a recipe, cut to the limits."""
    values = {name: getattr(chosen, name) for name in CONTROLS}
    values |= {"size": min(chosen.size, limits.size), "steps": min(chosen.steps, limits.steps)}
    return tuple(values.values())


def read(text: str, limits: Limits) -> Recipe:
    """Parse a recipe from TOML. Raises `RecipeError` if it is malformed or exceeds what a page may ask for."""
    if len(text) > LONGEST_TEXT:
        raise RecipeError(f"the recipe has {len(text)} characters: the limit is {LONGEST_TEXT}")
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"the recipe is not TOML: {error}") from error
    _check_names(values)  # before anything resolves them, which would read a file of that name
    return allowed(from_values(values, "the recipe"), limits)


def changed(text: str, values: Sequence[Any], limits: Limits) -> Recipe:
    """The recipe in `text`, with its fields in `CONTROLS` replaced by `values`. Raises `RecipeError`."""
    chosen = read(text, limits)
    changes = {name: _typed(name, value, getattr(chosen, name)) for name, value in zip(CONTROLS, values, strict=True)}
    return allowed(replace(chosen, **changes), limits)


def of_file(path: Path, limits: Limits) -> Recipe:
    """The recipe of an uploaded file: a TOML file, or a painted picture. Raises `RecipeError`."""
    if path.suffix.lower() == ".toml":
        if path.stat().st_size > LONGEST_TEXT:
            raise RecipeError(f"'{path.name}' is too long for a recipe")
        return read(path.read_text("utf-8", errors="replace"), limits)
    try:
        found = recipe(path)
    except RecipeError as error:
        raise RecipeError(str(error).replace(str(path), path.name)) from error
    return read(format_recipe(found), limits)


def preset(name: str, limits: Limits) -> Recipe:
    """The preset called `name`, cut to the limits. Raises `RecipeError` if there is none."""
    found = RECIPES[one_of("recipe", name, RECIPES, kind=RecipeError)]
    return replace(found, size=min(found.size, limits.size), steps=min(found.steps, limits.steps))


def allowed(chosen: Recipe, limits: Limits) -> Recipe:
    """Return `chosen` if a page may ask for it. Raises `RecipeError` otherwise."""
    _check_names({"start": chosen.start, "weights": chosen.weights, "network": chosen.network})
    for name, value, most in (("size", chosen.size, limits.size), ("steps", chosen.steps, limits.steps)):
        if value > most:
            raise RecipeError(f"{name} is {value}: this page allows up to {most}")
    if chosen.step_decay > 1:
        raise RecipeError(f"step decay is {chosen.step_decay:g}: this page allows up to 1")
    return chosen


def networks() -> tuple[str, ...]:
    """The VGG networks whose weights are on this machine."""
    here = dict.fromkeys(entry.network for entry in weights.TABLE if entry.status != "to be downloaded")
    return tuple(name for name in here if name.startswith("vgg"))


def _check_names(values: Mapping[str, Any]) -> None:
    """Refuse names of files, and weights that are not on this machine."""
    start, name = values.get("start", "content"), values.get("weights", "default")
    if start not in _STARTS:
        raise RecipeError(f"start is '{start}': this page allows {', '.join(_STARTS)}")
    network = values.get("network", RECIPES["default"].network)
    if network not in networks():
        raise RecipeError(f"the weights of '{network}' are not on this machine: {near(network, networks())}")
    known = ["default", *(entry.name for entry in weights.TABLE if entry.network == network)]
    if name not in known or weights.find_entry(network, name).status == "to be downloaded":
        raise RecipeError(f"the weights '{name}' of {network} are not on this machine: {near(name, known)}")


def _typed(name: str, value: Any, current: Any) -> Any:
    """Convert a control's value to the type of its field."""
    if isinstance(current, str):
        return value
    try:
        return type(current)(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise RecipeError(f"{name.replace('_', ' ')} is {value!r}: it must be a number") from error
