"""TotalVariationLoss: the total variation of an image."""

from typing import Literal

from torch import Tensor

from vggfeat.losses import formulas
from vggfeat.losses.base import FeatureLoss, Features, Reduction, layer_features


class TotalVariationLoss(FeatureLoss):
    """Total variation of the image, which the features must contain as `image`. It has no target.

    Args:
        power: 2 averages squared differences of neighbouring pixels, 1 absolute ones (Rudin et al. 1992).
        reduction: `mean` or `sum` over the batch gives a scalar, `none` gives (N,).

    Example:
        >>> import torch
        >>> from vggfeat import TotalVariationLoss
        >>> ramp = torch.linspace(0, 1, 5).expand(1, 3, 5, 5)
        >>> TotalVariationLoss(power=1)({"image": ramp}, {})
        tensor(0.2500)
    """

    aligned = False

    def __init__(self, *, power: Literal[1, 2] = 2, reduction: Reduction = "mean") -> None:
        super().__init__(["image"], reduction=reduction)
        self.power: Literal[1, 2] = power

    def target(self, features: Features, *, graph: bool = False) -> dict[str, Tensor]:  # noqa: ARG002 (the base's)
        """An empty mapping, since nothing is compared."""
        return {}

    def forward(self, features: Features, target: Features) -> Tensor:  # noqa: ARG002 (the base's)
        """`formulas.total_variation` of `features["image"]`: a scalar or (N,)."""
        return self.reduce(formulas.total_variation(layer_features(features, "image"), power=self.power))
