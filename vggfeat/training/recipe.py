"""Training recipes: the network and how it is trained, as data. This module does not import torch."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from vggfeat.errors import InputError, RecipeError, check_number, one_of
from vggfeat.networks import arch
from vggfeat.networks.preprocessing import MEAN_HELP, ORDER_HELP, STD_HELP, AnyOrder, Preprocessing, of_fields

Augment = Literal["auto", "none", "shift", "photo"]
Optimiser = Literal["sgd", "adamw"]
Schedule = Literal["cosine", "step", "constant"]
HeadName = Literal["paper", "gap"]
Init = Literal["torchvision", "paper", "glorot"]

CHOICES: Mapping[str, tuple[str, ...]] = {
    "activation": get_args(arch.Activation),
    "head": get_args(HeadName),
    "init": get_args(Init),
    "input_order": get_args(AnyOrder),
    "augment": get_args(Augment),
    "optimiser": get_args(Optimiser),
    "schedule": get_args(Schedule),
}
"""The fields of a recipe that take one of a few words."""


def _help(text: str) -> dict[str, str]:
    return {"help": text}


@dataclass(frozen=True, kw_only=True)
class TrainingRecipe:
    """How to train a network. An epoch is one pass over the training pictures.

    Weight decay applies to the weights of convolutions and linear layers, not to biases and batch normalisation. The
    learning rate rises linearly over `warmup` epochs, then follows the schedule: `cosine` falls to 0 at the end, `step`
    multiplies it by `step_factor` every `step_epochs` epochs, `constant` keeps it.

    >>> recipe = TrainingRecipe(network="64,M,128", epochs=10, learning_rate=0.1)
    >>> [round(recipe.rate(epoch), 3) for epoch in (0, 0.5, 1, 10)]
    [0.0, 0.05, 0.1, 0.0]
    >>> TrainingRecipe(optimiser="adam")
    Traceback (most recent call last):
    vggfeat.errors.RecipeError: unknown optimiser 'adam': did you mean adamw?
    """

    network: str = field(default="A", metadata=_help("name of a network, or a plan such as 64,64,M,128,128,M"))
    batch_norm: bool = field(default=False, metadata=_help("add batch normalisation after every convolution"))
    activation: arch.Activation = field(default="relu", metadata=_help("activation function"))
    slope: float = field(default=arch.DEFAULT_SLOPE, metadata=_help("negative slope of leaky_relu"))
    head: HeadName = field(
        default="gap",
        metadata=_help("classifier; paper: three linear layers over 7x7 positions; gap: one over the average"),
    )
    hidden: int = field(default=4096, metadata=_help("units of the hidden linear layers of head paper"))
    dropout: float = field(default=0.5, metadata=_help("dropout probability in head paper"))
    init: Init = field(default="torchvision", metadata=_help("initialisation of new weights"))
    source: str = field(
        default="",
        metadata=_help("weights to start from: a name from `vggfeat weights`, or a file; random if not given"),
    )
    mean: Sequence[float] = field(default=(), metadata=_help(f"of the weights to start from: {MEAN_HELP}"))
    std: Sequence[float] = field(default=(), metadata=_help(f"of the weights to start from: {STD_HELP}"))
    input_order: AnyOrder = field(default="auto", metadata=_help(f"of the weights to start from: {ORDER_HELP}"))
    freeze: str = field(default="", metadata=_help("layers whose weights stay fixed, such as block1-3 or conv1_*"))
    size: int = field(default=0, metadata=_help("input side in pixels; 0 chooses by the data"))
    augment: Augment = field(
        default="auto",
        metadata=_help("augmentation; shift: translate, rotate, scale; photo: crop, flip, colour; auto: by the data"),
    )
    epochs: int = field(default=12, metadata=_help("number of passes over the training pictures"))
    batch_size: int = field(default=64, metadata=_help("pictures per step, over all processes"))
    optimiser: Optimiser = field(default="adamw", metadata=_help("optimiser"))
    learning_rate: float = field(default=5e-4, metadata=_help("highest learning rate"))
    momentum: float = field(default=0.9, metadata=_help("momentum of sgd"))
    weight_decay: float = field(default=5e-4, metadata=_help("weight decay"))
    schedule: Schedule = field(default="cosine", metadata=_help("learning rate schedule after the warm-up"))
    warmup: float = field(default=1.0, metadata=_help("epochs of linear warm-up"))
    step_epochs: float = field(default=10.0, metadata=_help("epochs between drops in schedule step"))
    step_factor: float = field(default=0.1, metadata=_help("factor of each drop in schedule step"))
    label_smoothing: float = field(default=0.0, metadata=_help("label smoothing"))
    patience: int = field(
        default=0, metadata=_help("stop after this many epochs without a better held-out accuracy; 0 disables it")
    )
    held_out: float = field(
        default=0.2, metadata=_help("share of each class to hold out, unless the data has a split of its own")
    )
    seed: int = field(default=0, metadata=_help("seed of weights, order, augmentation and split"))

    def __post_init__(self) -> None:
        """Check every field. Raises `RecipeError`, `LayerError`."""
        for option, known in CHOICES.items():
            one_of(option, getattr(self, option), known, kind=RecipeError)
        for option, (least, most) in _LIMITS.items():
            check_number(option, getattr(self, option), least, most, kind=RecipeError)
        object.__setattr__(self, "mean", tuple(self.mean))
        object.__setattr__(self, "std", tuple(self.std))
        try:
            asked = any(self.preprocessing.values())
        except InputError as error:
            raise RecipeError(str(error)) from None
        if asked and not self.source:
            raise RecipeError("mean, std and input order are those of weights to start from, and there are none")
        network = self.architecture()
        if self.size and self.size < (least := arch.layers(network)[-1].minimum_size):
            raise RecipeError(f"size is {self.size}: {network.name} needs at least {least} pixels a side")
        self.frozen_layers()

    @property
    def preprocessing(self) -> Preprocessing:
        """The preprocessing of the weights to start from, as far as the recipe names it."""
        return of_fields(self.mean, self.std, self.input_order)

    def architecture(self) -> arch.Network:
        """The plan of the network that is trained, with its activation and batch normalisation."""
        slope = self.slope if self.activation == "leaky_relu" else None
        return arch.network(self.network, batch_norm=self.batch_norm, slope=slope, in_channels=3)

    def frozen_layers(self) -> tuple[arch.Layer, ...]:
        """The layers whose weights stay fixed."""
        return arch.find_layers(self.architecture(), self.freeze) if self.freeze else ()

    def rate(self, epoch: float) -> float:
        """The learning rate after `epoch` epochs, which may be fractional."""
        rate = self.learning_rate
        if epoch < self.warmup:
            return rate * epoch / self.warmup
        match self.schedule:
            case "cosine":
                share = (epoch - self.warmup) / max(self.epochs - self.warmup, 1e-9)
                return rate * (1 + math.cos(math.pi * min(share, 1.0))) / 2
            case "step":
                return rate * self.step_factor ** int(epoch / self.step_epochs)
            case "constant":
                return rate

    def as_dict(self) -> dict[str, Any]:
        """The fields as plain values, for JSON and checkpoints."""
        return asdict(self)


# The smallest and largest value of each number; an int means that the field takes whole numbers.
_LIMITS: Mapping[str, tuple[float, float]] = {
    "slope": (-0.99, 0.99),
    "hidden": (1, 65536),
    "dropout": (0.0, 0.99),
    "size": (0, 4096),
    "epochs": (1, 100_000),
    "batch_size": (2, 1_000_000),
    "learning_rate": (0.0, 100.0),
    "momentum": (0.0, 0.9999),
    "weight_decay": (0.0, 1.0),
    "warmup": (0.0, 100_000.0),
    "step_epochs": (0.01, 100_000.0),
    "step_factor": (0.0, 1.0),
    "label_smoothing": (0.0, 0.99),
    "patience": (0, 100_000),
    "held_out": (0.01, 0.9),
    "seed": (0, 2**31 - 1),
}
