"""Networks as data: plans, layer tables, lookups of layers, costs and heads. No torch.

The public module of `plans`, `layers` and `heads`.

>>> from vggfeat import arch
>>> [layer.name for layer in arch.find_layers("vgg16", "relu?_3")], arch.count_parameters("vgg16").total
(['relu3_3', 'relu4_3', 'relu5_3'], 138357544)
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cache
from math import floor, prod
from typing import Any, Literal

from vggfeat.errors import InputError, LayerError, near

Kind = Literal["conv", "bn", "relu", "lrn", "pool"]
Pooling = Literal["max", "avg", "l2"]
Activation = Literal["relu", "leaky_relu"]
Head = Literal["paper", "gap"]

DEFAULT_SLOPE = 0.01
"""Of a leaky ReLU below zero, as torch has it."""


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
    """A named row: the plan of a `features` stack, and whether each convolution is batch-normalised.

    `slope` is that of every activation below zero: 0 is a ReLU, anything else a leaky one, whose layers keep the name
    `relu`. `in_channels` are those of the images.
    """

    name: str
    plan: Plan
    batch_norm: bool = False
    slope: float = 0.0
    in_channels: int = 3

    @property
    def activation(self) -> Activation:
        """What follows each convolution."""
        return "leaky_relu" if self.slope else "relu"


NETWORKS: Mapping[str, Network] = {
    network.name: network
    for network in (
        *(Network(f"vgg{depth}", plan) for depth, plan in ((11, _A), (13, _B), (16, _D), (19, _E))),
        *(Network(f"vgg{depth}_bn", plan, batch_norm=True) for depth, plan in ((11, _A), (13, _B), (16, _D), (19, _E))),
        *(Network(name, plan) for name, plan in zip("ABCDE", (_A, _B, _C, _D, _E), strict=True)),
        Network("A-LRN", _A_LRN),
        *(Network(f"{name}_bn", plan, True) for name, plan in zip("ABCDE", (_A, _B, _C, _D, _E), strict=True)),
        Network("A-LRN_bn", _A_LRN, batch_norm=True),
        Network("alexnet", _ALEXNET),  # not a VGG; LPIPS is defined on it, and the same table describes it
    )
}


@dataclass(frozen=True, slots=True)
class Layer:
    """One operation of the `features` stack.

    `kernel`, `step` and `padding` describe the operation itself, in pixels of its input. `stride`,
    `receptive_field` and `start`, the first pixel that the first position sees, are those of the whole stack up to
    here, in pixels of the image; in the padding `start` is negative. `parameters` is cumulative; `minimum_size` is
    the smallest image side for which this layer's output is not empty. `slope` is that of
    an activation below zero.
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
        """The number of the block, which counts from 1 and ends with its pool."""
        return int(re.sub(r"^[a-z]+|_.*$", "", self.name))

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


def network(name: "str | Network") -> Network:
    """The network called `name`: one of `NETWORKS`, a row written as text, or either with variations.

    A `Network` is returned as it is. Raises `LayerError` for a name that is unknown and a row that cannot be read.
    """
    return name if isinstance(name, Network) else _named(name)


@cache
def _named(name: str) -> Network:
    if name in NETWORKS:
        return NETWORKS[name]
    base, *variations = str(name).split("+")
    if base not in NETWORKS and not ("," in base or _parse_item(base.strip())):
        raise LayerError(f"unknown network '{name}': {near(base, NETWORKS)}, or a row such as 64,64,M,128,128,M")
    plan = NETWORKS[base].plan if base in NETWORKS else parse_plan(base)
    options: dict[str, Any] = {}
    for variation in variations:
        option, _, value = variation.partition(":")
        try:
            options |= _VARIATIONS[option](value)
        except (KeyError, ValueError):
            raise LayerError(
                f"unknown variation '+{variation}' of {base}: known are +bn, +leaky_relu:0.01, +in:1"
            ) from None
    return row(base if base in NETWORKS else plan, **options)


_VARIATIONS: Mapping[str, Callable[[str], dict[str, Any]]] = {
    "bn": lambda _: {"batch_norm": True},
    "leaky_relu": lambda value: {"slope": float(value or DEFAULT_SLOPE)},
    "in": lambda value: {"in_channels": int(value)},
}


