"""ContentLoss: the distance of features, position by position."""

from typing import get_args

from torch import Tensor

from vggfeat.errors import one_of
from vggfeat.features import tensors
from vggfeat.losses import functional
from vggfeat.losses.base import ELEMENTWISE, Distance, FeatureLoss, Layers, Reduction


class ContentLoss(FeatureLoss):
    """The difference of features, averaged over channels and space.

    `distance`: `l2` the mean square (Gatys et al. 2016 without their factor 1/2; Johnson et al. 2016), `l1` the mean
    absolute difference, `charbonnier` sqrt(d² + 1e-6) (Lai et al. 2017), `huber` d²/2 below 1 and |d| - 1/2 above,
    `cosine` 1 minus the cosine of the vectors of channels.
    """

    local = True

    def __init__(self, layers: Layers, *, distance: Distance = "l2", reduction: Reduction = "mean") -> None:
        super().__init__(layers, reduction=reduction)
        self.kind: Distance = one_of("distance", distance, get_args(Distance))

    def summary(self, x: Tensor) -> Tensor:
        """The features, of unit length for `cosine`."""
        return functional.unit_normalize(x) if self.kind == "cosine" else tensors.at_least_float32(x)

    def distance(self, x: Tensor, target: Tensor) -> Tensor:
        """The mean over channels and space: (N,)."""
        if self.kind == "cosine":
            return 1 - (x * target).sum(1).mean((1, 2))
        return ELEMENTWISE[self.kind](x, target.expand_as(x)).flatten(1).mean(1)
