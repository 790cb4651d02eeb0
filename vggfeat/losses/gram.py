"""GramLoss: the distance between Gram matrices."""

from typing import Literal, get_args

from torch import Tensor

from vggfeat.errors import one_of
from vggfeat.losses import formulas
from vggfeat.losses.base import ELEMENTWISE, Layers, PooledLoss, Reduction


class GramLoss(PooledLoss):
    """Style loss of Gatys et al. (2016): the mean distance between entries of Gram matrices.

    Images may differ in size.

    Args:
        layers: {layer: weight}, or layer names, each of weight 1.
        divide_by: the convention for the Gram matrix, see `gram`.
        distance: `l2` compares entries by their squared difference, `l1` by the absolute one (BasicSR's default).
        reduction: `mean` or `sum` over the batch gives a scalar, `none` gives (N,).

    Example:
        >>> import torch
        >>> from vggfeat import GramLoss
        >>> loss = GramLoss(["relu1_1"])
        >>> target = loss.target({"relu1_1": torch.zeros(1, 64, 5, 5)})
        >>> loss({"relu1_1": torch.full((1, 64, 8, 8), 2.0)}, target)  # every entry is 2 * 2
        tensor(16.)
    """

    def __init__(
        self,
        layers: Layers,
        *,
        divide_by: formulas.GramDivisor = "hw",
        distance: Literal["l2", "l1"] = "l2",
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(layers, reduction=reduction)
        self.divide_by: formulas.GramDivisor = one_of("divide_by", divide_by, get_args(formulas.GramDivisor))
        self.kind: Literal["l2", "l1"] = one_of("distance", distance, ("l2", "l1"))

    def moments(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """The sums over positions of the products of channels: (N, C, C)."""
        return formulas.gram(x if mask is None else x * mask.sqrt().to(x.dtype), divide_by="none")

    def from_moments(self, moments: Tensor, positions: Tensor | float) -> Tensor:
        """The Gram matrix (N, C, C), divided according to `divide_by`."""
        match self.divide_by:
            case "hw":
                return moments / positions
            case "chw":
                return moments / (positions * moments.shape[1])
            case "none":
                return moments

    def distance(self, x: Tensor, target: Tensor) -> Tensor:
        """The mean distance (N,) over the entries of the matrices."""
        return ELEMENTWISE[self.kind](x, target).flatten(1).mean(1)