def row(
    config: str | Network | Iterable[int | str | Conv | Pool],
    *,
    batch_norm: bool = False,
    slope: float | None = None,
    in_channels: int | None = None,
) -> Network:
    """The network of a name, a text or a plan such as `[64, 64, "M", 128]`, varied, under the name that says it all.

    `network(row(...).name)` is the same network again. A variation that is left out stays as `config` has it. Raises
    `LayerError` for what no network can be built of.
    """
    if isinstance(config, str | Network):
        known = network(config)
        base = known.name.partition("+")[0].removesuffix("_bn")
    else:
        plan = _checked(tuple(config))
        known = next((other for other in NETWORKS.values() if other.plan == plan and not other.batch_norm), None)
        known = known or Network(format_plan(plan), plan)
        base = known.name
    slope = known.slope if slope is None else float(slope)
    in_channels = known.in_channels if in_channels is None else in_channels
    if not -1 < slope < 1:
        raise LayerError(f"the slope of an activation is {slope:g}: it must be between -1 and 1")
    if not 1 <= in_channels <= _MOST_CHANNELS:
        raise LayerError(f"a network of {in_channels} input channels: it must be between 1 and {_MOST_CHANNELS}")
    name = base
    if batch_norm or known.batch_norm:
        name = f"{base}_bn" if f"{base}_bn" in NETWORKS else f"{base}+bn"
    name += f"+leaky_relu:{slope!r}" if slope else ""
    name += f"+in:{in_channels}" if in_channels != 3 else ""
    return Network(name, known.plan, batch_norm or known.batch_norm, slope, in_channels)


_MOST_CHANNELS = 65536
_CONV = re.compile(r"conv(\d+)-(\d+)(?:s(\d+))?(?:p(\d+))?|(\d+)")
_POOL = re.compile(r"M(?:(\d+)(?:s(\d+))?(?:p(\d+))?)?")


def parse_plan(text: str) -> Plan:
    """Read `64,64,M,conv1-128,M`, also with spaces, brackets and quotation marks around it as Python prints a list.

    `conv11-64s4p2` has a stride of 4 and a padding of 2 (left out: 1, and half the kernel); `M3s2p1` likewise is a
    pool of 3x3 (left out: a stride of 2, no padding). Raises `LayerError` for anything else.
    """
    plan: list[int | str | Conv | Pool] = []
    for word in re.split(r"\s*,\s*", text.strip().strip("[]()").rstrip(", ").strip()):
        item = _parse_item(word.strip("'\""))
        if item is None:
            raise LayerError(f"a row holds channels such as 64, M, LRN or conv1-256, not '{word}'")
        plan.append(item)
    return _checked(tuple(plan))


