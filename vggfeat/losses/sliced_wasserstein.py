"""SlicedWassersteinLoss: the distance of distributions, projection by projection."""

import torch
import torch.nn.functional as F
from torch import Tensor

from vggfeat.losses import functional
from vggfeat.losses.base import FeatureLoss, Layers, Reduction


class SlicedWassersteinLoss(FeatureLoss):
    """The mean squared 2-Wasserstein distance of features projected on random directions (Heitz et al. 2021).

    `projections` unit directions are drawn from `seed`, the same in every call; None takes as many as channels.
    """

    aligned = False

    def __init__(
        self, layers: Layers, *, projections: int | None = None, seed: int = 0, reduction: Reduction = "mean"
    ) -> None:
        super().__init__(layers, reduction=reduction)
        self.projections = projections
        self.seed = seed

    def summary(self, x: Tensor) -> Tensor:
        """Sorted projections, (N, K, H·W)."""
        channels = x.shape[1]
        generator = torch.Generator().manual_seed(self.seed)
        directions = torch.randn(channels, self.projections or channels, generator=generator, dtype=torch.float64)
        directions = F.normalize(directions, dim=0)
        return functional.sorted_projections(x, directions.to(x.device, torch.promote_types(x.dtype, torch.float32)))

    def distance(self, x: Tensor, target: Tensor) -> Tensor:
        """`functional.quantile_distance`: (N,)."""
        return functional.quantile_distance(x, target)
