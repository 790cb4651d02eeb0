"""The heads of networks, the number of parameters, and the paper's published tables. No torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import prod
from typing import Literal

from vggfeat.errors import WeightsError
from vggfeat.networks.layers import Kind, Layer, Pooling, layers
from vggfeat.networks.plans import Conv, Network, is_vgg, network

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


@cache
def head_layers(
    name: str | Network,
    head: Head | None = "paper",
    classes: int = 1000,
    *,
    hidden: int = 4096,
    pooling: Pooling = "max",
) -> tuple[Layer, ...]:
    """The layers after the `features` of a VGG, with the paper's names; their indices continue those of the features.

    `paper`: `avgpool`, `fc6`, `relu6`, `fc7`, `relu7`, `fc8`. `gap`: `avgpool` and `fc8`. Dropout changes nothing in a
    trained network and has no name. Each linear layer is described as a convolution over all that it sees: its
    receptive field is that of an image of the network's own size, 7 times the stride of the features (224 pixels for
    a VGG-16). Images of other sizes are pooled to as many positions, as torchvision does.

    >>> [(layer.name, layer.module, layer.channels) for layer in head_layers("vgg16")][1:3]
    [('fc6', 'classifier.0', 4096), ('relu6', 'classifier.1', 4096)]
    """
    if head is None or not is_vgg(network(name)):
        return ()
    table = layers(name, pooling=pooling)
    side = HEAD_SIDE if head == "paper" else 1
    rows: list[tuple[str, str, Kind, int, int, int]] = [  # name, module, kind, channels, kernel, side of the output
        ("avgpool", "avgpool", "avgpool", table[-1].channels, HEAD_SIDE // side, side)
    ]
    if head == "paper":
        rows.append(("fc6", "classifier.0", "fc", hidden, HEAD_SIDE, 1))
        rows.append(("relu6", "classifier.1", "relu", hidden, 1, 1))
        rows.append(("fc7", "classifier.3", "fc", hidden, 1, 1))
        rows.append(("relu7", "classifier.4", "relu", hidden, 1, 1))
    rows.append(("fc8", "classifier.6" if head == "paper" else "classifier.0", "fc", classes, 1, 1))
    found: list[Layer] = []
    for layer_name, module, kind, channels, kernel, fixed_side in rows:
        before = found[-1] if found else table[-1]
        weights = channels * (before.channels * kernel**2 + 1) if kind == "fc" else 0
        found.append(
            replace(
                before,
                name=layer_name,
                index=before.index + 1,
                kind=kind,
                in_channels=before.channels,
                channels=channels,
                kernel=kernel,
                step=kernel,
                padding=0,
                stride=before.stride * kernel,
                receptive_field=before.receptive_field + (kernel - 1) * before.stride,
                parameters=before.parameters + weights,
                slope=network(name).slope if kind == "relu" else 0.0,
                module=module,
                fixed_side=fixed_side,
            )
        )
    return tuple(found)


def reads_classifier(taps: Sequence[Layer]) -> bool | None:
    """Whether the deepest of some layers needs the weights of a classifier: None for `avgpool`, which has none itself.

    >>> reads_classifier(head_layers("vgg16")[:1]), reads_classifier(head_layers("vgg16"))
    (None, True)
    """
    return None if taps[-1].kind == "avgpool" else taps[-1].fixed_side > 0


def head_of(shapes: Mapping[str, tuple[int, ...]], origin: str) -> tuple[Head | None, int, int]:
    """The kind of head, the number of classes and the number of hidden units that a classifier's shapes imply.

    Raises `WeightsError`, which names `origin`, for another head.

    >>> head_of(head_shapes("vgg16", "gap", 10), "the file")
    ('gap', 10, 4096)
    """
    weights = {key: shape for key, shape in shapes.items() if key.startswith("classifier.") and key.endswith("weight")}
    if not weights:
        return None, 0, 4096
    if weights.keys() == {"classifier.0.weight"}:
        return "gap", weights["classifier.0.weight"][0], 4096
    if weights.keys() == {f"classifier.{index}.weight" for index in (0, 3, 6)}:
        return "paper", weights["classifier.6.weight"][0], weights["classifier.0.weight"][0]
    raise WeightsError(
        f"{origin} has a head that is neither the paper's nor one linear layer: {', '.join(sorted(weights))}"
    )


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
