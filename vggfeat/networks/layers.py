"""The layers of a network, derived from its plan: names, shapes, strides, receptive fields, costs. No torch.

Layers are named `conv3_3`, `bn3_3`, `relu3_3`, `pool3`: the operation, the block, and the convolution's number within
the block. Their indices are those of torchvision's `features`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cache
from math import floor
from typing import Literal

from vggfeat.errors import InputError, LayerError, did_you_mean, similar
from vggfeat.networks.plans import Conv, Network, Pool, network

Kind = Literal["conv", "bn", "relu", "lrn", "pool"]
Pooling = Literal["max", "avg", "l2"]


@dataclass(frozen=True, slots=True)
class Layer:
    """One operation of the `features` stack.

    `kernel`, `step` and `padding` describe the operation itself, in pixels of its input. `stride`, `receptive_field`
    (the side of a square) and `start` describe the stack up to and including the layer, in pixels of the image:
    `start` is the first pixel of the first position's receptive field, negative inside the padding. `parameters` counts
    the stack's parameters up to and including the layer. `minimum_size` is the smallest image side for which the
    layer's output is not empty. `slope` is the negative slope of an activation.

    >>> [relu] = find_layers("vgg16", "relu3_3")
    >>> relu.index, relu.channels, relu.stride, relu.receptive_field
    (15, 256, 4, 40)
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
    slope: float = 0.0

    @property
    def block(self) -> int:
        """The number of the block, from 1. A pool ends its block."""
        return int(re.sub(r"^[a-z]+|_.*$", "", self.name))

    def span(self, position: int) -> range:
        """The receptive field of a position along one side, in pixels. Those outside the image are padding."""
        first = self.start + position * self.stride
        return range(first, first + self.receptive_field)

    @property
    def offset(self) -> float:
        """The centre of the first position's receptive field, in pixels; pixel 0 has its centre at 0."""
        return self.start + (self.receptive_field - 1) / 2

    def position(self, pixel: float) -> int:
        """The position whose receptive field is centred nearest to a pixel. It may lie outside the output."""
        return floor((pixel - self.offset) / self.stride + 0.5)

    def output_side(self, side: int) -> int:
        """The output's side in pixels, for an input of `side` pixels."""
        return (side + 2 * self.padding - self.kernel) // self.step + 1

    def macs(self, height: int, width: int) -> int:
        """Multiply-accumulates of this layer for an output of `height` x `width`; only convolutions are counted."""
        return height * width * self.channels * self.in_channels * self.kernel**2 if self.kind == "conv" else 0


@dataclass(frozen=True, slots=True)
class SizedLayer:
    """A line of the printed layer table: a layer at one image size.

    `parameters` and `macs` (multiply-accumulates of one image) are cumulative.
    """

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


# The pool that stands for "M". L2 pooling is that of DISTS: a 3x3 window with a stride of 2 and a padding of 1.
_POOLS: Mapping[Pooling, Pool] = {"max": Pool(), "avg": Pool(), "l2": Pool(kernel=3, stride=2, padding=1)}


@dataclass(frozen=True, slots=True)
class _Operation:
    """A layer by itself, before anything is accumulated over the stack."""

    name: str
    kind: Kind
    channels: int
    kernel: int = 1
    step: int = 1
    padding: int = 0
    parameters: int = 0
    slope: float = 0.0


def _operations(network: Network, pooling: Pooling) -> Iterator[_Operation]:
    """One operation for each module that torchvision's builder makes of the plan."""
    block, unit, channels = 1, 0, network.in_channels
    for item in network.plan:
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
                if network.batch_norm:
                    yield _Operation(f"bn{place}", "bn", channels, parameters=2 * channels)
                yield _Operation(f"relu{place}", "relu", channels, slope=network.slope)
            case _:
                raise LayerError(f"a plan holds channels, 'M', 'LRN', Conv or Pool, not {item!r}")


@cache
def layers(name: str | Network, *, pooling: Pooling = "max") -> tuple[Layer, ...]:
    """The layers of a network, in the order of its `features` stack.

    `pooling` replaces the plan's max-pools. `"l2"` also changes their window, and so every receptive field after them.

    >>> [layer.name for layer in layers("64,M,128")]
    ['conv1_1', 'relu1_1', 'pool1', 'conv2_1', 'relu2_1']
    """
    table: list[Layer] = []
    known = network(name)
    channels, stride, field, start, parameters, minimum = known.in_channels, 1, 1, 0, 0, 1
    for index, op in enumerate(_operations(known, pooling)):
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
            slope=op.slope,
        )
        minimum = _minimum_side((*table, layer))
        table.append(replace(layer, minimum_size=minimum))
        channels = op.channels
    return tuple(table)


def _minimum_side(stack: Iterable[Layer]) -> int:
    """The smallest image side that leaves at least one pixel after `stack`."""
    side = 1
    for layer in reversed(tuple(stack)):
        side = max(1, (side - 1) * layer.step + layer.kernel - 2 * layer.padding)
    return side


