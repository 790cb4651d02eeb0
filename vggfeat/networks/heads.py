"""The heads of networks, the number of parameters, and the paper's published tables. No torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Literal

from vggfeat.networks.layers import layers
from vggfeat.networks.plans import Conv, Network

Head = Literal["paper", "gap"]

HEAD_SIDE = 7
"""The side of the paper's head's input, in pixels: that of a 224-pixel image after five blocks."""


def head_shapes(
    name: str | Network, head: Head | None = "paper", classes: int = 1000, *, hidden: int = 4096
) -> dict[str, tuple[int, ...]]:
    """{key: shape} of a network's head, with torchvision's keys in their order.

    `paper`: a pool to 7x7, two fully connected layers of `hidden` units and one of `classes`, as in torchvision.
    `gap`: the average over the image and one fully connected layer. None: no head.

    >>> head_shapes("vgg16", "gap", 10)
    {'classifier.0.weight': (10, 512), 'classifier.0.bias': (10,)}
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
    """The number of learned parameters in `features`, and in the head's fully connected layers."""

    features: int
    head: int

    @property
    def total(self) -> int:
        """The number of all parameters."""
        return self.features + self.head

    @property
    def head_share(self) -> float:
        """The head's share of all parameters, from 0 to 1."""
        return self.head / self.total


def count_parameters(
    name: str | Network, head: Head | None = "paper", classes: int = 1000, *, hidden: int = 4096
) -> Parameters:
    """The number of parameters of a network with a head, as `head_shapes` describes it.

    >>> count_parameters("vgg16").total
    138357544
    """
    shapes = head_shapes(name, head, classes, hidden=hidden)
    return Parameters(layers(name)[-1].parameters, sum(map(prod, shapes.values())))


def weight_layers(name: str | Network, head: Head | None = "paper") -> int:
    """The number of layers with weights, the paper's measure of depth. Batch normalisation is not counted.

    >>> weight_layers("vgg16"), weight_layers("vgg16", None)
    (16, 13)
    """
    return sum(layer.kind == "conv" for layer in layers(name)) + len(head_shapes(name, head)) // 2


@dataclass(frozen=True, slots=True)
class Published:
    """A result of the paper's tables 3 and 4: errors on ImageNet's validation set, in per cent.

    `train` and `test` are the shorter sides of the pictures: one size, a range that sizes were drawn from, or several
    sizes whose predictions were averaged.
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
"""The paper's tables 3 (one test size) and 4 (several)."""


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
        """The number of non-linearities."""
        return self.depth


def kernel_stack(kernel: int, depth: int) -> KernelStack:
    """The receptive field and the weights of a stack of equal convolutions.

    >>> kernel_stack(3, 3)
    KernelStack(kernel=3, depth=3, receptive_field=7, weights=27)
    """
    stack = Network(f"{depth} x {kernel}x{kernel}", (Conv(1, kernel, padding=kernel // 2),) * depth, in_channels=1)
    last = layers(stack)[-1]
    return KernelStack(kernel, depth, last.receptive_field, last.parameters - depth)
