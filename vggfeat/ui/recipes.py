"""Recipes of a page: as text that can be changed, and as the few controls that matter most."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vggfeat.errors import RecipeError, near
from vggfeat.networks import weights
from vggfeat.transfer.named import recipe
from vggfeat.transfer.recipe import RECIPES, Recipe, format_recipe, from_values
from vggfeat.ui.limits import Limits

CONTROLS = ("size", "steps", "content_weight", "style_weight", "style_scale", "objective", "color")
"""The fields that have a control of their own, in their order on the page."""

# Nobody reads a picture by naming a file of the server's.
_STARTS = ("content", "noise")

_LONGEST_TEXT = 20_000


def controls(chosen: Recipe, limits: Limits) -> tuple[Any, ...]:
    """The values of the controls for a recipe, within the limits."""
    values = {name: getattr(chosen, name) for name in CONTROLS}
    values |= {"size": min(chosen.size, limits.size), "steps": min(chosen.steps, limits.steps)}
    return tuple(values.values())


def read(text: str, limits: Limits) -> Recipe:
    """The recipe that a page's text says. Raises `RecipeError`, also for what a page may not ask for."""
    if len(text) > _LONGEST_TEXT:
        raise RecipeError(f"the recipe has {len(text)} characters: the limit is {_LONGEST_TEXT}")
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"the recipe is not TOML: {error}") from error
    _check_names(values)  # before anything looks them up, which would read a file of that name
    return allowed(from_values(values, "the recipe"), limits)


def changed(text: str, values: Sequence[Any], limits: Limits) -> Recipe:
    """The recipe that a page's text says, with the values of the controls in place of its own."""
    chosen = read(text, limits)
    changes = {name: _typed(name, value, getattr(chosen, name)) for name, value in zip(CONTROLS, values, strict=True)}
    return allowed(replace(chosen, **changes), limits)


def of_file(path: Path, limits: Limits) -> Recipe:
    """The recipe of a file that a page sent: a recipe file, or a picture that was painted before."""
    if path.suffix.lower() == ".toml":
        if path.stat().st_size > _LONGEST_TEXT:
            raise RecipeError(f"'{path.name}' is too long for a recipe")
        return read(path.read_text("utf-8", errors="replace"), limits)
    try:
        found = recipe(path)
    except RecipeError as error:
        raise RecipeError(str(error).replace(str(path), path.name)) from error
    return read(format_recipe(found), limits)


def preset(name: str, limits: Limits) -> Recipe:
    """The preset called `name`, within the limits. Raises `RecipeError`."""
    if name not in RECIPES:
        raise RecipeError(f"unknown recipe '{name}': {near(name, RECIPES)}")
    found = RECIPES[name]
    return replace(found, size=min(found.size, limits.size), steps=min(found.steps, limits.steps))


def allowed(chosen: Recipe, limits: Limits) -> Recipe:
    """`chosen`, where a page may ask for it. Raises `RecipeError`."""
    _check_names({"start": chosen.start, "weights": chosen.weights, "network": chosen.network})
    for name, value, most in (("size", chosen.size, limits.size), ("steps", chosen.steps, limits.steps)):
        if value > most:
            raise RecipeError(f"{name} is {value}: this page allows up to {most}")
    if chosen.step_decay > 1:
        raise RecipeError(f"step decay is {chosen.step_decay:g}: this page allows up to 1")
    return chosen


def networks() -> tuple[str, ...]:
    """The networks whose weights are on this machine, with their layers in blocks."""
    here = dict.fromkeys(row.network for row in weights.TABLE if row.status != "to be downloaded")
    return tuple(name for name in here if name.startswith("vgg"))


def _check_names(values: Mapping[str, Any]) -> None:
    """Refuse what names a file of the server's, or weights that are not here."""
    start, name = values.get("start", "content"), values.get("weights", "default")
    if start not in _STARTS:
        raise RecipeError(f"start is '{start}': this page knows {', '.join(_STARTS)}")
    network = values.get("network", RECIPES["default"].network)
    if network not in networks():
        raise RecipeError(f"the weights of '{network}' are not here: {near(network, networks())}")
    known = ["default", *(row.name for row in weights.TABLE if row.network == network)]
    if name not in known or weights.find_entry(network, name).status == "to be downloaded":
        raise RecipeError(f"the weights '{name}' of {network} are not here: {near(name, known)}")


def _typed(name: str, value: Any, current: Any) -> Any:  # noqa: ANN401 (whatever a page sends)
    """A control's value in the type of its field."""
    if isinstance(current, str):
        return value
    try:
        return type(current)(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise RecipeError(f"{name.replace('_', ' ')} is {value!r}: it must be a number") from error