def _parse_item(word: str) -> int | str | Conv | Pool | None:
    if word == "LRN":
        return word
    if found := _CONV.fullmatch(word):
        kernel, channels, stride, padding, plain = found.groups()
        if plain:
            return int(plain)
        size = int(kernel)
        conv = Conv(int(channels), size, int(stride or 1), size // 2 if padding is None else int(padding))
        return conv.channels if conv == Conv(conv.channels) else conv
    if found := _POOL.fullmatch(word):
        kernel, stride, padding = found.groups()
        pool = Pool(int(kernel or 2), int(stride or 2), int(padding or 0))
        return "M" if pool == Pool() else pool
    return None


def format_plan(plan: Plan) -> str:
    """What `parse_plan` reads."""
    return ",".join(map(_format_item, plan))


def _format_item(item: int | str | Conv | Pool) -> str:
    match item:
        case Conv(channels, kernel, stride, padding):
            text = f"conv{kernel}-{channels}" + (f"s{stride}" if stride != 1 else "")
            return text + (f"p{padding}" if padding != kernel // 2 else "")
        case Pool(kernel, stride, padding):
            return f"M{kernel}" + (f"s{stride}" if stride != 2 else "") + (f"p{padding}" if padding else "")
        case _:
            return str(item)


def _checked(plan: Plan) -> Plan:
    """A plan that a network can be built of. Raises `LayerError`."""
    for before, item in zip((None, *plan), plan, strict=False):
        _check_item(item)
        if item == "LRN" and not isinstance(before, int | Conv):
            raise LayerError("an LRN of a row follows a convolution")
    if not any(isinstance(item, int | Conv) for item in plan):
        raise LayerError(f"the row '{format_plan(plan)}' has no convolution")
    return plan


def _check_item(item: object) -> None:
    match item:
        case "M" | "LRN":
            return
        case int() | Conv() if not isinstance(item, bool):
            conv = item if isinstance(item, Conv) else Conv(item)
            if not (1 <= conv.channels <= _MOST_CHANNELS and min(conv.kernel, conv.stride) >= 1 and conv.padding >= 0):
                raise LayerError(f"{item!r} is no convolution of a row: channels are 1 to {_MOST_CHANNELS}")
        case Pool():
            if not (min(item.kernel, item.stride) >= 1 and 0 <= 2 * item.padding <= item.kernel):
                raise LayerError(f"{item!r} is no pool of a row: its padding is at most half its kernel")
        case _:
            raise LayerError(f"a row holds channels, 'M', 'LRN', Conv or Pool, not {item!r}")


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
    slope: float = 0.0


def _operations(row: Network, pooling: Pooling) -> Iterator[_Operation]:
    """Parse a plan: one operation for each module that torchvision's builder would make of it."""
    block, unit, channels = 1, 0, row.in_channels
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
                yield _Operation(f"relu{place}", "relu", channels, slope=row.slope)
            case _:
                raise LayerError(f"a plan holds channels, 'M', 'LRN', Conv or Pool, not {item!r}")


@cache
def layers(name: str | Network, *, pooling: Pooling = "max") -> tuple[Layer, ...]:
    """The layers of a network in the order of its `features` stack.

    `pooling` replaces the plan's max-pools; `"l2"` also changes their window, and with it all that follows.
    """
    table: list[Layer] = []
    row = network(name)
    channels, stride, field, start, parameters, minimum = row.in_channels, 1, 1, 0, 0, 1
    for index, op in enumerate(_operations(row, pooling)):
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
    """The smallest image side that leaves at least one pixel after `stack`, walked from its end."""
    side = 1
    for layer in reversed(tuple(stack)):
        side = max(1, (side - 1) * layer.step + layer.kernel - 2 * layer.padding)
    return side


def state_shapes(name: str | Network) -> dict[str, tuple[int, ...]]:
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


def find(
    name: str | Network, patterns: str | int | Iterable[str | int], *, pooling: Pooling = "max"
) -> tuple[Layer, ...]:
    """The layers that `patterns` name, each once, in the order of the network.

    A pattern is a name (`relu3_3`), an index (`features.15`, `15`), a glob (`relu3_*`, `relu?_1`) or blocks
    (`block3`, `block1-3`); a string may hold several, separated by commas. Raises `LayerError` for a pattern that
    matches nothing.
    """
    name = network(name).name
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


_BLOCKS = re.compile(r"block(\d+)(?:-(\d+))?")


def _names(word: str, layer: Layer) -> bool:
    if blocks := _BLOCKS.fullmatch(word):
        first, last = int(blocks[1]), int(blocks[2] or blocks[1])
        return first <= layer.block <= last
    return word in (str(layer.index), f"features.{layer.index}") or fnmatchcase(layer.name, word)


def _unknown(name: str, word: str, table: tuple[Layer, ...]) -> str:
    """The message for a pattern that matches nothing, naming what stands nearest."""
    if word.removeprefix("features.").isdecimal():
        return f"unknown layer '{word}' of {name}: features has 0 to {table[-1].index}"
    if _BLOCKS.fullmatch(word):
        return f"unknown blocks '{word}' of {name}: it has block1 to block{table[-1].block}"
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
    name: str | Network,
    height: int = 224,
    width: int | None = None,
    *,
    pooling: Pooling = "max",
    last: str | None = None,
) -> tuple[SizedLayer, ...]:
    """The layer table for an image of `height` x `width` pixels (square where `width` is left out).

    `last` is the layer that the table ends with. Raises `InputError` if the image is too small for it.
    """
    width = height if width is None else width
    name = network(name).name
    table = layers(name, pooling=pooling)
    if last is not None:
        table = table[: find(name, last, pooling=pooling)[-1].index + 1]
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


def block_sides(name: str | Network, side: int = 224) -> tuple[int, ...]:
    """The side of a square image, then of what each block hands to the next: 224, 112, 56, 28, 14, 7."""
    return (side, *(row.height for row in sized_layers(name, side) if row.kind == "pool"))


def is_vgg(name: str | Network) -> bool:
    """Whether a network is a VGG of the paper, of torchvision or of one's own, whose head is the paper's or simpler."""
    return not network(name).name.startswith("alexnet")


HEAD_SIDE = 7
"""Pixels a side that the paper's head reads: those of a 224-pixel image after five blocks."""


def head_shapes(
    name: str | Network, head: Head | None = "paper", classes: int = 1000, *, hidden: int = 4096
) -> dict[str, tuple[int, ...]]:
    """The tensors of a network's head by torchvision's key names, in their order, with their shapes.

    `paper`: two fully connected layers of `hidden` units and one of `classes`, after a pool to 7x7, as in torchvision.
    `gap`: the average over the image and one fully connected layer. None: no head.
    """
    channels = layers(name)[-1].channels
    match head:
        case "paper":
            sizes = {0: (channels * HEAD_SIDE**2, hidden), 3: (hidden, hidden), 6: (hidden, classes)}
        case "gap":
            sizes = {0: (channels, classes)}
        case None:
            sizes = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for index, (inputs, outputs) in sizes.items():
        shapes |= {f"classifier.{index}.weight": (outputs, inputs), f"classifier.{index}.bias": (outputs,)}
    return shapes


@dataclass(frozen=True, slots=True)
class Parameters:
    """How many numbers a network learns: in its `features`, and in its head's fully connected layers."""

    features: int
    head: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.features + self.head

    @property
    def head_share(self) -> float:
        """The fully connected layers' part of all, from 0 to 1."""
        return self.head / self.total


def count_parameters(
    name: str | Network, head: Head | None = "paper", classes: int = 1000, *, hidden: int = 4096
) -> Parameters:
    """The parameters of a network with such a head."""
    shapes = head_shapes(name, head, classes, hidden=hidden)
    return Parameters(layers(name)[-1].parameters, sum(map(prod, shapes.values())))


def weight_layers(name: str | Network, head: Head | None = "paper") -> int:
    """How many layers have weights, which is how the paper counts depth; batch normalisation is not counted."""
    return sum(layer.kind == "conv" for layer in layers(name)) + len(head_shapes(name, head)) // 2


@dataclass(frozen=True, slots=True)
class Published:
    """A row of the paper's tables 3 and 4: errors on ImageNet's validation set, in per cent.

    `train` and `test` are the shorter sides of the pictures: one size, a range that was drawn from, or several sizes
    whose predictions were averaged.
    """

    network: str
    train: str
    test: str
    top1: float
    top5: float


PUBLISHED_MILLIONS: Mapping[str, int] = {"A": 133, "A-LRN": 133, "B": 133, "C": 134, "D": 138, "E": 144}
"""The paper's table 2: parameters in millions."""

PUBLISHED: tuple[Published, ...] = (
    Published("A", "256", "256", 29.6, 10.4),
    Published("A-LRN", "256", "256", 29.7, 10.5),
    Published("B", "256", "256", 28.7, 9.9),
    Published("C", "256", "256", 28.1, 9.4),
    Published("C", "384", "384", 28.1, 9.3),
    Published("C", "256-512", "384", 27.3, 8.8),
    Published("D", "256", "256", 27.0, 8.8),
    Published("D", "384", "384", 26.8, 8.7),
    Published("D", "256-512", "384", 25.6, 8.1),
    Published("E", "256", "256", 27.3, 9.0),
    Published("E", "384", "384", 26.9, 8.7),
    Published("E", "256-512", "384", 25.5, 8.0),
    Published("B", "256", "224 256 288", 28.2, 9.6),
    Published("C", "256", "224 256 288", 27.7, 9.2),
    Published("C", "384", "352 384 416", 27.8, 9.2),
    Published("C", "256-512", "256 384 512", 26.3, 8.2),
    Published("D", "256", "224 256 288", 26.6, 8.6),
    Published("D", "384", "352 384 416", 26.5, 8.6),
    Published("D", "256-512", "256 384 512", 24.8, 7.5),
    Published("E", "256", "224 256 288", 26.9, 8.7),
    Published("E", "384", "352 384 416", 26.7, 8.6),
    Published("E", "256-512", "256 384 512", 24.8, 7.5),
)


@dataclass(frozen=True, slots=True)
class KernelStack:
    """`depth` convolutions of `kernel` x `kernel`, each from C channels to C and followed by a ReLU.

    `weights` is the factor of C²; biases are not counted, as in the paper's section 2.3.
    """

    kernel: int
    depth: int
    receptive_field: int
    weights: int

    @property
    def activations(self) -> int:
        """How many non-linearities the stack has."""
        return self.depth


def kernel_stack(kernel: int, depth: int) -> KernelStack:
    """What a stack of equal convolutions sees and costs, read from the row that it is."""
    stack = Network(f"{depth} x {kernel}x{kernel}", (Conv(1, kernel, padding=kernel // 2),) * depth, in_channels=1)
    last = layers(stack)[-1]
    return KernelStack(kernel, depth, last.receptive_field, last.parameters - depth)
