"""Recipes: what a style transfer optimises and how, as data: fields, files, presets. No torch here.

A recipe file is TOML: `key = value` for any field of `Recipe`, layers as a table or as text (`"relu1_1:0.5,relu3_*"`).
Missing fields are those of the recipe `default`; a missing name is the file's.
"""

import json
import os
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, cast, get_args

from vggfeat import files
from vggfeat.errors import InputError, LayerError, RecipeError, check_number, near, one_of
from vggfeat.networks import arch
from vggfeat.networks.preprocessing import MEAN_HELP, ORDER_HELP, STD_HELP, AnyOrder, Preprocessing, of_fields

OptimiserName = Literal["lbfgs", "adam"]
Objective = Literal["gram", "gram+meanstd", "covariance", "swd", "nn"]
Edges = Literal["mirror", "wrap"]
Color = Literal["style", "content", "luminance", "linear", "histogram"]

CHOICES: Mapping[str, tuple[str, ...]] = {
    "input_order": get_args(AnyOrder),
    "pooling": get_args(arch.Pooling),
    "optimiser": get_args(OptimiserName),
    "objective": get_args(Objective),
    "color": get_args(Color),
    "edges": get_args(Edges),
}
"""The fields of a recipe that take one of a few words, with these words."""

LAYER_FIELDS = ("content_layers", "style_layers")
"""The fields of a recipe that map layers to weights."""

TRIPLE_FIELDS = ("mean", "std")
"""The fields of a recipe that hold three numbers, or none."""

LABELS = ("name", "about")
"""The fields of a recipe that do not affect the picture."""

SCHEDULE = ("steps", "step_decay", "until_plateau")
"""The fields of a recipe that say when a stage ends. They may change when a run is resumed."""


def _help(text: str) -> dict[str, str]:
    return {"help": text}


