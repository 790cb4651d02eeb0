"""Plans: networks as lists of numbers and letters, and their names and text form.

In a plan such as ``(64, 64, "M", 128, 128, "M", ...)`` a number is a 3x3 convolution with that many output channels,
followed by its activation; ``"M"`` is a 2x2 max-pool and ``"LRN"`` a local response normalisation. `Conv` and `Pool`
describe convolutions and pools of other shapes. This module does not import torch.

A plan can stand as text wherever a network is named: ``64,64,M,128,128,M``. An item is ``128``, ``conv1-256`` (kernel
and channels, in the paper's notation), ``M`` or ``LRN``. Variations follow a ``+``: ``+bn``, ``+leaky_relu:0.1`` and
``+in:1``. They also apply to names, as in ``A-LRN+leaky_relu:0.1``.

Sources: Simonyan & Zisserman, "Very deep convolutional networks for large-scale image recognition" (ICLR 2015),
table 1, for A to E; torchvision's `models.vgg` and `models.alexnet` for the order of the `features` stack.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, NamedTuple

from vggfeat.errors import LayerError, near

Activation = Literal["relu", "leaky_relu"]

DEFAULT_SLOPE = 0.01
"""The negative slope of a leaky ReLU, as in torch."""


class LocalResponse(NamedTuple):
    """The arguments of torch's local response normalisation, in their order."""

    size: int
    alpha: float
    beta: float
    k: float


LRN = LocalResponse(size=5, alpha=5e-4, beta=0.75, k=2.0)
"""Krizhevsky et al. (2012), whom the VGG paper cites: n = 5, alpha = 1e-4, k = 2. Torch divides alpha by n."""


@dataclass(frozen=True, slots=True)
class Conv:
    """A convolution and its activation. `kernel`, `stride` and `padding` are in pixels of its input.

    >>> parse_plan("64,conv1-32") == (64, Conv(32, kernel=1, padding=0))
    True
    """

    channels: int
    kernel: int = 3
    stride: int = 1
    padding: int = 1


@dataclass(frozen=True, slots=True)
class Pool:
    """A pooling window. `kernel`, `stride` and `padding` are in pixels of its input.

    >>> parse_plan("64,M3s2") == (64, Pool(kernel=3))
    True
    """

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
    """A plan with its name and its variations.

    `batch_norm`: whether each convolution is batch-normalised. `slope`: the negative slope of every activation; 0 is a
    ReLU, and the layers of leaky ones keep the name `relu`. `in_channels`: the channels of the images.

    >>> network("vgg16_bn").batch_norm, network("A+leaky_relu:0.1").activation
    (True, 'leaky_relu')
    """

    name: str
    plan: Plan
    batch_norm: bool = False
    slope: float = 0.0
    in_channels: int = 3

    @property
    def activation(self) -> Activation:
        """The kind of activation after each convolution."""
        return "leaky_relu" if self.slope else "relu"


_VGG = {11: _A, 13: _B, 16: _D, 19: _E}
_PAPER = {"A": _A, "A-LRN": _A_LRN, "B": _B, "C": _C, "D": _D, "E": _E}

NETWORKS: Mapping[str, Network] = {
    network.name: network
    for network in (
        *(Network(f"vgg{depth}", plan) for depth, plan in _VGG.items()),
        *(Network(f"vgg{depth}_bn", plan, batch_norm=True) for depth, plan in _VGG.items()),
        *(Network(name, plan) for name, plan in _PAPER.items()),
        *(Network(f"{name}_bn", plan, batch_norm=True) for name, plan in _PAPER.items()),
        Network("alexnet", _ALEXNET),  # not a VGG, but LPIPS is defined on it
    )
}
"""The named networks."""


def network(
    config: str | Network | Iterable[int | str | Conv | Pool],
    *,
    batch_norm: bool = False,
    slope: float | None = None,
    in_channels: int | None = None,
) -> Network:
    """The network that a name, a text or a plan describes, with variations.

    A variation that is not given stays as in `config`. The name of the result describes it completely:
    `network(network(...).name)` is an equal network. Raises `LayerError` for an unknown name and an invalid plan.

    >>> network("D").plan == network("vgg16").plan
    True
    >>> network([64, "M", 128], batch_norm=True).name
    '64,M,128+bn'
    >>> network("A", slope=0.1).name
    'A+leaky_relu:0.1'
    """
    if isinstance(config, Network):
        known = config
    elif isinstance(config, str):
        known = _named(config)
    else:
        plan = _checked(tuple(config))
        known = next((other for other in NETWORKS.values() if other.plan == plan and not other.batch_norm), None)
        known = known or Network(format_plan(plan), plan)
    if not batch_norm and slope is None and in_channels is None:
        return known
    base = known.name.partition("+")[0].removesuffix("_bn")
    batch_norm = batch_norm or known.batch_norm
    slope = known.slope if slope is None else float(slope)
    in_channels = known.in_channels if in_channels is None else in_channels
    if not -1 < slope < 1:
        raise LayerError(f"the slope of an activation is {slope:g}: it must be between -1 and 1")
    if not 1 <= in_channels <= _MOST_CHANNELS:
        raise LayerError(f"in_channels is {in_channels}: it must be between 1 and {_MOST_CHANNELS}")
    name = base
    if batch_norm:
        name = f"{base}_bn" if f"{base}_bn" in NETWORKS else f"{base}+bn"
    name += f"+leaky_relu:{slope!r}" if slope else ""
    name += f"+in:{in_channels}" if in_channels != 3 else ""
    return Network(name, known.plan, batch_norm, slope, in_channels)


