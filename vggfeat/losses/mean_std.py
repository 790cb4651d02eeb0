"""MeanStdLoss: the distance of the means and deviations of channels."""

import torch
from torch import Tensor

from vggfeat.features import tensors
from vggfeat.losses import functional
from vggfeat.losses.base import PooledLoss


class MeanStdLoss(PooledLoss):
    """The mean square difference of channel means plus that of standard deviations (Huang & Belongie 2017)."""

    def summary(self, x: Tensor) -> Tensor:
        """Means and deviations, (N, 2, C)."""
        return functional.mean_std(x)

    def moments(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Sums and sums of squares, (N, 2, C)."""
        x = tensors.at_least_float32(x)
        first = x if mask is None else x * mask
        return torch.stack([first.sum((2, 3)), (first * x).sum((2, 3))], dim=1)

    def settle(self, moments: Tensor, positions: Tensor | float) -> Tensor:
        """Means and deviations, (N, 2, C), up to the rounding of a difference of squares."""
        mean, square = (moments / positions).unbind(1)
        return torch.stack([mean, ((square - mean.square()).clamp_min(0) + 1e-8).sqrt()], dim=1)

    def distance(self, x: Tensor, target: Tensor) -> Tensor:
        """The two mean squares, added: (N,)."""
        return (x - target).square().mean(2).sum(1)