def _ones(*layers: str) -> Callable[[], Mapping[str, float]]:
    return lambda: dict.fromkeys(layers, 1.0)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to paint a picture in a style. Sizes are of the long side, in pixels.

    The loss is `content_weight` times the mean square difference of the content layers' features, plus `style_weight`
    times the style term, plus `tv_weight` times the total variation of the image in [0, 1]. Each layer counts times its
    own weight. The style term is the `objective`: `gram` is the mean square difference of Gram matrices divided by
    C·H·W; the others are other distances between distributions of features. Every field has a `help` text in its
    metadata. Invalid values raise `RecipeError`, unknown layers `LayerError`.

    Example:
        >>> from vggfeat import Recipe
        >>> small = Recipe(style_layers={"relu[12]_1": 0.5}, steps=20)
        >>> dict(small.style_layers), small.objective
        ({'relu1_1': 0.5, 'relu2_1': 0.5}, 'gram')
    """

    name: str = field(default="custom", metadata=_help("what the recipe is called"))
    about: str = field(default="", metadata=_help("what it is for, in a line"))
    size: int = field(
        default=512, metadata=_help("long side of the result in pixels; a smaller content is not enlarged")
    )
    enlarge: bool = field(default=False, metadata=_help("enlarge a content that is smaller than the size"))
    network: str = field(default="vgg19", metadata=_help("network that computes the features"))
    weights: str = field(default="default", metadata=_help("weights of the network: a name, or a file"))
    mean: Sequence[float] = field(default=(), metadata=_help(f"of the weights: {MEAN_HELP}"))
    std: Sequence[float] = field(default=(), metadata=_help(f"of the weights: {STD_HELP}"))
    input_order: AnyOrder = field(default="auto", metadata=_help(ORDER_HELP))
    pooling: arch.Pooling = field(default="max", metadata=_help("pooling of the network: max, avg or l2"))
    objective: Objective = field(
        default="gram", metadata=_help("what to match of the style: gram, gram+meanstd, covariance, swd or nn")
    )
    content_layers: Mapping[str, float] = field(
        default_factory=_ones("relu4_2"), metadata=_help("layers that preserve the content, NAME:WEIGHT,...")
    )
    style_layers: Mapping[str, float] = field(
        default_factory=_ones("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"),
        metadata=_help("layers that carry the style, NAME:WEIGHT,..."),
    )
    content_weight: float = field(default=1.0, metadata=_help("weight of the content term"))
    style_weight: float = field(default=1.0, metadata=_help("weight of the style term"))
    tv_weight: float = field(default=0.0, metadata=_help("weight of the total variation, which smooths the picture"))
    style_scale: float = field(default=1.0, metadata=_help("scale of the style: 0.5 makes strokes half as large"))
    color: Color = field(
        default="style",
        metadata=_help(
            "colours of the style (style), the content (content, luminance) or a recoloured style (linear, histogram)"
        ),
    )
    margin: int = field(
        default=0,
        metadata=_help("pixels added around the pictures, which avoids a visible border; a multiple of 16"),
    )
    edges: Edges = field(
        default="mirror",
        metadata=_help("what the margin holds: the mirror image, or the opposite edge (wrap), so that copies tile"),
    )
    start: str = field(default="content", metadata=_help("what to start from: content, noise, or a picture file"))
    first_size: int = field(default=256, metadata=_help("size of the first and coarsest stage"))
    growth: float = field(default=2.0, metadata=_help("factor from one stage's size to the next"))
    steps: int = field(default=100, metadata=_help("optimisation steps of the first stage"))
    step_decay: float = field(default=1.0, metadata=_help("factor from one stage's steps to the next's"))
    until_plateau: float = field(
        default=0.0,
        metadata=_help("end a stage when its loss fell by less than this share over 10 steps; 0 is never"),
    )
    optimiser: OptimiserName = field(default="lbfgs", metadata=_help("optimisation method: lbfgs or adam"))
    learning_rate: float = field(default=0.02, metadata=_help("learning rate of adam, for a picture in [0, 1]"))
    seed: int = field(default=0, metadata=_help("seed of the noise"))

    def __post_init__(self) -> None:
        """Replace globs and indices by layer names, and check every field."""
        try:
            arch.network(self.network)
        except LayerError as error:
            raise RecipeError(str(error)) from None
        for option, known in CHOICES.items():
            one_of(option, getattr(self, option), known, kind=RecipeError)
        for option in LAYER_FIELDS:
            object.__setattr__(self, option, _named(self.network, getattr(self, option)))
        if not any(self.layer_weights().values()):
            raise RecipeError("a recipe needs a content or a style layer with a weight above 0")
        self._check_numbers()
        if self.edges == "wrap" and not self.margin:
            raise RecipeError("edges wrap needs a margin, which holds the opposite edge")
        stride = self.deepest_layer().stride
        if self.margin % stride:
            raise RecipeError(f"margin is {self.margin}: it must be a multiple of {stride}, the deepest layer's stride")

    def _check_numbers(self) -> None:
        if not isinstance(self.enlarge, bool):  # pyright: ignore[reportUnnecessaryIsInstance] (callers may not be typed)
            raise RecipeError(f"enlarge is {self.enlarge!r}: it must be true or false")
        for option in TRIPLE_FIELDS:
            object.__setattr__(self, option, tuple(getattr(self, option)))
        try:
            _ = self.preprocessing
        except InputError as error:
            raise RecipeError(str(error)) from None
        for option, (least, most) in _LIMITS.items():
            check_number(option, getattr(self, option), least, most, kind=RecipeError)

    @property
    def preprocessing(self) -> Preprocessing:
        """The preprocessing of the weights, as far as the recipe names it."""
        return of_fields(self.mean, self.std, self.input_order)

    def deepest_layer(self) -> arch.Layer:
        """The deepest layer that the losses read."""
        return arch.find_layers(self.network, self.layer_weights())[-1]

    def as_dict(self) -> dict[str, Any]:
        """The fields as plain values, for JSON."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        values |= {option: list(values[option]) for option in TRIPLE_FIELDS}
        return values | {option: dict(values[option]) for option in LAYER_FIELDS}

    def layer_weights(self) -> dict[str, float]:
        """{layer: weight}, content and style added up."""
        weights = {name: self.content_weight * weight for name, weight in self.content_layers.items()}
        for name, weight in self.style_layers.items():
            weights[name] = weights.get(name, 0.0) + self.style_weight * weight
        return weights


# Least and most of each number. A field is an integer if its least value is one.
_LIMITS: Mapping[str, tuple[float, float]] = {
    "size": (1, 65536),
    "content_weight": (0.0, 1e12),
    "style_weight": (0.0, 1e12),
    "tv_weight": (0.0, 1e12),
    "style_scale": (0.05, 20.0),
    "margin": (0, 1024),
    "first_size": (16, 65536),
    "growth": (1.1, 16.0),
    "steps": (1, 1_000_000),
    "step_decay": (0.01, 10.0),
    "until_plateau": (0.0, 1.0),
    "learning_rate": (1e-6, 1.0),
    "seed": (0, 2**63 - 1),
}


def _named(network: str, layers: Mapping[str, float]) -> Mapping[str, float]:
    """{layer name: weight}, read-only, with globs and indices resolved."""
    if not isinstance(layers, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance] (callers may not be typed)
        raise RecipeError(f"layers come as {{name: weight}}, not as {type(layers).__name__}")
    named: dict[str, float] = {}
    for pattern, weight in layers.items():
        for layer in arch.find_layers(network, pattern):
            if not 0 <= weight <= 1e12:
                raise RecipeError(f"{layer.name} has the weight {weight:g}: it must be between 0 and 1e12")
            named[layer.name] = float(weight)
    return MappingProxyType(named)


def parse_layers(network: str, text: str) -> dict[str, float]:
    """Read `relu1_1:0.5,relu3_*`: layers or globs with their weights, 1 by default.

    Raises `LayerError` for an unknown layer, `RecipeError` for a weight that is not a number.
    """
    weights: dict[str, float] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, colon, weight = item.partition(":")
        try:
            value = float(weight) if colon else 1.0
        except ValueError:
            raise RecipeError(f"'{item}' gives {name} the weight '{weight}', which is not a number") from None
        weights |= {layer.name: value for layer in arch.find_layers(network, name)}
    return weights