@cache
def _named(name: str) -> Network:
    if name in NETWORKS:
        return NETWORKS[name]
    base, *variations = str(name).split("+")
    if base not in NETWORKS and not ("," in base or _parse_item(base.strip())):
        raise LayerError(f"unknown network '{name}', and not a plan such as 64,64,M,128,128,M: {near(base, NETWORKS)}")
    options: dict[str, Any] = {}
    for variation in variations:
        option, _, value = variation.partition(":")
        try:
            options |= _VARIATIONS[option](value)
        except (KeyError, ValueError):
            raise LayerError(
                f"unknown variation '+{variation}' of {base}: choose from +bn, +leaky_relu:0.01, +in:1"
            ) from None
    return network(NETWORKS[base] if base in NETWORKS else parse_plan(base), **options)


_VARIATIONS: Mapping[str, Callable[[str], dict[str, Any]]] = {
    "bn": lambda _: {"batch_norm": True},
    "leaky_relu": lambda value: {"slope": float(value or DEFAULT_SLOPE)},
    "in": lambda value: {"in_channels": int(value)},
}


def same_stack(one: str | Network, other: str | Network) -> bool:
    """Whether two networks have the same layers, whatever their names.

    >>> same_stack("D", "vgg16"), same_stack("D", "vgg16_bn")
    (True, False)
    """
    a, b = network(one), network(other)
    return (a.plan, a.batch_norm, a.slope, a.in_channels) == (b.plan, b.batch_norm, b.slope, b.in_channels)


def is_vgg(name: str | Network) -> bool:
    """Whether a network is a VGG: the paper's, torchvision's, or a plan of your own. `alexnet` is the only exception.

    >>> is_vgg("vgg16"), is_vgg("alexnet")
    (True, False)
    """
    return not network(name).name.startswith("alexnet")


_MOST_CHANNELS = 65536
_CONV = re.compile(r"conv(\d+)-(\d+)(?:s(\d+))?(?:p(\d+))?|(\d+)")
_POOL = re.compile(r"M(?:(\d+)(?:s(\d+))?(?:p(\d+))?)?")


def parse_plan(text: str) -> Plan:
    """Read a plan such as `64,64,M,conv1-128,M`. Spaces, brackets and quotation marks are ignored.

    `conv11-64s4p2` has a stride of 4 and a padding of 2 (defaults: 1, and half the kernel). `M3s2p1` is a 3x3 pool
    with a stride of 2 and a padding of 1 (defaults: 2 and 0). Raises `LayerError` for anything else.

    >>> parse_plan("[64, 'M', conv1-128]")
    (64, 'M', Conv(channels=128, kernel=1, stride=1, padding=0))
    """
    plan: list[int | str | Conv | Pool] = []
    for word in re.split(r"\s*,\s*", text.strip().strip("[]()").rstrip(", ").strip()):
        item = _parse_item(word.strip("'\""))
        if item is None:
            raise LayerError(f"a plan holds channels such as 64, M, LRN or conv1-256, not '{word}'")
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
        return simplest(conv)
    if found := _POOL.fullmatch(word):
        kernel, stride, padding = found.groups()
        return simplest(Pool(int(kernel or 2), int(stride or 2), int(padding or 0)))
    return None


def simplest(item: Conv | Pool) -> int | str | Conv | Pool:
    """The shortest form of a plan's item: channels for a 3x3 convolution, `"M"` for a 2x2 pool.

    >>> simplest(Conv(64)), simplest(Pool()), simplest(Pool(3))
    (64, 'M', Pool(kernel=3, stride=2, padding=0))
    """
    if isinstance(item, Conv):
        return item.channels if item == Conv(item.channels) else item
    return "M" if item == Pool() else item


def format_plan(plan: Plan) -> str:
    """The text form of a plan, which `parse_plan` reads.

    >>> format_plan((64, "M", Conv(128, kernel=1, padding=0)))
    '64,M,conv1-128'
    """
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
    """Return the plan if a network can be built from it. Raises `LayerError`."""
    for before, item in zip((None, *plan), plan, strict=False):
        _check_item(item)
        if item == "LRN" and not isinstance(before, int | Conv):
            raise LayerError("in a plan, LRN must follow a convolution")
    if not any(isinstance(item, int | Conv) for item in plan):
        raise LayerError(f"the plan '{format_plan(plan)}' has no convolution")
    return plan


def _check_item(item: object) -> None:
    match item:
        case "M" | "LRN":
            return
        case int() | Conv() if not isinstance(item, bool):
            conv = item if isinstance(item, Conv) else Conv(item)
            if not (1 <= conv.channels <= _MOST_CHANNELS and min(conv.kernel, conv.stride) >= 1 and conv.padding >= 0):
                raise LayerError(f"{item!r} is not a convolution of a plan: channels must be 1 to {_MOST_CHANNELS}")
        case Pool():
            if not (min(item.kernel, item.stride) >= 1 and 0 <= 2 * item.padding <= item.kernel):
                raise LayerError(f"{item!r} is not a pool of a plan: its padding must be at most half its kernel")
        case _:
            raise LayerError(f"a plan holds channels, 'M', 'LRN', Conv or Pool, not {item!r}")