def find_layers(
    name: str | Network, patterns: str | int | Iterable[str | int], *, pooling: Pooling = "max"
) -> tuple[Layer, ...]:
    """The layers that match `patterns`, each once, in the order of the network.

    A pattern is a name (`relu3_3`), an index (`features.15`, `15`), a glob (`relu3_*`, `relu?_1`) or a range of blocks
    (`block3`, `block1-3`). A string may hold several patterns, separated by commas. Raises `LayerError` for a pattern
    that matches nothing.

    >>> [layer.name for layer in find_layers("vgg16", "relu?_1, 15")]
    ['relu1_1', 'relu2_1', 'relu3_1', 'relu3_3', 'relu4_1', 'relu5_1']
    """
    table = layers(name, pooling=pooling)
    name = network(name).name
    if isinstance(patterns, str | int):
        patterns = [patterns]
    wanted = [word.strip() for pattern in patterns for word in str(pattern).split(",") if word.strip()]
    if not wanted:
        raise LayerError(f"no layer of {name} was asked for: name one, such as relu3_1")
    found: set[int] = set()
    for word in wanted:
        matches = {layer.index for layer in table if _names(word, layer)}
        if not matches:
            raise LayerError(_unknown(name, word, table))
        found |= matches
    return tuple(layer for layer in table if layer.index in found)


_BLOCKS = re.compile(r"block(\d+)(?:-(\d+))?")


def _names(word: str, layer: Layer) -> bool:
    if blocks := _BLOCKS.fullmatch(word):
        first, last = int(blocks[1]), int(blocks[2] or blocks[1])
        return first <= layer.block <= last
    return word in (str(layer.index), f"features.{layer.index}") or fnmatchcase(layer.name, word)


def _unknown(name: str, word: str, table: tuple[Layer, ...]) -> str:
    """The error message for a pattern that matches nothing, with the nearest names."""
    if word.removeprefix("features.").isdecimal():
        return f"unknown layer '{word}' of {name}: features has 0 to {table[-1].index}"
    if _BLOCKS.fullmatch(word):
        return f"unknown blocks '{word}' of {name}: it has block1 to block{table[-1].block}"
    kind = word.rstrip("0123456789_*?[]").lower()
    names = [layer.name for layer in table if layer.kind == kind]
    if not names:
        kinds = ", ".join(dict.fromkeys(layer.kind for layer in table))
        close = similar(word, [layer.name for layer in table])
        hint = did_you_mean(close) if close else f"it has {table[0].name} to {table[-1].name}"
        return f"unknown layer '{word}' of {name}: its kinds are {kinds}; {hint}"
    block = word.lower().removeprefix(kind).partition("_")[0]
    same_block = [other for other in names if other.removeprefix(kind).partition("_")[0] == block]
    if same_block:
        return f"unknown layer '{word}' of {name}: block {block} has {', '.join(same_block)}"
    return f"unknown layer '{word}' of {name}: {kind} layers are {', '.join(names)}"


def sized_layers(
    name: str | Network,
    height: int = 224,
    width: int | None = None,
    *,
    pooling: Pooling = "max",
    last: str | None = None,
) -> tuple[SizedLayer, ...]:
    """The layer table for an image of `height` x `width` pixels (square if `width` is left out).

    `last` is the layer that the table ends with. Raises `InputError` if the image is too small for it.

    >>> last = sized_layers("vgg16", 224)[-1]
    >>> last.name, last.height, round(last.macs / 1e9, 2)
    ('pool5', 7, 15.35)
    """
    width = height if width is None else width
    table = layers(name, pooling=pooling)
    if last is not None:
        table = table[: find_layers(name, last, pooling=pooling)[-1].index + 1]
    if min(height, width) < table[-1].minimum_size:
        raise InputError(
            f"{height}x{width} is too small for {network(name).name}: "
            f"{table[-1].name} needs at least {table[-1].minimum_size} pixels a side"
        )
    return tuple(sized(table, height, width))


def sized(stack: Iterable[Layer], height: int, width: int) -> Iterator[SizedLayer]:
    """The layers of `stack` at one image size. Does not check that the image is large enough.

    >>> [(layer.name, layer.height) for layer in sized(layers("vgg16")[:5], 64, 64)][-1]
    ('pool1', 32)
    """
    macs = 0
    for layer in stack:
        height, width = layer.output_side(height), layer.output_side(width)
        macs += layer.macs(height, width)
        yield SizedLayer(
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


def block_sides(name: str | Network, side: int = 224) -> tuple[int, ...]:
    """The side of a square image, then the side of each block's output.

    >>> block_sides("vgg16", 224)
    (224, 112, 56, 28, 14, 7)
    """
    return (side, *(layer.height for layer in sized_layers(name, side) if layer.kind == "pool"))


def parts(stack: Iterable[Layer]) -> tuple[tuple[Layer, ...], ...]:
    """Divide consecutive layers into parts that each end with a pool; the last part ends with the stack.

    >>> [part[-1].name for part in parts(layers("vgg16")[:12])]
    ['pool1', 'pool2', 'relu3_1']
    """
    divided: list[list[Layer]] = [[]]
    for layer in stack:
        if divided[-1] and divided[-1][-1].kind == "pool":
            divided.append([])
        divided[-1].append(layer)
    return tuple(map(tuple, divided))


def state_shapes(name: str | Network) -> dict[str, tuple[int, ...]]:
    """{key: shape} of a `features` state dict, with torchvision's keys in their order.

    >>> state_shapes("64,M,128")["features.3.weight"]
    (128, 64, 3, 3)
    """
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
