"""The steps of a forward pass: a layer each, or a convolution with the ReLU behind it.

A float32 convolution on a CPU runs by Winograd's algorithm where that is faster than torch's own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vggfeat import arch
from vggfeat.features import winograd

# Where Winograd's algorithm has been measured, as `torch.backends.cpu.get_cpu_capability` names it.
_MEASURED = ("AVX2", "AVX512")
# With fewer channels the transforms cost what the products save; with fewer tiles than these, or than so many weights
# a tile, the transform of the weights does.
_FEWEST_CHANNELS = 128
_FEWEST_TILES = 16
_WEIGHTS_PER_TILE = 2048


@dataclass
class Step:
    """One layer, or a convolution with the ReLU behind it, ready to be run again and again.

    Args:
        layers: the layer, or the two.
        overwritable: nobody else reads what the step is given, so it may be reused.
        pooling: the kind that `pool` layers are.
        plain: use torch's own convolution always.
    """

    layers: Sequence[arch.Layer]
    overwritable: bool
    pooling: arch.Pooling = "max"
    plain: bool = False

    @property
    def name(self) -> str:
        """The layer whose activation the step returns."""
        return self.layers[-1].name

    def __call__(self, x: Tensor, tensors: Sequence[Tensor]) -> Tensor:
        """The activation of `x` (N, C, H, W); `tensors` are the first layer's, in the order of its state dict."""
        first, rectified = self.layers[0], len(self.layers) == 2
        match first.kind:
            case "conv":
                return self._convolve(first, x, *tensors, rectified=rectified)
            case "bn":
                weight, bias, mean, variance = tensors
                return F.batch_norm(x, mean, variance, weight, bias)
            case "relu":
                if first.slope:
                    return F.leaky_relu(x, first.slope, inplace=self.overwritable)
                return F.relu(x, inplace=self.overwritable)
            case "lrn":
                # Krizhevsky et al. (2012), as the paper cites them; torch divides alpha by the size.
                return F.local_response_norm(x, size=5, alpha=5e-4, beta=0.75, k=2.0)
            case "pool":
                return _pool(x, first, self.pooling)

    def _convolve(self, layer: arch.Layer, x: Tensor, weight: Tensor, bias: Tensor, *, rectified: bool) -> Tensor:
        if not self.plain and _winograd_fits(layer, x, weight):
            return winograd.convolve(x, weight, bias, rectify=rectified)
        y = F.conv2d(x, weight, bias, stride=layer.step, padding=layer.padding)
        return F.relu(y, inplace=True) if rectified else y


def steps(
    stack: Sequence[arch.Layer], handed_out: Sequence[str], *, pooling: arch.Pooling, plain: bool
) -> tuple[Step, ...]:
    """The steps that run `stack`, of which the layers named in `handed_out` are returned to the caller."""
    found: list[Step] = []
    overwritable = False  # the images are the caller's
    rest = list(stack)
    while rest:
        layer = rest.pop(0)
        taken = [layer]
        if layer.kind == "conv" and layer.name not in handed_out and rest and _is_plain_relu(rest[0]):
            taken.append(rest.pop(0))
        found.append(Step(taken, overwritable, pooling, plain))
        overwritable = taken[-1].name not in handed_out
    return tuple(found)


def _is_plain_relu(layer: arch.Layer) -> bool:
    return layer.kind == "relu" and not layer.slope


def _pool(x: Tensor, layer: arch.Layer, pooling: arch.Pooling) -> Tensor:
    match pooling:
        case "max":
            return F.max_pool2d(x, layer.kernel, layer.step, layer.padding)
        case "avg":
            return F.avg_pool2d(x, layer.kernel, layer.step, layer.padding)
        case "l2":
            # Ding et al. (2020): a normalised Hann window over the squares. Half precision would lose the 1e-12.
            hann = torch.tensor([0.25, 0.5, 0.25], device=x.device, dtype=torch.promote_types(x.dtype, torch.float32))
            window = torch.outer(hann, hann).expand(layer.channels, 1, -1, -1)
            squares = F.conv2d(
                x.to(hann.dtype).square(), window, stride=layer.step, padding=layer.padding, groups=layer.channels
            )
            return (squares + 1e-12).sqrt().to(x.dtype)


def _winograd_fits(layer: arch.Layer, x: Tensor, weight: Tensor) -> bool:
    return (
        not torch.compiler.is_compiling()
        and (layer.kernel, layer.step, layer.padding) == (3, 1, 1)
        and x.dtype == weight.dtype == torch.float32
        and x.device.type == weight.device.type == "cpu"
        and winograd_is_faster(torch.backends.cpu.get_cpu_capability(), *weight.shape[:2], *x.shape[2:])
        and has_memory(x)
    )


def winograd_is_faster(capability: str, outputs: int, inputs: int, height: int, width: int) -> bool:
    """Whether Winograd's algorithm beats torch's own convolution of a picture of `height` x `width`.

    `capability` is what `torch.backends.cpu.get_cpu_capability()` returns. On a processor that has not been measured,
    torch's own convolution runs.
    """
    tiles = -(-height // winograd.TILE) * -(-width // winograd.TILE)
    return (
        capability in _MEASURED
        and min(outputs, inputs) >= _FEWEST_CHANNELS
        and tiles >= max(_FEWEST_TILES, outputs * inputs // _WEIGHTS_PER_TILE)
    )


def has_memory(x: Tensor) -> bool:
    """Whether `x` has values in memory: the tensors of torch.func have none, nor fake ones."""
    try:
        x.data_ptr()
    except RuntimeError:
        return False
    return True
