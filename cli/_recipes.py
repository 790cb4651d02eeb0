"""Options for the fields of a recipe, and the recipe that a command's options choose."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import Field, fields, replace
from pathlib import Path
from typing import Any

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

from ._options import ORDER_FLAGS, Command, Decorator, Triple, sentence


def field_option(
    field: "Field[Any]",
    kind: Any,
    choices: Collection[str] | None,
    *flags: str,
    suffix: str = "",
    **settings: Any,
) -> Decorator:
    """The option for a field of a recipe, with the field's help text. Its type is `choices` if given, else `kind`."""
    text = sentence(field.metadata["help"])
    kind = click.Choice(list(choices)) if choices else Triple() if kind is tuple else kind
    return click.option(*flags, field.name, type=kind, help=f"{text}{suffix}", **settings)


_FLAGS = {"tv_weight": ("--tv-weight", "--tv"), "input_order": ORDER_FLAGS}


def recipe_options(preset: str, names: Sequence[str] | None = None) -> Decorator:
    """Add `--recipe`, and an option for each field in `names` (None: every field). Help shows the preset's values.

    An option that is not given is None, so that the chosen recipe's own value applies.
    """
    known = {field.name: field for field in fields(Recipe) if field.name not in LABELS}

    def add(command: Command) -> Command:
        for name in reversed(list(known) if names is None else names):
            default: Any = getattr(RECIPES[preset], name)
            default = format_layers(default) if name in LAYER_FIELDS else default
            flags = _FLAGS.get(name, (f"--{name.replace('_', '-')}",))
            suffix = "" if default == () else f"  [default: {default}]"
            settings: dict[str, Any] = {}
            if isinstance(default, bool):
                flags, suffix, settings = (f"{flags[0]}/--no-{flags[0].removeprefix('--')}",), "", {"default": None}
            add_option = field_option(known[name], type(default), CHOICES.get(name), *flags, suffix=suffix, **settings)
            command = add_option(command)
        sources = f"{', '.join(RECIPES)}, a .toml file, or a picture made by vggfeat; options override it."
        return click.option("--recipe", "recipe_name", help=f"{sources}  [default: {preset}]")(command)

    return add


def chosen_recipe(preset: str, options: Mapping[str, Any], resume: str | None = None) -> Recipe:
    """The recipe of --recipe, else that of the checkpoint `resume`, else the preset, changed by the other options.

    Layer names are resolved for the recipe's network. Without --network, a weights file that names its network decides.
    """
    changes = {key: value for key, value in options.items() if value is not None}
    name = changes.pop("recipe_name", None)
    if name is None and resume is not None:
        from vggfeat.transfer import checkpoint

        base = from_values(checkpoint.load_facts(resume)["asked"], f"the checkpoint '{resume}'")
    else:
        base = recipe(name or preset)
    if "network" not in changes and "weights" in changes and (named := weights.named_network(changes["weights"])):
        changes["network"] = named
    for key in LAYER_FIELDS:
        if key in changes:
            changes[key] = parse_layers(changes.get("network", base.network), changes[key])
    return replace(base, **changes)


def recipe_files(chosen: Recipe) -> list[tuple[str, str]]:
    """The fields of a recipe that may name files, as (role, name)."""
    return [("start", chosen.start), ("weights", chosen.weights)]


def files_read(chosen: Recipe, options: Mapping[str, Any], *others: str | None) -> list[Path]:
    """The files that a run reads: `others`, those that the recipe names, and the file of --recipe."""
    names = [*others, *(name for _, name in recipe_files(chosen)), options.get("recipe_name")]
    return [Path(name) for name in names if name and Path(name).is_file()]
