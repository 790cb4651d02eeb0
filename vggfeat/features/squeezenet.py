"""torchvision's SqueezeNet 1.1 as a frozen trunk, for LPIPS."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn
from torchvision.models import squeezenet1_1

from vggfeat.features import tensors
from vggfeat.features.convolution import convolve
from vggfeat.features.device import Arithmetic, Precision, choose_device, resolve_precision
from vggfeat.features.trunk import Check, Trunk
from vggfeat.networks import weights as weights_table
from vggfeat.networks.downloads import torchvision_file
from vggfeat.networks.weights import WeightsLike
from vggfeat.pictures.ranges import InputRange

# A convolution of stride 2 without padding, then three pools of stride 2 that round up.
_MINIMUM = 17


class SqueezeNet(Trunk):
    """torchvision's SqueezeNet 1.1. Its layers are `features.N`, the outputs of its `features`.

    >>> squeeze = SqueezeNet(["features.1"], weights=None, device="cpu")
    >>> squeeze(torch.rand(1, 3, 32, 32))["features.1"].shape
    torch.Size([1, 64, 15, 15])
    """

    def __init__(
        self,
        layers: Sequence[str],
        *,
        weights: WeightsLike,
        precision: Precision = "float32",
        device: str | torch.device | None = None,
        mean: weights_table.Triple = weights_table.IMAGENET_MEAN,
        std: weights_table.Triple = weights_table.IMAGENET_STD,
        input_range: InputRange = "unit",
        check: Check = "raise",
    ) -> None:
        super().__init__(
            layers,
            mean=mean,
            std=std,
            input_range=input_range,
            check=check,
            minimum=_MINIMUM,
            arithmetic="tf32" if precision == "tf32" else "float32",
        )
        place = choose_device(device)
        self.dtype = resolve_precision(precision, place)
        features = squeezenet1_1(weights=None).features.requires_grad_(requires_grad=False)
        features.load_state_dict(_squeezenet_state(weights))
        self.weights_digest = tensors.digest(features.state_dict().values())
        for name, module in list(features.named_modules()):
            if isinstance(module, nn.Conv2d):
                features.set_submodule(name, _Convolution(module, self.arithmetic))
        # In a list, so that a parent sees neither its parameters nor its keys.
        self._features = [features.to(place, self.dtype)]
        self._set_normalisation(place)

    @property
    def name(self) -> str:
        """The network's name, for messages."""
        return "squeezenet1_1"

    def run(self, x: Tensor) -> dict[str, Tensor]:
        """The features of normalised images in the trunk's precision."""
        found: dict[str, Tensor] = {}
        for index, module in enumerate(self._features[0]):
            x = module(x)
            if f"features.{index}" in self.layers:
                found[f"features.{index}"] = x
        return found

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._features[0]._apply(fn, recurse)  # noqa: SLF001
        return super()._apply(fn, recurse)


class _Convolution(nn.Module):
    """A convolution of torchvision's, computed by ours."""

    def __init__(self, module: nn.Conv2d, arithmetic: Arithmetic) -> None:
        super().__init__()
        self.module = module
        self.arithmetic: Arithmetic = arithmetic

    def forward(self, x: Tensor) -> Tensor:
        conv = self.module
        return convolve(
            x, conv.weight, conv.bias, stride=conv.stride[0], padding=int(conv.padding[0]), arithmetic=self.arithmetic
        )


def _squeezenet_state(weights: WeightsLike) -> dict[str, Tensor]:
    """The `features` of a SqueezeNet's state dict: torchvision's, a file's, a mapping's, or random ones for None."""
    from torchvision.models import SqueezeNet1_1_Weights

    if weights is None:
        return squeezenet1_1(weights=None).features.state_dict()
    if isinstance(weights, Mapping):
        state = weights
    elif weights in ("default", "imagenet1k_v1"):
        file = torchvision_file(
            SqueezeNet1_1_Weights.IMAGENET1K_V1.url,
            weights_table.cache_dir(),
            what="weights of squeezenet1_1 are not bundled and",
            hint="those of vgg and alex are bundled",
        )
        state = weights_table.read_state(file)
    else:
        state = weights_table.read_state(Path(weights))
    return {key.removeprefix("features."): x for key, x in state.items() if key.startswith("features.")}
