"""ContentLoss: the distance between features, position by position."""

from typing import get_args

from torch import Tensor

from vggfeat.errors import one_of
from vggfeat.features import tensors
from vggfeat.losses import formulas
from vggfeat.losses.base import ELEMENTWISE, Distance, FeatureLoss, Layers, Reduction


class ContentLoss(FeatureLoss):
    """Compares features position by position and averages over channels and positions.

    Args:
        layers: {layer: weight}, or layer names, each of weight 1.
        distance: of the difference d of two values: `l2` is d² (Johnson et al. 2016; Gatys et al. 2016 without their
            factor 1/2), `l1` is |d|, `charbonnier` is sqrt(d² + 1e-6) (Lai et al. 2017), `huber` is d²/2 below 1 and
            |d| - 1/2 above. `cosine` is 1 minus the cosine of the two channel vectors of a position.
        reduction: `mean` or `sum` over the batch gives a scalar, `none` gives (N,).

    Example:
        >>> import torch
        >>> from vggfeat import ContentLoss
        >>> loss = ContentLoss({"relu3_3": 2.0})
        >>> target = loss.target({"relu3_3": torch.zeros(1, 256, 8, 8)})
        >>> loss({"relu3_3": torch.full((1, 256, 8, 8), 3.0)}, target)
        tensor(18.)
    """

    local = True

    def __init__(self, layers: Layers, *, distance: Distance = "l2", reduction: Reduction = "mean") -> None:
        super().__init__(layers, reduction=reduction)
        self.kind: Distance = one_of("distance", distance, get_args(Distance))

    def summary(self, x: Tensor) -> Tensor:
        """The features (N, C, H, W), scaled to unit length over channels if the distance is `cosine`."""
        return formulas.unit_normalize(x) if self.kind == "cosine" else tensors.at_least_float32(x)

    def distance(self, x: Tensor, target: Tensor) -> Tensor:
        """The mean distance (N,) over channels and positions."""
        if self.kind == "cosine":
            return 1 - (x * target).sum(1).mean((1, 2))
        return ELEMENTWISE[self.kind](x, target.expand_as(x)).flatten(1).mean(1)
