"""CovarianceLoss: the Wasserstein distance between Gaussian fits of the features."""

import torch
from torch import Tensor

from vggfeat.features import tensors
from vggfeat.features.products import product
from vggfeat.losses import formulas
from vggfeat.losses.base import PooledLoss


class CovarianceLoss(PooledLoss):
    """Squared 2-Wasserstein distance between Gaussians with the features' means and covariances, divided by C.

    The distance is that of Olkin & Pukelsheim (1982), see `formulas.gaussian_w2`. Images may differ in size.

    Args:
        layers: {layer: weight}, or layer names, each of weight 1.
        reduction: `mean` or `sum` over the batch gives a scalar, `none` gives (N,).

    Example:
        >>> import torch
        >>> from vggfeat import CovarianceLoss
        >>> x = torch.rand(1, 4, 6, 6, generator=torch.Generator().manual_seed(0))
        >>> loss = CovarianceLoss(["relu1_1"])
        >>> value = loss({"relu1_1": x + 0.5}, loss.target({"relu1_1": x}))  # the mean moves, the covariance does not
        >>> round(value.item(), 4)
        0.25
    """

    def summary(self, x: Tensor) -> Tensor:
        """The mean and, below it, the covariance of the features: (N, C + 1, C)."""
        return formulas.mean_covariance(x)

    def moments(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """The sums of the channels and, below them, of their products: (N, C + 1, C)."""
        first = x if mask is None else x * mask.to(x.dtype)
        products = formulas.gram(x if mask is None else x * mask.sqrt().to(x.dtype), divide_by="none")
        return torch.cat([tensors.at_least_float32(first).sum((2, 3))[:, None], products], dim=1)

    def from_moments(self, moments: Tensor, positions: Tensor | float) -> Tensor:
        """The mean and the covariance (N, C + 1, C). Rounding is that of a difference of products."""
        means = moments / positions
        mean, products = means[:, :1], means[:, 1:]
        return torch.cat([mean, products - product(mean.mT, mean)], dim=1)

    def prepared(self, summary: Tensor) -> Tensor:
        """The mean, the covariance and, below them, the root of the covariance: (N, 2 C + 1, C)."""
        return torch.cat([summary, formulas.matrix_root(summary[:, 1:])], dim=1)

    def distance(self, x: Tensor, target: Tensor) -> Tensor:
        """`formulas.gaussian_w2` divided by the number of channels, (N,). `target` may be `prepared`."""
        moments, root = target[:, : x.shape[1]], target[:, x.shape[1] :]
        return formulas.gaussian_w2(x, moments, root=root if root.shape[1] else None) / x.shape[2]
