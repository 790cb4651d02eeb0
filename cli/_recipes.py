"""The options of a recipe, and the recipe that they choose."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar, cast

import click

from vggfeat.networks import weights
from vggfeat.transfer.named import recipe
from vggfeat.transfer.recipe import (
    CHOICES,
    LABELS,
    LAYER_FIELDS,
    RECIPES,
    Recipe,
    format_layers,
    from_values,
    parse_layers,
)

_Function = TypeVar("_Function", bound=Callable[..., None])


def recipe_options(preset: str, names: Sequence[str] | None = None) -> Callable[[_Function], _Function]:
    """`--recipe`, and an option for each of these fields, or for all, that shows the preset's value.

    None stands for what the recipe says.
    """
    known = {field.name: field for field in fields(Recipe) if field.name not in LABELS}

    def add(command: _Function) -> _Function:
        for name in reversed(list(known) if names is None else names):
            default: Any = getattr(RECIPES[preset], name)
            kind = cast("Any", type(default))
            if name in CHOICES:
                kind = click.Choice(CHOICES[name])
            elif name in LAYER_FIELDS:
                kind, default = str, format_layers(default)
            text: str = known[name].metadata["help"]
            flags = [f"--{name.replace('_', '-')}", *(["--tv"] if name == "tv_weight" else [])]
            option = click.option(*flags, name, type=kind, help=f"{text[0].upper()}{text[1:]}.  [default: {default}]")
            command = option(command)
        known_recipes = f"{', '.join(RECIPES)}, a .toml file, or a picture painted before; options override it."
        return click.option("--recipe", "recipe_name", help=f"{known_recipes}  [default: {preset}]")(command)

    return add


def chosen_recipe(preset: str, options: Mapping[str, Any], resume: str | None = None) -> Recipe:
    """The recipe that was named, else that of the checkpoint, else the preset, with the options that were given.

    Layers are read for its network, which a weights file names if nobody else does.
    """
    changes = {key: value for key, value in options.items() if value is not None}
    name = changes.pop("recipe_name", None)
    if name is None and resume is not None:
        from vggfeat.transfer import checkpoint

        base = from_values(checkpoint.load_facts(resume)["asked"], f"the checkpoint '{resume}'")
    else:
        base = recipe(name or preset)
    if "network" not in changes and "weights" in changes and (named := weights.named_network(changes["weights"])):
        changes["network"] = named  # what a file of `vggfeat train` says of itself
    for key in LAYER_FIELDS:
        if key in changes:
            changes[key] = parse_layers(changes.get("network", base.network), changes[key])
    return replace(base, **changes)


def recipe_files(chosen: Recipe) -> list[tuple[str, str]]:
    """What a recipe may name files in, by role."""
    return [("start", chosen.start), ("weights", chosen.weights)]
