"""NearestNeighbourLoss: the cosine distance to the nearest feature."""

from torch import Tensor

from vggfeat.features import tensors
from vggfeat.losses import functional
from vggfeat.losses.base import FeatureLoss, Layers, Reduction


class NearestNeighbourLoss(FeatureLoss):
    """The cosine distance of each position's features to the nearest of the target's, averaged over space.

    Li & Wand (2016) match patches, Kolkin et al. (2022) single positions, as here. Both sides are centred on the mean
    of the target. Memory grows with `chunk` times the number of positions of the target.
    """

    aligned = False
    local = True

    def __init__(self, layers: Layers, *, chunk: int = 1024, reduction: Reduction = "mean") -> None:
        super().__init__(layers, reduction=reduction)
        self.chunk = chunk

    def summary(self, x: Tensor) -> Tensor:
        """The features themselves."""
        return tensors.at_least_float32(x)

    def distance(self, x: Tensor, target: Tensor) -> Tensor:
        """The mean over positions of 1 minus the greatest cosine: (N,)."""
        return functional.nearest_cosine_distance(x, target, chunk=self.chunk)
