"""Networks as rows of data, and everything that can be computed from a row without a tensor.

A plan is a row such as ``(64, 64, "M", 128, 128, "M", ...)``: a number is a 3x3 convolution with that many
channels followed by a ReLU, ``"M"`` a 2x2 max-pool, ``"LRN"`` a local response normalisation; `Conv` and `Pool`
spell out the exceptions. Names, `features` indices, strides, receptive fields, sizes, parameters and
multiply-accumulates all follow from it. This module imports no torch.

Sources: Simonyan & Zisserman, "Very deep convolutional networks for large-scale image recognition" (ICLR 2015),
table 1, for A to E; torchvision's `models.vgg` and `models.alexnet` for the order of the `features` stack.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cache
from math import floor
from typing import Literal

from vggfeat.errors import InputError, LayerError, near

Kind = Literal["conv", "bn", "relu", "lrn", "pool"]
Pooling = Literal["max", "avg", "l2"]


@dataclass(frozen=True, slots=True)
class Conv:
    """A convolution and its ReLU. `kernel`, `stride` and `padding` in pixels of its input."""

    channels: int
    kernel: int = 3
    stride: int = 1
    padding: int = 1


@dataclass(frozen=True, slots=True)
class Pool:
    """A pooling window. `kernel`, `stride` and `padding` in pixels of its input."""

    kernel: int = 2
    stride: int = 2
    padding: int = 0


Plan = tuple[int | str | Conv | Pool, ...]

_1x1 = {"kernel": 1, "padding": 0}

_A: Plan = (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M")
_A_LRN: Plan = (64, "LRN", *_A[1:])
_B: Plan = (64, 64, "M", 128, 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M")
_C: Plan = (
    *(64, 64, "M"),
    *(128, 128, "M"),
    *(256, 256, Conv(256, **_1x1), "M"),
    *(512, 512, Conv(512, **_1x1), "M"),
    *(512, 512, Conv(512, **_1x1), "M"),
)
_D: Plan = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M")
_E: Plan = (64, 64, "M", 128, 128, "M", 256, 256, 256, 256, "M", 512, 512, 512, 512, "M", 512, 512, 512, 512, "M")
_ALEXNET: Plan = (
    *(Conv(64, kernel=11, stride=4, padding=2), Pool(kernel=3)),
    *(Conv(192, kernel=5, padding=2), Pool(kernel=3)),
    *(384, 256, 256, Pool(kernel=3)),
)


@dataclass(frozen=True, slots=True)
class Network:
    """A named row: the plan of a `features` stack, and whether each convolution is batch-normalised."""

    name: str
    plan: Plan
    batch_norm: bool = False


NETWORKS: Mapping[str, Network] = {
    network.name: network
    for network in (
        *(Network(f"vgg{depth}", plan) for depth, plan in ((11, _A), (13, _B), (16, _D), (19, _E))),
        *(Network(f"vgg{depth}_bn", plan, batch_norm=True) for depth, plan in ((11, _A), (13, _B), (16, _D), (19, _E))),
        *(Network(name, plan) for name, plan in zip("ABCDE", (_A, _B, _C, _D, _E), strict=True)),
        Network("A-LRN", _A_LRN),
        Network("alexnet", _ALEXNET),  # not a VGG; LPIPS is defined on it, and the same table describes it
    )
}


@dataclass(frozen=True, slots=True)
class Layer:
    """One operation of the `features` stack.

    `kernel`, `step` and `padding` describe the operation itself, in pixels of its input. `stride`,
    `receptive_field` and `start`, the first pixel that the first position sees, are those of the whole stack up to
    here, in pixels of the image; in the padding `start` is negative. `parameters` is cumulative; `minimum_size` is
    the smallest image side for which this layer's output is not empty.
    """

    name: str
    index: int
    kind: Kind
    in_channels: int
    channels: int
    kernel: int
    step: int
    padding: int
    stride: int
    receptive_field: int
    start: int
    parameters: int
    minimum_size: int

    def span(self, position: int) -> range:
        """The pixels that a position sees along one side. Those outside the image are padding."""
        first = self.start + position * self.stride
        return range(first, first + self.receptive_field)

    @property
    def offset(self) -> float:
        """The middle of what the first position sees; pixel 0 has its centre at 0. Each later one is a stride on."""
        return self.start + (self.receptive_field - 1) / 2

    def position(self, pixel: float) -> int:
        """The position whose middle is nearest to a pixel; it may lie outside the output."""
        return floor((pixel - self.offset) / self.stride + 0.5)

    def output_side(self, side: int) -> int:
        """Pixels along one side of this operation's output, given those of its input."""
        return (side + 2 * self.padding - self.kernel) // self.step + 1


