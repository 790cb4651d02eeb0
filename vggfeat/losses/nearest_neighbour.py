"""NearestNeighbourLoss: the cosine distance from each feature to its nearest neighbour."""

from torch import Tensor

from vggfeat.features import tensors
from vggfeat.losses import formulas
from vggfeat.losses.base import FeatureLoss, Layers, Reduction


class NearestNeighbourLoss(FeatureLoss):
    """Cosine distance from the features of each position to the nearest features of the target, averaged.

    Single positions are matched, as in Kolkin et al. (2022); Li & Wand (2016) match patches. Both sides are centred on
    the target's mean. Images may differ in size.

    Args:
        layers: {layer: weight}, or layer names, each of weight 1.
        chunk: positions of the prediction compared at a time. Memory is proportional to `chunk` times the number of
            positions of the target.
        reduction: `mean` or `sum` over the batch gives a scalar, `none` gives (N,).

    Example:
        >>> import torch
        >>> from vggfeat.losses.nearest_neighbour import NearestNeighbourLoss
        >>> x = torch.rand(1, 8, 6, 6, generator=torch.Generator().manual_seed(0))
        >>> loss = NearestNeighbourLoss(["relu3_1"])
        >>> abs(round(loss({"relu3_1": x.flip(3)}, loss.target({"relu3_1": x})).item(), 4))
        0.0
    """

    aligned = False
    local = True

    def __init__(self, layers: Layers, *, chunk: int = 1024, reduction: Reduction = "mean") -> None:
        super().__init__(layers, reduction=reduction)
        self.chunk = chunk

    def summary(self, x: Tensor) -> Tensor:
        """The features (N, C, H, W), unchanged, except that half precision becomes float32."""
        return tensors.at_least_float32(x)

    def distance(self, x: Tensor, target: Tensor) -> Tensor:
        """The mean over positions of 1 minus the largest cosine, (N,)."""
        return formulas.nearest_cosine_distance(x, target, chunk=self.chunk)
