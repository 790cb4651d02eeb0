"""TotalVariationLoss: how much neighbouring pixels differ."""

from typing import Literal

from torch import Tensor

from vggfeat.losses import functional
from vggfeat.losses.base import FeatureLoss, Features, Reduction, read


class TotalVariationLoss(FeatureLoss):
    """The total variation of the image itself, which the mapping holds as `image`; it has no target."""

    aligned = False

    def __init__(self, *, power: Literal[1, 2] = 2, reduction: Reduction = "mean") -> None:
        super().__init__(["image"], reduction=reduction)
        self.power: Literal[1, 2] = power

    def target(self, features: Features, *, graph: bool = False) -> dict[str, Tensor]:  # noqa: ARG002 (the base's)
        """Nothing: smoothness needs no example."""
        return {}

    def forward(self, features: Features, target: Features) -> Tensor:  # noqa: ARG002 (the base's)
        """`functional.total_variation` of `features["image"]`."""
        return self.reduce(functional.total_variation(read(features, "image"), power=self.power))