@dataclass(frozen=True, slots=True)
class SizedLayer:
    """A row of the printed layer table. `parameters` and `macs` (multiply-accumulates of one image) are cumulative."""

    name: str
    index: int
    kind: Kind
    channels: int
    stride: int
    receptive_field: int
    height: int
    width: int
    parameters: int
    macs: int


def network(name: str) -> Network:
    """The row called `name`. Raises `LayerError` for an unknown name."""
    if name not in NETWORKS:
        raise LayerError(f"unknown network '{name}': {near(str(name), NETWORKS)}")
    return NETWORKS[name]


# The pool that stands for "M": L2 pooling is that of DISTS, a 3x3 window of stride 2 padded by 1.
_POOLS: Mapping[Pooling, Pool] = {"max": Pool(), "avg": Pool(), "l2": Pool(kernel=3, stride=2, padding=1)}


@dataclass(frozen=True, slots=True)
class _Operation:
    """A layer before anything is accumulated."""

    name: str
    kind: Kind
    channels: int
    kernel: int = 1
    step: int = 1
    padding: int = 0
    parameters: int = 0


def _operations(row: Network, pooling: Pooling) -> Iterator[_Operation]:
    """Parse a plan: one operation for each module that torchvision's builder would make of it."""
    block, unit, channels = 1, 0, 3
    for item in row.plan:
        match item:
            case "M" | Pool():
                pool = item if isinstance(item, Pool) else _POOLS[pooling]
                yield _Operation(f"pool{block}", "pool", channels, pool.kernel, pool.stride, pool.padding)
                block, unit = block + 1, 0
            case "LRN":
                yield _Operation(f"lrn{block}_{unit}", "lrn", channels)
            case int() | Conv():
                conv = item if isinstance(item, Conv) else Conv(item)
                unit += 1
                place = f"{block}_{unit}"
                weights = conv.channels * (channels * conv.kernel**2 + 1)
                channels = conv.channels
                yield _Operation(f"conv{place}", "conv", channels, conv.kernel, conv.stride, conv.padding, weights)
                if row.batch_norm:
                    yield _Operation(f"bn{place}", "bn", channels, parameters=2 * channels)
                yield _Operation(f"relu{place}", "relu", channels)
            case _:
                raise LayerError(f"a plan holds channels, 'M', 'LRN', Conv or Pool, not {item!r}")


@cache
def layers(name: str, *, pooling: Pooling = "max") -> tuple[Layer, ...]:
    """The layers of a network in the order of its `features` stack.

    `pooling` replaces the plan's max-pools; `"l2"` also changes their window, and with it all that follows.
    """
    table: list[Layer] = []
    channels, stride, field, start, parameters, minimum = 3, 1, 1, 0, 0, 1
    for index, op in enumerate(_operations(network(name), pooling)):
        field += (op.kernel - 1) * stride
        start -= op.padding * stride
        stride *= op.step
        parameters += op.parameters
        layer = Layer(
            name=op.name,
            index=index,
            kind=op.kind,
            in_channels=channels,
            channels=op.channels,
            kernel=op.kernel,
            step=op.step,
            padding=op.padding,
            stride=stride,
            receptive_field=field,
            start=start,
            parameters=parameters,
            minimum_size=minimum,
        )
        minimum = _minimum_side((*table, layer))
        table.append(replace(layer, minimum_size=minimum))
        channels = op.channels
    return tuple(table)


def _minimum_side(stack: Iterable[Layer]) -> int:
    """The smallest image side that leaves at least one pixel after `stack`, walked from its end."""
    side = 1
    for layer in reversed(tuple(stack)):
        side = max(1, (side - 1) * layer.step + layer.kernel - 2 * layer.padding)
    return side