def format_layers(weights: Mapping[str, float]) -> str:
    """The text that `parse_layers` reads."""
    return ",".join(name if weight == 1 else f"{name}:{weight:g}" for name, weight in weights.items())


def read_recipe(path: str | os.PathLike[str]) -> Recipe:
    """Read a recipe file. Raises `RecipeError`, whose message names the file and the key."""
    path = Path(path)
    try:
        text = files.read_text(path)
    except OSError as error:
        raise RecipeError(f"cannot read recipe '{path}': {files.reason(error)}") from error
    except UnicodeError as error:
        raise RecipeError(f"recipe '{path}' is not UTF-8 text") from error
    return _parse(text, f"recipe '{path}'", path.stem, RECIPES["default"])


def from_values(values: Mapping[str, Any], source: str, base: Recipe | None = None) -> Recipe:
    """The recipe `base`, or `default`, with fields replaced by plain values such as those of `as_dict`.

    Raises `RecipeError` for unknown keys, wrong types and invalid values; its message begins with `source`.
    """
    base = RECIPES["default"] if base is None else base
    kinds: dict[str, type[object]] = {field.name: type(getattr(base, field.name)) for field in fields(Recipe)}
    for key, value in values.items():
        if key not in kinds:
            raise RecipeError(f"{source} has the unknown key '{key}': {near(key, kinds)}")
        if reason := _mistyped(key, value, kinds[key]):
            raise RecipeError(f"{source}: '{key}' is {value!r}, {reason}")
    changes = dict(values)
    try:
        network: str = changes.get("network", base.network)
        for key in LAYER_FIELDS:
            if isinstance(layers := changes.get(key), str):
                changes[key] = parse_layers(network, layers)
        return replace(base, **changes)
    except (RecipeError, LayerError) as error:
        raise RecipeError(f"{source}: {error}") from error


def format_recipe(chosen: Recipe) -> str:
    """The text of a recipe file: every field with its value, and its help text as a comment."""
    helps: dict[str, str] = {field.name: field.metadata["help"] for field in fields(Recipe)}
    lines = [
        (f"{key} = {_toml(value)}", helps[key]) for key, value in chosen.as_dict().items() if key not in LAYER_FIELDS
    ]
    width = min(30, max(len(line) for line, _ in lines))
    text = [f"{line:{width}}  # {comment}" for line, comment in lines]
    for key in LAYER_FIELDS:
        layers: Mapping[str, float] = getattr(chosen, key)
        text += ["", f"[{key}]  # {helps[key].removesuffix(', NAME:WEIGHT,...')}"]
        text += [f"{name} = {_toml(weight)}" for name, weight in layers.items()]
    return "\n".join(text) + "\n"


class _Presets(Mapping[str, Recipe]):
    """The presets that ship, one file each, read on first use."""

    def __getitem__(self, name: str) -> Recipe:
        return _preset(name)

    def __iter__(self) -> Iterator[str]:
        return iter(_presets())

    def __len__(self) -> int:
        return len(_presets())


RECIPES: Mapping[str, Recipe] = _Presets()
"""The presets by name."""


@cache
def _presets() -> tuple[str, ...]:
    found = (name.removesuffix(".toml") for item in _FOLDER.iterdir() if (name := item.name).endswith(".toml"))
    return tuple(sorted(found))


@cache
def _preset(name: str) -> Recipe:
    if name not in _presets():
        raise KeyError(name)
    base = Recipe() if name == "default" else RECIPES["default"]
    return _parse((_FOLDER / f"{name}.toml").read_text(encoding="utf-8"), f"preset '{name}'", name, base)


_FOLDER = resources.files("vggfeat.transfer") / "recipes"


def _parse(text: str, source: str, name: str, base: Recipe) -> Recipe:
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{source} is not TOML: {error}") from error
    return from_values({"name": name, "about": "", **values}, source, base)


def _mistyped(key: str, value: object, kind: type[object]) -> str | None:
    """Why `value` does not fit a field of the type `kind`; None if it does."""
    if key in LAYER_FIELDS:
        weights = cast("Mapping[object, object]", value).values() if isinstance(value, Mapping) else None
        if isinstance(value, str) or (weights is not None and all(map(_is_number, weights))):
            return None
        return 'not layers: write a table of weights, or "NAME:WEIGHT,..."'
    if key in TRIPLE_FIELDS:
        numbers = cast("Sequence[object]", value) if isinstance(value, list | tuple) else ("",)
        return None if len(numbers) in (0, 3) and all(map(_is_number, numbers)) else "not a list of three numbers"
    if kind is float:
        return None if _is_number(value) else "not a number"
    if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return None
    return "neither true nor false" if kind is bool else "not a whole number" if kind is int else "not text"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _toml(value: str | bool | float | list[float]) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    # A JSON string is a TOML string, except for the one control character that JSON does not escape.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f") if isinstance(value, str) else repr(value)
