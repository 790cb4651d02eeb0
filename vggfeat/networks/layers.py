"""The layers of a network, derived from its plan: names, shapes, strides, receptive fields, costs. No torch.

Layers are named `conv3_3`, `bn3_3`, `relu3_3`, `pool3`: the operation, the block, and the convolution's number within
the block. Their indices are those of torchvision's `features`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from math import floor
from typing import Literal

from vggfeat.errors import LayerError
from vggfeat.networks.plans import Conv, Network, Pool, network

Kind = Literal["conv", "bn", "relu", "lrn", "pool", "avgpool", "fc"]
Pooling = Literal["max", "avg", "l2"]


@dataclass(frozen=True, slots=True)
class Layer:
    """One operation of the `features` stack, or of the head (see `heads.head_layers`).

    `kernel`, `step` and `padding` describe the operation itself, in pixels of its input. `stride`, `receptive_field`
    (the side of a square) and `start` describe the stack up to and including the layer, in pixels of the image:
    `start` is the first pixel of the first position's receptive field, negative inside the padding. `parameters` counts
    the stack's parameters up to and including the layer. `minimum_size` is the smallest image side for which the
    layer's output is not empty. `slope` is the negative slope of an activation. `module` is the name of torchvision's
    module. `fixed_side` is the side of the output where it does not depend on the image's size, as in a head; else 0.

    >>> relu = layers("vgg16")[15]
    >>> relu.name, relu.channels, relu.stride, relu.receptive_field
    ('relu3_3', 256, 4, 40)
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
    module: str = ""
    fixed_side: int = 0

    @property
    def block(self) -> int:
        """The number of the block, from 1. A pool ends its block. 0 in the head."""
        return 0 if self.fixed_side else int(re.sub(r"^[a-z]+|_.*$", "", self.name))

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
        return self.fixed_side or (side + 2 * self.padding - self.kernel) // self.step + 1

    def macs(self, height: int, width: int) -> int:
        """Multiply-accumulates of this layer for an output of `height` x `width`, of convolutions and linear layers."""
        counted = self.kind in ("conv", "fc")
        return height * width * self.channels * self.in_channels * self.kernel**2 if counted else 0


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
            module=f"features.{index}",
        )
        minimum = minimum_side((*table, layer))
        table.append(replace(layer, minimum_size=minimum))
        channels = op.channels
    return tuple(table)


def minimum_side(stack: Iterable[Layer], positions: int = 1) -> int:
    """The smallest side of an image whose features after `stack` have at least `positions` positions a side.

    >>> minimum_side(layers("vgg16")[:16]), minimum_side(layers("vgg16")[:16], 16)
    (4, 64)
    """
    side = positions
    for layer in reversed(tuple(stack)):
        side = max(1, (side - 1) * layer.step + layer.kernel - 2 * layer.padding)
    return side


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