def state_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """The tensors of a `features` state dict by torchvision's key names, in their order, with their shapes."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in layers(name):
        match layer.kind:
            case "conv":
                tensors = {"weight": (layer.channels, layer.in_channels, layer.kernel, layer.kernel)}
                vectors = ("bias",)
            case "bn":
                tensors, vectors = {}, ("weight", "bias", "running_mean", "running_var")
            case _:
                continue
        tensors |= dict.fromkeys(vectors, (layer.channels,))
        shapes |= {f"features.{layer.index}.{key}": shape for key, shape in tensors.items()}
    return shapes


def find(name: str, patterns: str | int | Iterable[str | int], *, pooling: Pooling = "max") -> tuple[Layer, ...]:
    """The layers that `patterns` name, each once, in the order of the network.

    A pattern is a name (`relu3_3`), an index (`features.15`, `15`) or a glob (`relu3_*`, `relu?_1`); a string may
    hold several, separated by commas. Raises `LayerError` for a pattern that matches nothing.
    """
    if isinstance(patterns, str | int):
        patterns = [patterns]
    wanted = [word.strip() for pattern in patterns for word in str(pattern).split(",") if word.strip()]
    if not wanted:
        raise LayerError(f"no layer of {name} was asked for: name one, such as relu3_1")
    table = layers(name, pooling=pooling)
    found: set[int] = set()
    for word in wanted:
        matches = {layer.index for layer in table if _names(word, layer)}
        if not matches:
            raise LayerError(_unknown(name, word, table))
        found |= matches
    return tuple(layer for layer in table if layer.index in found)


def _names(word: str, layer: Layer) -> bool:
    return word in (str(layer.index), f"features.{layer.index}") or fnmatchcase(layer.name, word)


def _unknown(name: str, word: str, table: tuple[Layer, ...]) -> str:
    """The message for a pattern that matches nothing, naming what stands nearest."""
    if word.removeprefix("features.").isdecimal():
        return f"unknown layer '{word}' of {name}: features has 0 to {table[-1].index}"
    kind = word.rstrip("0123456789_*?[]").lower()
    names = [layer.name for layer in table if layer.kind == kind]
    if not names:
        kinds = ", ".join(dict.fromkeys(layer.kind for layer in table))
        close = near(word, [layer.name for layer in table])
        return f"unknown layer '{word}' of {name}: its kinds are {kinds}; " + (
            close if close.startswith("near") else f"it has {table[0].name} to {table[-1].name}"
        )
    block = word.lower().removeprefix(kind).partition("_")[0]
    same_block = [other for other in names if other.removeprefix(kind).partition("_")[0] == block]
    if same_block:
        return f"unknown layer '{word}' of {name}: block {block} has {', '.join(same_block)}"
    return f"unknown layer '{word}' of {name}: {kind} layers are {', '.join(names)}"


def sized_layers(
    name: str, height: int = 224, width: int | None = None, *, pooling: Pooling = "max"
) -> tuple[SizedLayer, ...]:
    """The layer table for an image of `height` x `width` pixels (square where `width` is left out).

    Raises `InputError` where the image is too small for the network's last layer.
    """
    width = height if width is None else width
    table = layers(name, pooling=pooling)
    if min(height, width) < table[-1].minimum_size:
        raise InputError(
            f"{height}x{width} is too small for {name}: "
            f"{table[-1].name} needs at least {table[-1].minimum_size} pixels a side"
        )
    rows: list[SizedLayer] = []
    macs = 0
    for layer in table:
        height, width = layer.output_side(height), layer.output_side(width)
        if layer.kind == "conv":
            macs += height * width * layer.channels * layer.in_channels * layer.kernel**2
        rows.append(
            SizedLayer(
                name=layer.name,
                index=layer.index,
                kind=layer.kind,
                channels=layer.channels,
                stride=layer.stride,
                receptive_field=layer.receptive_field,
                height=height,
                width=width,
                parameters=layer.parameters,
                macs=macs,
            )
        )
    return tuple(rows)
