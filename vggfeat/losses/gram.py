"""GramLoss: the distance of Gram matrices."""

from typing import Literal, get_args

from torch import Tensor

from vggfeat.errors import one_of
from vggfeat.losses import functional
from vggfeat.losses.base import ELEMENTWISE, Layers, PooledLoss, Reduction


class GramLoss(PooledLoss):
    """The mean square difference of Gram matrices; `divide_by` as in `functional.gram`.

    With `distance="l1"` the mean absolute difference (BasicSR's default).
    """

    def __init__(
        self,
        layers: Layers,
        *,
        divide_by: functional.GramDivisor = "hw",
        distance: Literal["l2", "l1"] = "l2",
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(layers, reduction=reduction)
        self.divide_by: functional.GramDivisor = one_of("divide_by", divide_by, get_args(functional.GramDivisor))
        self.kind: Literal["l2", "l1"] = one_of("distance", distance, ("l2", "l1"))

    def moments(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """The products of channels, (N, C, C)."""
        return functional.gram(x if mask is None else x * mask.sqrt().to(x.dtype), divide_by="none")

    def settle(self, moments: Tensor, positions: Tensor | float) -> Tensor:
        """The Gram matrix, (N, C, C)."""
        match self.divide_by:
            case "hw":
                return moments / positions
            case "chw":
                return moments / (positions * moments.shape[1])
            case "none":
                return moments

    def distance(self, x: Tensor, target: Tensor) -> Tensor:
        """The mean over the matrix: (N,)."""
        return ELEMENTWISE[self.kind](x, target).flatten(1).mean(1)
