"""FeatureInfo: channels, strides and receptive fields of an extractor's layers, with timm's method names."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from vggfeat.networks import arch


@dataclass(frozen=True, slots=True)
class FeatureInfo:
    """Describes the layers of an extractor, in the order of its features. Iterating yields their `arch.Layer`.

    >>> info = FeatureInfo(arch.find_layers("vgg16", "relu?_3"))
    >>> info.names(), info.channels(), info.reduction()
    (['relu3_3', 'relu4_3', 'relu5_3'], [256, 512, 512], [4, 8, 16])
    >>> info.module_name(), info.receptive_field(), info.offset()
    (['features.15', 'features.22', 'features.29'], [40, 92, 196], [1.5, 3.5, 7.5])
    """

    layers: Sequence[arch.Layer]

    def __iter__(self) -> Iterator[arch.Layer]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def names(self) -> list[str]:
        """The layers' names, which are the keys of the features."""
        return [layer.name for layer in self.layers]

    def channels(self) -> list[int]:
        """The channels of each layer's features."""
        return [layer.channels for layer in self.layers]

    def reduction(self) -> list[int]:
        """The stride of each layer: pixels of the image between neighbouring positions."""
        return [layer.stride for layer in self.layers]

    def module_name(self) -> list[str]:
        """The name of each layer's module in torchvision's networks."""
        return [layer.module for layer in self.layers]

    def receptive_field(self) -> list[int]:
        """The side of each layer's receptive field, in pixels of the image."""
        return [layer.receptive_field for layer in self.layers]

    def offset(self) -> list[float]:
        """The centre of the first position's receptive field, in pixels; pixel 0 has its centre at 0.

        Position i is centred at `offset + i * reduction`.
        """
        return [layer.offset for layer in self.layers]

    def get_dicts(self) -> list[dict[str, Any]]:
        """One dictionary for each layer: timm's keys `num_chs`, `reduction` and `module`, and ours.

        >>> FeatureInfo(arch.find_layers("vgg11", "relu1_1")).get_dicts()[0]["num_chs"]
        64
        """
        return [
            {
                "name": layer.name,
                "module": layer.module,
                "num_chs": layer.channels,
                "reduction": layer.stride,
                "receptive_field": layer.receptive_field,
                "offset": layer.offset,
            }
            for layer in self.layers
        ]
