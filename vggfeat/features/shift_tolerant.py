"""AlexNet and VGG-16 with blurred reductions, as a frozen trunk: the networks of ST-LPIPS."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from vggfeat.features import steps, tensors
from vggfeat.features.convolution import convolve
from vggfeat.features.device import Precision, choose_device, resolve_precision
from vggfeat.features.trunk import Check, Trunk
from vggfeat.networks import arch
from vggfeat.networks.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from vggfeat.pictures.padding import mirror_pad
from vggfeat.pictures.ranges import InputRange

# The reflected positions on each side of a blur: twice as many as its window of 3 needs (Ghildyal & Liu 2022).
_MARGIN = 2
_FIELDS: Mapping[arch.Kind, tuple[str, ...]] = {"conv": ("weight", "bias")}


class ShiftTolerant(Trunk):
    """A network whose convolutions and pools have a stride of 1, each followed by a blur that halves the size.

    Where the plan of `network` has a stride, the same operation runs with a stride of 1, and a window of (1, 2, 1) over
    each channel, with a stride of 2 and reflected edges, comes after it. A stride of 4 becomes one of 2.

    Args:
        network: `alexnet` or `vgg16`.
        layers: names of the layers to return.
        state: the weights under torchvision's keys, as `weights.load` returns them.
        precision: as for `FeatureExtractor`.
        device: of the weights.
        input_range: of the images.
        check: of the values of the images.

    >>> from vggfeat import weights
    >>> trunk = ShiftTolerant("vgg16", ["relu2_1"], weights.load("vgg16")[0], device="cpu")
    >>> trunk(torch.rand(1, 3, 32, 32))["relu2_1"].shape
    torch.Size([1, 128, 17, 17])
    """

    def __init__(
        self,
        network: str,
        layers: Sequence[str],
        state: Mapping[str, Tensor],
        *,
        precision: Precision = "float32",
        device: str | torch.device | None = None,
        input_range: InputRange = "unit",
        check: Check = "raise",
    ) -> None:
        taps = arch.find_layers(network, layers)
        parts = _parts(arch.layers(network)[: taps[-1].index + 1])
        super().__init__(
            [tap.name for tap in taps],
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            input_range=input_range,
            check=check,
            minimum=_minimum(parts),
            arithmetic="tf32" if precision == "tf32" else "float32",
        )
        self.network = network
        place = choose_device(device)
        self.dtype = resolve_precision(precision, place)
        self._parts = [
            steps.steps(part, self.layers, pooling="max", plain=False, arithmetic=self.arithmetic) for part in parts
        ]
        found = {
            f"{layer.name}_{field}": state[f"{layer.module}.{field}"]
            for part in parts
            for layer in part
            for field in _FIELDS.get(layer.kind, ())
        }
        self.weights_digest = tensors.digest(found.values())
        with torch.inference_mode(mode=False):
            for key, value in found.items():
                x = value.to(place, self.dtype)
                x = x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x
                self.register_buffer(key, x, persistent=False)
            self.register_buffer("window", steps.hann_window(place), persistent=False)
        self._set_normalisation(place)

    @property
    def name(self) -> str:
        """The network's name, for messages."""
        return f"shift-tolerant {self.network}"

    def run(self, x: Tensor) -> dict[str, Tensor]:
        """The features of normalised images in the trunk's precision."""
        x = x.contiguous(memory_format=torch.channels_last)
        features: dict[str, Tensor] = {}
        for number, part in enumerate(self._parts):
            x = self._blur(x) if number else x
            for step in part:
                first = step.layers[0]
                x = step(x, [self.get_buffer(f"{first.name}_{field}") for field in _FIELDS.get(first.kind, ())])
                if step.name in self.layers:
                    features[step.name] = x
        return features

    def _blur(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        window = self.get_buffer("window").to(x.dtype).expand(channels, 1, -1, -1)
        return convolve(mirror_pad(x, _MARGIN), window, stride=2, groups=channels, arithmetic=self.arithmetic)


def _parts(stack: Sequence[arch.Layer]) -> list[list[arch.Layer]]:
    """The layers, each with a stride of 1, divided where a blur comes between them."""
    parts: list[list[arch.Layer]] = [[]]
    for layer in stack:
        parts[-1].append(replace(layer, step=1))
        if layer.step > 1:
            parts.append([])
    return parts


def _minimum(parts: Sequence[Sequence[arch.Layer]]) -> int:
    """The smallest image side that leaves at least one position."""
    side = 1
    for number, part in reversed(list(enumerate(parts))):
        for layer in reversed(part):
            side = max(1, side - 1 + layer.kernel - 2 * layer.padding)
        if number:  # a reflection needs more positions than its margin
            side = max(_MARGIN + 1, 2 * (side - 1) + 3 - 2 * _MARGIN)
    return side
