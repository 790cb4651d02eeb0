"""What this machine can do at most: a matrix product, and a network's convolutions with nothing between them."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from vggfeat.networks import arch

DTYPES: Mapping[str, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}

_SIDE = 2048


class Product:
    """A square matrix product. `flops` of one call."""

    def __init__(self, precision: str, side: int = _SIDE) -> None:
        self._matrix = torch.rand(side, side, dtype=DTYPES[precision])
        self.flops = 2 * side**3

    @torch.inference_mode()
    def __call__(self) -> Tensor:
        """The product."""
        return self._matrix @ self._matrix


class Convolutions:
    """The convolutions of a network up to a layer, each on an input of its own; `flops` of one call.

    torch's own, as fast as it has them: weights and inputs in channels_last, no graph. With `backward` each gradient
    of the input is computed too, and none of a weight.
    """

    def __init__(
        self, network: str, last: str, shape: tuple[int, int, int], precision: str, *, backward: bool = False
    ) -> None:
        dtype = DTYPES[precision]
        batch, height, width = shape
        self._backward = backward
        self._calls: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        self.flops = 0
        planes: dict[tuple[int, ...], Tensor] = {}  # one for all of a shape
        (found,) = arch.find_layers(network, last)
        for layer in arch.layers(network)[: found.index + 1]:
            if layer.kind == "conv":
                channels = layer.in_channels, layer.channels
                x, gradient = (
                    planes.setdefault((count, height, width), _plane(batch, count, height, width, dtype))
                    for count in channels
                )
                weight = torch.rand(layer.channels, layer.in_channels, layer.kernel, layer.kernel, dtype=dtype) - 0.5
                weight = weight.contiguous(memory_format=torch.channels_last)
                self._calls.append((x, weight, torch.zeros(layer.channels, dtype=dtype), gradient))
                self.flops += 2 * (1 + backward) * weight.numel() * batch * height * width
            height, width = layer.output_side(height), layer.output_side(width)

    @torch.inference_mode()
    def __call__(self) -> None:
        """All of them, one after the other."""
        for x, weight, bias, gradient in self._calls:
            F.conv2d(x, weight, bias, padding=1)
            if self._backward:
                torch.ops.aten.convolution_backward(
                    gradient, x, weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [True, False, False]
                )


def _plane(batch: int, channels: int, height: int, width: int, dtype: torch.dtype) -> Tensor:
    plane = torch.rand(batch, channels, height, width, dtype=dtype)
    return plane.contiguous(memory_format=torch.channels_last)
