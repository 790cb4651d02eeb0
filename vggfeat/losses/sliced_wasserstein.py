"""SlicedWassersteinLoss: the distance between feature distributions along random directions."""

import torch
import torch.nn.functional as F
from torch import Tensor

from vggfeat.losses import functional
from vggfeat.losses.base import FeatureLoss, Layers, Reduction


class SlicedWassersteinLoss(FeatureLoss):
    """Sliced Wasserstein loss of Heitz et al. (2021).

    Features are projected on random unit directions; the loss is the mean over directions of the squared 2-Wasserstein
    distance between the projections. Images may differ in size.

    Args:
        layers: {layer: weight}, or layer names, each of weight 1.
        projections: number of directions; None means as many as the layer has channels.
        seed: the directions are drawn from it, the same ones at every call.
        reduction: `mean` or `sum` over the batch gives a scalar, `none` gives (N,).

    Example:
        >>> import torch
        >>> from vggfeat import SlicedWassersteinLoss
        >>> x = torch.rand(1, 4, 6, 6, generator=torch.Generator().manual_seed(0))
        >>> loss = SlicedWassersteinLoss(["relu1_1"], projections=8)
        >>> loss({"relu1_1": x.flip(2)}, loss.target({"relu1_1": x})).item()  # positions do not matter
        0.0
    """

    aligned = False

    def __init__(
        self, layers: Layers, *, projections: int | None = None, seed: int = 0, reduction: Reduction = "mean"
    ) -> None:
        super().__init__(layers, reduction=reduction)
        self.projections = projections
        self.seed = seed

    def summary(self, x: Tensor) -> Tensor:
        """The projections of the features (N, C, H, W), sorted over positions: (N, K, H·W)."""
        channels = x.shape[1]
        generator = torch.Generator().manual_seed(self.seed)
        directions = torch.randn(channels, self.projections or channels, generator=generator, dtype=torch.float64)
        directions = F.normalize(directions, dim=0)
        return functional.sorted_projections(x, directions.to(x.device, torch.promote_types(x.dtype, torch.float32)))

    def distance(self, x: Tensor, target: Tensor) -> Tensor:
        """`functional.quantile_distance`, (N,)."""
        return functional.quantile_distance(x, target)
