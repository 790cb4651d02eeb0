"""MeanStdLoss: the distance between channel means and standard deviations."""

import torch
from torch import Tensor

from vggfeat.features import tensors
from vggfeat.losses import formulas
from vggfeat.losses.base import PooledLoss


class MeanStdLoss(PooledLoss):
    """Style loss of Huang & Belongie (2017): compares the mean and standard deviation of each channel.

    The loss is the mean square difference of the means plus that of the deviations. Images may differ in size.

    Args:
        layers: {layer: weight}, or layer names, each of weight 1.
        reduction: `mean` or `sum` over the batch gives a scalar, `none` gives (N,).

    Example:
        >>> import torch
        >>> from vggfeat import MeanStdLoss
        >>> x = torch.rand(1, 4, 6, 6, generator=torch.Generator().manual_seed(0))
        >>> loss = MeanStdLoss(["relu1_1"])
        >>> value = loss({"relu1_1": x + 0.5}, loss.target({"relu1_1": x}))
        >>> round(value.item(), 4)
        0.25
    """

    def summary(self, x: Tensor) -> Tensor:
        """The means and standard deviations of the channels: (N, 2, C)."""
        return formulas.mean_std(x)

    def moments(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """The sums of the channels and of their squares: (N, 2, C)."""
        x = tensors.at_least_float32(x)
        first = x if mask is None else x * mask
        return torch.stack([first.sum((2, 3)), (first * x).sum((2, 3))], dim=1)

    def from_moments(self, moments: Tensor, positions: Tensor | float) -> Tensor:
        """The means and standard deviations (N, 2, C). Rounding is that of a difference of squares."""
        mean, square = (moments / positions).unbind(1)
        return torch.stack([mean, ((square - mean.square()).clamp_min(0) + 1e-8).sqrt()], dim=1)

    def distance(self, x: Tensor, target: Tensor) -> Tensor:
        """The mean square differences of means and of deviations, added: (N,)."""
        return (x - target).square().mean(2).sum(1)
