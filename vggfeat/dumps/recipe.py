"""The recipe of a dump: what it computes, as data. This module does not import torch."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, get_args

from vggfeat.errors import InputError, RecipeError, one_of
from vggfeat.networks import arch
from vggfeat.networks.preprocessing import InputOrder, Preprocessing, check
from vggfeat.pictures.sizes import Interpolation, parse_size

Dtype = Literal["float32", "float16"]
Precision = Literal["float32", "tf32", "bfloat16", "float16", "auto"]
Resize = int | tuple[int, int] | None

# `reductions` computes them.
REDUCTIONS: Mapping[str, str] = {
    "full": "the features as they are",
    "mean": "the mean of each channel",
    "max": "the greatest value of each channel",
    "avg7": "means over 7x7 parts",
    "gram": "the Gram matrix, divided by H·W",
    "center": "the vector in the middle",
    "projK": "a seeded random projection to K numbers, such as proj256",
    "none": "nothing, where statistics are all that is wanted",
}

# The number of pictures that statistics list for each channel.
TOP = 8

_PROJECTION = re.compile(r"proj([1-9]\d{0,6})")


@dataclass(frozen=True, kw_only=True)
class DumpRecipe:
    """The computation for each picture of a dump.

    `reductions`: {layer: its reductions}, in network order. `resize`: pixels of the short side, (width, height), or
    None to keep sizes. `crop`: side of the centre square in pixels, or None. `dtype`: of the stored arrays; float16
    clips values to its range and counts them. `precision`: of the network's arithmetic. `mean`, `std` and
    `input_order` replace the preprocessing of the weights, see `weights.Preprocessing`. `seed`: of random weights and
    projections. `cka` and `rdm` store the channel means of each picture; `rdm` is the number of pictures in the RDM,
    the first ones. `interpolation`: how pictures are resized.
    """

    network: str
    reductions: Mapping[str, tuple[str, ...]]
    weights: str | None = "default"
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    input_order: InputOrder | None = None
    pooling: arch.Pooling = "max"
    seed: int = 0
    resize: Resize = 224
    crop: int | None = 224
    dtype: Dtype = "float32"
    precision: Precision = "float32"
    statistics: bool = False
    cka: bool = False
    rdm: int = 0
    interpolation: Interpolation = "bilinear"

    def __post_init__(self) -> None:
        for option, known in (
            ("dtype", get_args(Dtype)),
            ("precision", get_args(Precision)),
            ("pooling", get_args(arch.Pooling)),
            ("interpolation", get_args(Interpolation)),
        ):
            one_of(option, getattr(self, option), known, kind=RecipeError)
        sides = self.resize if isinstance(self.resize, tuple) else (self.resize,)
        check(self.preprocessing)
        numbers = {"resize": sides, "crop": (self.crop,)}
        for option, values in numbers.items():
            for value in values:
                if value is not None and not 1 <= value <= 65536:
                    raise RecipeError(f"{option} is {value}: it must be between 1 and 65536 pixels")
        least = min((side for side in sides if side is not None), default=None)
        if self.crop is not None and least is not None and self.crop > least:
            raise RecipeError(f"crop is {self.crop} and pictures are resized to {least}: there is nothing to cut from")
        if self.rdm < 0:
            raise RecipeError(f"rdm is {self.rdm}: it must be a number of pictures")
        if not any(self.reductions.values()) and not self.measures:
            raise RecipeError("nothing would be stored: ask for a reduction or for statistics")
        if self.fixed_side and min(self.fixed_side) < self.minimum_size:
            height, width = self.fixed_side
            raise RecipeError(
                f"pictures of {height}x{width} pixels are too small for {self.layers[-1]} of {self.network}: "
                f"it needs at least {self.minimum_size} a side"
            )

    def __reduce__(self) -> tuple[Any, ...]:
        # MappingProxyType does not pickle.
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return _rebuild, (values | {"reductions": dict(self.reductions)},)

    @property
    def preprocessing(self) -> Preprocessing:
        """The preprocessing of the weights, as far as the recipe names it."""
        return {"mean": self.mean, "std": self.std, "input_order": self.input_order}

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers, in network order."""
        return tuple(self.reductions)

    @property
    def outputs(self) -> tuple[tuple[str, str], ...]:
        """The (layer, reduction) of each stored array."""
        return tuple((layer, reduction) for layer, wanted in self.reductions.items() for reduction in wanted)

    @property
    def measures(self) -> bool:
        """Whether statistics, CKA or an RDM are requested."""
        return self.statistics or self.cka or self.rdm > 0

    @property
    def keeps_means(self) -> bool:
        """Whether the channel means of each picture are stored."""
        return self.cka or self.rdm > 0

    @property
    def fixed_side(self) -> tuple[int, int] | None:
        """The (height, width) of every image that the network receives; None if sizes differ."""
        if self.crop is not None:
            return self.crop, self.crop
        return (self.resize[1], self.resize[0]) if isinstance(self.resize, tuple) else None

    @property
    def minimum_size(self) -> int:
        """The smallest image side for which the deepest layer has an output."""
        return self._found[-1].minimum_size

    @property
    def reads_classifier(self) -> bool | None:
        """Whether the deepest layer needs the weights of a classifier, see `arch.reads_classifier`."""
        return arch.reads_classifier(self._found)

    @property
    def _found(self) -> tuple[arch.Layer, ...]:
        return arch.find_layers(self.network, self.layers, pooling=self.pooling, head="paper")

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON values. A `seed` that has no effect is None."""
        projects = any(_PROJECTION.fullmatch(reduction) for _, reduction in self.outputs)
        about: dict[str, Any] = {
            "network": self.network,
            "pooling": self.pooling,
            "layers": list(self.layers),
            "reductions": {layer: list(wanted) for layer, wanted in self.reductions.items()},
            "resize": list(self.resize) if isinstance(self.resize, tuple) else self.resize,
            "crop": self.crop,
            "dtype": self.dtype,
            "precision": self.precision,
            "seed": self.seed if projects or self.weights is None else None,
            "statistics": TOP if self.statistics else None,
            "cka": self.cka,
            "rdm": self.rdm,
        }
        # Dumps were bilinear before there was a choice.
        return about if self.interpolation == "bilinear" else about | {"interpolation": self.interpolation}

    @classmethod
    def from_dict(cls, about: Mapping[str, Any], weights: str | None) -> "DumpRecipe":
        """Rebuild a recipe from a fingerprint, which is `as_dict` and a description of the `weights`."""
        resize: Any = about["resize"]
        found: Mapping[str, Any] = about["weights"]
        return cls(
            network=about["network"],
            reductions={layer: tuple(about["reductions"][layer]) for layer in about["layers"]},
            weights=weights,
            mean=found.get("mean"),
            std=found.get("std"),
            input_order=found.get("input_order"),
            pooling=about["pooling"],
            seed=about["seed"] or 0,
            resize=tuple(resize) if isinstance(resize, list) else resize,
            crop=about["crop"],
            dtype=about["dtype"],
            precision=about["precision"],
            statistics=about["statistics"] is not None,
            cka=about["cka"],
            rdm=about["rdm"],
            interpolation=about.get("interpolation", "bilinear"),
        )


def _rebuild(values: dict[str, Any]) -> DumpRecipe:
    return DumpRecipe(**values)


def parse_reductions(
    network: str, layers: str | Iterable[str], reduce: str | Iterable[str], *, pooling: arch.Pooling = "max"
) -> Mapping[str, tuple[str, ...]]:
    """Parse reductions, such as `full,mean` for all layers or `relu3_3:full` for some, to {layer: reductions}.

    Raises `LayerError` for an unknown layer, `RecipeError` for an unknown reduction or a layer without any.

    >>> dict(parse_reductions("vgg11", "relu1_1,relu2_1", "mean,relu2_1:full"))
    {'relu1_1': ('mean',), 'relu2_1': ('mean', 'full')}
    """
    named = [layer.name for layer in arch.find_layers(network, layers, pooling=pooling, head="paper")]
    wanted: dict[str, list[str]] = {name: [] for name in named}
    words = [reduce] if isinstance(reduce, str) else list(reduce)
    for word in (part.strip() for text in words for part in text.split(",") if part.strip()):
        pattern, colon, reduction = word.rpartition(":")
        if not projection_size(reduction):
            one_of("reduction", reduction, REDUCTIONS, kind=RecipeError)
        if reduction == "projK":
            raise RecipeError("projK needs its number, such as proj256")
        matching = arch.find_layers(network, pattern, pooling=pooling, head="paper") if colon else ()
        chosen = [layer.name for layer in matching] if colon else named
        if outside := [name for name in chosen if name not in wanted]:
            raise RecipeError(f"'{word}' is about {outside[0]}, which is none of the layers: {', '.join(named)}")
        for name in chosen:
            if reduction not in wanted[name]:
                wanted[name].append(reduction)
    if without := [name for name, found in wanted.items() if not found]:
        raise RecipeError(f"{', '.join(without)} has no reduction: name one for all layers, such as mean")
    return MappingProxyType(
        {name: tuple(reduction for reduction in found if reduction != "none") for name, found in wanted.items()}
    )


def projection_size(reduction: str) -> int | None:
    """K of `projK`; None for another reduction."""
    found = _PROJECTION.fullmatch(reduction)
    return int(found[1]) if found else None


def parse_resize(text: str) -> Resize:
    """Read `224`, `320x240` (width x height) or `none`. Raises `RecipeError`."""
    if text == "none":
        return None
    try:
        return parse_size(text)
    except InputError as error:
        raise RecipeError(f"resize: {error}, nor none") from error


def default_crop(resize: Resize) -> int | None:
    """The crop that `auto` means: a square of the short side that `resize` names, or None."""
    return resize if isinstance(resize, int) else None


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The fields in which two fingerprints differ, each as `name ours, not theirs`."""
    found: list[str] = []
    for name in dict.fromkeys([*ours, *theirs]):
        a, b = ours.get(name), theirs.get(name)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += differences(a, b, f"{prefix}{name}.")
        elif a != b:
            found.append(f"{prefix}{name} {_short(a)}, not {_short(b)}")
    return found


def _short(value: Any) -> str:
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 40 else f"{text[:16]}..."
