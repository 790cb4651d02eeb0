"""Recipes: what a style transfer optimises and how, as data. No torch here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, Literal, get_args

from vggfeat import arch
from vggfeat.errors import LayerError, RecipeError, near

Optimiser = Literal["lbfgs", "adam"]

CHOICES: Mapping[str, tuple[str, ...]] = {
    "pooling": get_args(arch.Pooling),
    "optimiser": get_args(Optimiser),
}
"""The fields of a recipe that are one of a few words."""

LAYER_FIELDS = ("content_layers", "style_layers")
"""The fields of a recipe that weigh layers."""


def _help(text: str) -> dict[str, str]:
    return {"help": text}


def _ones(*layers: str) -> Callable[[], Mapping[str, float]]:
    return lambda: dict.fromkeys(layers, 1.0)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a picture is painted in a style. Sizes are those of the long side, in pixels.

    The objective is `content_weight` x the mean square difference of the content layers' features, plus
    `style_weight` x that of the style layers' Gram matrices (divided by C·H·W), each times its layer's weight, plus
    `tv_weight` x the total variation of the image in [0, 1].
    """

    name: str = field(default="custom", metadata=_help("what the recipe is called"))
    network: str = field(default="vgg19", metadata=_help("network that looks at the pictures"))
    weights: str = field(default="default", metadata=_help("its weights: a name, or a file"))
    pooling: arch.Pooling = field(default="max", metadata=_help("its pooling: max, avg or l2"))
    content_layers: Mapping[str, float] = field(
        default_factory=_ones("relu4_2"), metadata=_help("layers that keep the content, NAME:WEIGHT,...")
    )
    style_layers: Mapping[str, float] = field(
        default_factory=_ones("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"),
        metadata=_help("layers that carry the style, NAME:WEIGHT,..."),
    )
    content_weight: float = field(default=1.0, metadata=_help("weight of the content term"))
    style_weight: float = field(default=1.0, metadata=_help("weight of the style term"))
    tv_weight: float = field(default=0.0, metadata=_help("weight of the total variation, which smooths"))
    style_scale: float = field(default=1.0, metadata=_help("size of the style's strokes against the picture"))
    margin: int = field(
        default=0,
        metadata=_help("pixels mirrored around the pictures, so that no border is painted; a multiple of 16"),
    )
    start: str = field(default="content", metadata=_help("what to start from: content, noise, or a picture file"))
    first_size: int = field(default=256, metadata=_help("size of the first, coarsest stage"))
    growth: float = field(default=2.0, metadata=_help("factor from one stage's size to the next"))
    steps: int = field(default=100, metadata=_help("optimisation steps of the first stage"))
    step_decay: float = field(default=1.0, metadata=_help("factor from one stage's steps to the next's"))
    optimiser: Optimiser = field(default="lbfgs", metadata=_help("lbfgs or adam"))
    learning_rate: float = field(default=0.02, metadata=_help("Adam's step, in units of the picture's range"))
    seed: int = field(default=0, metadata=_help("seed of the noise"))

    def __post_init__(self) -> None:
        """Name every layer, and refuse what no run could use. Raises `RecipeError`, `LayerError`."""
        try:
            arch.network(self.network)
        except LayerError as error:
            raise RecipeError(str(error)) from None
        for option, known in CHOICES.items():
            word: object = getattr(self, option)
            if word not in known:
                raise RecipeError(f"unknown {option} '{word}': {near(str(word), known)}")
        for option in LAYER_FIELDS:
            object.__setattr__(self, option, _named(self.network, getattr(self, option)))
        if not any(self.layer_weights().values()):
            raise RecipeError("a recipe needs a content or a style layer of some weight")
        for option, (least, most) in _LIMITS.items():
            value: object = getattr(self, option)
            whole = isinstance(least, int)
            if not isinstance(value, int if whole else int | float) or not least <= value <= most:
                kind = "a whole number" if whole else "a number"
                raise RecipeError(
                    f"{option.replace('_', ' ')} is {value}: it must be {kind} between {least:g} and {most:g}"
                )
        stride = self.deepest_layer().stride
        if self.margin % stride:
            raise RecipeError(f"margin is {self.margin}: it must be a multiple of {stride}, the deepest layer's stride")

    def deepest_layer(self) -> arch.Layer:
        """The last layer that is read."""
        return arch.find(self.network, self.layer_weights())[-1]

    def as_dict(self) -> dict[str, Any]:
        """The fields as plain values, for JSON."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return values | {option: dict(values[option]) for option in LAYER_FIELDS}

    def layer_weights(self) -> dict[str, float]:
        """The weight of each layer that is read, content and style together."""
        weights = {name: self.content_weight * weight for name, weight in self.content_layers.items()}
        for name, weight in self.style_layers.items():
            weights[name] = weights.get(name, 0.0) + self.style_weight * weight
        return weights


# Least and most of each number; whole numbers where the least is one.
_LIMITS: Mapping[str, tuple[float, float]] = {
    "content_weight": (0.0, 1e12),
    "style_weight": (0.0, 1e12),
    "tv_weight": (0.0, 1e12),
    "style_scale": (0.05, 20.0),
    "margin": (0, 1024),
    "first_size": (16, 65536),
    "growth": (1.1, 16.0),
    "steps": (1, 1_000_000),
    "step_decay": (0.01, 10.0),
    "learning_rate": (1e-6, 1.0),
    "seed": (0, 2**63 - 1),
}


def _named(network: str, layers: Mapping[str, float]) -> Mapping[str, float]:
    """Weighed layers by their names, read-only: globs and indices are looked up."""
    if not isinstance(layers, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance] (callers may not be typed)
        raise RecipeError(f"layers come as {{name: weight}}, not as {type(layers).__name__}")
    named: dict[str, float] = {}
    for pattern, weight in layers.items():
        for layer in arch.find(network, pattern):
            if not 0 <= weight <= 1e12:
                raise RecipeError(f"{layer.name} has the weight {weight:g}: it must be between 0 and 1e12")
            named[layer.name] = float(weight)
    return MappingProxyType(named)


def parse_layers(network: str, text: str) -> dict[str, float]:
    """Read `relu1_1:0.5,relu3_*`: layers or globs with their weights, 1 where none is given.

    Raises `LayerError` for an unknown layer, `RecipeError` for a weight that is not a number.
    """
    weights: dict[str, float] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, colon, weight = item.partition(":")
        try:
            value = float(weight) if colon else 1.0
        except ValueError:
            raise RecipeError(f"'{item}' gives {name} the weight '{weight}', which is not a number") from None
        weights |= {layer.name: value for layer in arch.find(network, name)}
    return weights


def format_layers(weights: Mapping[str, float]) -> str:
    """What `parse_layers` reads."""
    return ",".join(name if weight == 1 else f"{name}:{weight:g}" for name, weight in weights.items())


# The Gatys notebook weighs Gram matrices divided by H·W by 1e3 / C² a layer: divided by C·H·W, that is 1e3 for each.
RECIPES: Mapping[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(name="default", style_weight=1e3, content_weight=8.0, steps=60, margin=16),
        Recipe(name="gatys", weights="oxford", style_weight=1e3, steps=100),
    )
}


def recipe(name: str, **changes: Any) -> Recipe:  # noqa: ANN401 (the fields' own types)
    """The recipe called `name`, with the fields in `changes` replaced. Raises `RecipeError`."""
    if name not in RECIPES:
        raise RecipeError(f"unknown recipe '{name}': {near(name, RECIPES)}")
    known = {field.name for field in fields(Recipe)}
    for option in changes:
        if option not in known:
            raise RecipeError(f"unknown option '{option}' of a recipe: {near(option, known)}")
    return replace(RECIPES[name], **changes)
