"""StyleRecipe: how a network of instant styles is trained. This module does not import torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from vggfeat.errors import RecipeError, check_number
from vggfeat.networks import arch
from vggfeat.transfer.styles.widths import StyleWidths

# The learning rate falls to zero over this last share of the steps.
_DECAY = 0.4


def _help(text: str) -> dict[str, str]:
    return {"help": text}


@dataclass(frozen=True, kw_only=True)
class StyleRecipe:
    """How to train instant styles: losses, training pictures, steps, and the size of the network.

    The style loss of a layer is divided by the mean square of the style's Gram matrix, so that styles of high and low
    contrast count equally. The content loss is divided by the mean square of the photographs' features.

    Raises `RecipeError`, `LayerError`, `InputError`.

    >>> recipe = StyleRecipe(steps=100, learning_rate=0.001)
    >>> recipe.rate(0), recipe.rate(60), recipe.rate(90)
    (0.001, 0.001, 0.00025)
    """

    network: str = field(default="vgg16", metadata=_help("VGG whose features the losses compare"))
    content_layers: Mapping[str, float] = field(
        default_factory=lambda: {"relu1_2": 1.0, "relu3_3": 1.0},  # relu1_2 sees light and dark
        metadata=_help("layers that compare a painting with its photograph, with weights"),
    )
    style_layers: Mapping[str, float] = field(
        default_factory=lambda: dict.fromkeys(("relu1_2", "relu2_2", "relu3_3", "relu4_1"), 1.0),
        metadata=_help("layers whose Gram matrices are compared, with weights"),
    )
    content_weight: float = field(default=1.0, metadata=_help("weight of the content"))
    style_weight: float = field(default=2.0, metadata=_help("weight of the style"))
    tv_weight: float = field(default=0.5, metadata=_help("weight of the total variation"))
    crop: int = field(default=128, metadata=_help("side of the squares of photographs, in pixels"))
    style_size: int = field(
        default=256, metadata=_help("short side to which styles are resized, which sets the size of their strokes")
    )
    photographs: int = field(default=2, metadata=_help("squares, cut from photographs, in each step"))
    styles: int = field(default=2, metadata=_help("styles in which each square is painted, up to all of them"))
    steps: int = field(default=4000, metadata=_help("optimisation steps; the learning rate falls in the last 40%"))
    learning_rate: float = field(default=2e-3, metadata=_help("learning rate of Adam, before it falls"))
    evaluate_every: int = field(default=100, metadata=_help("steps between evaluations, which write the preview"))
    patience: int = field(
        default=0, metadata=_help("stop after this many evaluations without a lower objective; 0 disables it")
    )
    seed: int = field(default=0, metadata=_help("seed of the weights and of the squares"))
    full: int = field(default=24, metadata=_help("channels at full size"))
    half: int = field(default=48, metadata=_help("channels at half size"))
    quarter: int = field(default=96, metadata=_help("channels at quarter size"))
    blocks: int = field(default=4, metadata=_help("residual blocks"))

    def __post_init__(self) -> None:
        for name, (least, most) in _LIMITS.items():
            check_number(name, getattr(self, name), least, most, kind=RecipeError)
        for name in LAYER_FIELDS:
            layers: Mapping[str, float] = dict(getattr(self, name))
            if not any(layers.values()):
                raise RecipeError(f"there are no {name.replace('_', ' ')}: name one, such as relu3_3")
            for layer, weight in layers.items():
                check_number(f"weight of {layer}", weight, 0.0, 1e6, kind=RecipeError)
            object.__setattr__(self, name, MappingProxyType(layers))
        arch.find_layers(self.network, list(self.layers))
        _ = self.widths

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that the losses read, each once."""
        return tuple(dict.fromkeys([*self.content_layers, *self.style_layers]))

    @property
    def widths(self) -> StyleWidths:
        """The channels and blocks of the network."""
        return StyleWidths(self.full, self.half, self.quarter, blocks=self.blocks)

    def rate(self, step: int) -> float:
        """The learning rate of a step; steps count from 0."""
        return self.learning_rate * min(1.0, (self.steps - step) / (_DECAY * self.steps))

    def as_dict(self) -> dict[str, Any]:
        """The fields as plain values for JSON."""
        return {name: dict(value) if isinstance(value, Mapping) else value for name, value in vars(self).items()}


LAYER_FIELDS = ("content_layers", "style_layers")
"""The fields that map layers to weights."""

_LIMITS: Mapping[str, tuple[float, float]] = {
    "content_weight": (0.0, 1e6),
    "style_weight": (0.0, 1e6),
    "tv_weight": (0.0, 1e6),
    "crop": (32, 4096),
    "style_size": (32, 8192),
    "photographs": (1, 1024),
    "styles": (1, 1024),
    "steps": (1, 10**9),
    "learning_rate": (1e-8, 1.0),
    "evaluate_every": (1, 10**9),
    "patience": (0, 10**9),
    "seed": (0, 2**63 - 1),
}
