"""The steps of a forward pass: one layer each, or a convolution fused with its ReLU.

A float32 convolution on a CPU uses Winograd's algorithm if `algorithms.choose` says that it is faster than torch's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vggfeat.features import algorithms, winograd
from vggfeat.features.convolution import convolve, linear
from vggfeat.features.device import Arithmetic
from vggfeat.networks import arch


@dataclass
class Step:
    """One layer, or a convolution and its ReLU.

    Args:
        layers: the layer, or the convolution and its ReLU.
        overwritable: the step may overwrite its input, because nothing else reads it.
        pooling: the pooling that replaces the plan's max-pools.
        plain: never use Winograd's algorithm.
        arithmetic: of float32 tensors on CUDA, `float32` or `tf32`.
    """

    layers: Sequence[arch.Layer]
    overwritable: bool
    pooling: arch.Pooling = "max"
    plain: bool = False
    arithmetic: Arithmetic = "float32"

    @property
    def name(self) -> str:
        """The name of the layer whose activation the step returns."""
        return self.layers[-1].name

    def __call__(self, x: Tensor, tensors: Sequence[Tensor]) -> Tensor:
        """The activation for an input `x` (N, C, H, W), or (N, C) after a linear layer.

        `tensors` are the first layer's weights in state-dict order, or the window of an `l2` pool (see `hann_window`).
        """
        first, rectified = self.layers[0], len(self.layers) == 2
        match first.kind:
            case "conv":
                return self._convolve(first, x, *tensors, rectified=rectified)
            case "bn":
                weight, bias, mean, variance = tensors
                return F.batch_norm(x, mean, variance, weight, bias)
            case "relu":
                slope, inplace = first.slope, self.overwritable
                return F.leaky_relu(x, slope, inplace=inplace) if slope else F.relu(x, inplace=inplace)
            case "lrn":
                return F.local_response_norm(x, *arch.LRN)
            case "fc":
                return linear(x.flatten(1), *tensors, arithmetic=self.arithmetic)
            case "pool" | "avgpool":
                return _pool(x, first, self.pooling, tensors, self.arithmetic)

    def _convolve(self, layer: arch.Layer, x: Tensor, weight: Tensor, bias: Tensor, *, rectified: bool) -> Tensor:
        if not self.plain and _algorithm(layer, x, weight) == "winograd":
            return winograd.convolve(x, weight, bias, rectify=rectified)
        y = convolve(x, weight, bias, stride=layer.step, padding=layer.padding, arithmetic=self.arithmetic)
        return F.relu(y, inplace=True) if rectified else y


def steps(
    stack: Sequence[arch.Layer],
    returned: Sequence[str],
    *,
    pooling: arch.Pooling,
    plain: bool,
    arithmetic: Arithmetic = "float32",
) -> tuple[Step, ...]:
    """The steps that compute `stack`; the layers named in `returned` are returned to the caller."""
    found: list[Step] = []
    overwritable = False  # the images belong to the caller
    rest = list(stack)
    while rest:
        layer = rest.pop(0)
        taken = [layer]
        if layer.kind == "conv" and layer.name not in returned and rest and _is_plain_relu(rest[0]):
            taken.append(rest.pop(0))
        found.append(Step(taken, overwritable, pooling, plain, arithmetic))
        overwritable = taken[-1].name not in returned
    return tuple(found)


def _is_plain_relu(layer: arch.Layer) -> bool:
    return layer.kind == "relu" and not layer.slope


def _pool(
    x: Tensor, layer: arch.Layer, pooling: arch.Pooling, tensors: Sequence[Tensor], arithmetic: Arithmetic
) -> Tensor:
    if layer.kind == "avgpool":
        average = _average_by_products if torch.onnx.is_in_onnx_export() else F.adaptive_avg_pool2d
        return average(x, layer.fixed_side)
    match pooling:
        case "max":
            return F.max_pool2d(x, layer.kernel, layer.step, layer.padding)
        case "avg":
            return F.avg_pool2d(x, layer.kernel, layer.step, layer.padding)
        case "l2":
            # Ding et al. (2020): a normalised Hann window over the squares. Half precision cannot represent the 1e-12.
            work = torch.promote_types(x.dtype, torch.float32)
            squares = convolve(
                x.to(work).square(),
                tensors[0].to(work).expand(layer.channels, 1, -1, -1),
                stride=layer.step,
                padding=layer.padding,
                groups=layer.channels,
                arithmetic=arithmetic,
            )
            return (squares + 1e-12).sqrt().to(x.dtype)


def _average_by_products(x: Tensor, side: int) -> Tensor:
    """`adaptive_avg_pool2d` of images of any size as ONNX can express it: by two matrix products."""
    return _averages(x.shape[2], side).to(x) @ x @ _averages(x.shape[3], side).to(x).mT


def _averages(length: int, side: int) -> Tensor:
    """(side, length): each row averages the positions that one output covers."""
    outputs, positions = torch.arange(side)[:, None], torch.arange(length)
    first, last = outputs * length // side, -(-(outputs + 1) * length // side)
    return ((positions >= first) & (positions < last)) / (last - first)


def hann_window(place: torch.device) -> Tensor:
    """(3, 3): the window of `l2` pooling, whose values are exact in half precision too.

    >>> hann_window(torch.device("cpu")).sum()
    tensor(1.)
    """
    hann = torch.tensor([0.25, 0.5, 0.25], device="cpu")
    return torch.outer(hann, hann).to(place)


def _algorithm(layer: arch.Layer, x: Tensor, weight: Tensor) -> algorithms.Algorithm:
    if (
        {x.device.type, weight.device.type} != {"cpu"}
        or not is_eager(x)
        or not algorithms.is_3x3(layer)
        or x.dtype != weight.dtype
    ):
        return "torch"
    capability = torch.backends.cpu.get_cpu_capability()
    outputs, inputs, height, width = *weight.shape[:2], *x.shape[2:]
    return algorithms.choose(capability, x.dtype, (outputs, inputs), (height, width))


def is_eager(x: Tensor) -> bool:
    """Whether `x` has values in memory: not in compiled or traced code, in torch.func transforms, or if it is fake."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # pyright: ignore[reportPrivateImportUsage] (documented)
        return False
    try:
        x.data_ptr()
    except RuntimeError:
        return False
    return True
