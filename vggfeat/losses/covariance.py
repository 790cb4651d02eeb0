"""CovarianceLoss: the Wasserstein distance of Gaussians."""

import torch
from torch import Tensor

from vggfeat.features import tensors
from vggfeat.losses import functional
from vggfeat.losses.base import PooledLoss


class CovarianceLoss(PooledLoss):
    """The squared 2-Wasserstein distance of the Gaussians with the features' means and covariances, over C."""

    def summary(self, x: Tensor) -> Tensor:
        """Mean and covariance, (N, C + 1, C)."""
        return functional.mean_covariance(x)

    def moments(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Sums, and below them the products of channels, (N, C + 1, C)."""
        first = x if mask is None else x * mask.to(x.dtype)
        products = functional.gram(x if mask is None else x * mask.sqrt().to(x.dtype), divide_by="none")
        return torch.cat([tensors.at_least_float32(first).sum((2, 3))[:, None], products], dim=1)

    def settle(self, moments: Tensor, positions: Tensor | float) -> Tensor:
        """Mean and covariance, (N, C + 1, C), up to the rounding of a difference of products."""
        means = moments / positions
        mean, products = means[:, :1], means[:, 1:]
        return torch.cat([mean, products - mean.mT @ mean], dim=1)

    def distance(self, x: Tensor, target: Tensor) -> Tensor:
        """`functional.gaussian_w2` divided by the number of channels: (N,)."""
        return functional.gaussian_w2(x, target) / x.shape[2]
