"""ContextualLoss: each feature and the one most like it."""

from torch import Tensor

from vggfeat.features import tensors
from vggfeat.losses import functional
from vggfeat.losses.base import FeatureLoss, Layers, Reduction


class ContextualLoss(FeatureLoss):
    """Minus the logarithm of `functional.contextual_similarity` (Mechrez et al. 2018), for unaligned pictures.

    Memory grows with `chunk` times the number of positions of the target.
    """

    aligned = False

    def __init__(
        self, layers: Layers, *, bandwidth: float = 0.5, chunk: int = 1024, reduction: Reduction = "mean"
    ) -> None:
        super().__init__(layers, reduction=reduction)
        self.bandwidth = bandwidth
        self.chunk = chunk

    def summary(self, x: Tensor) -> Tensor:
        """The features themselves."""
        return tensors.at_least_float32(x)

    def distance(self, x: Tensor, target: Tensor) -> Tensor:
        """-log of the similarity: (N,)."""
        return -functional.contextual_similarity(x, target, bandwidth=self.bandwidth, chunk=self.chunk).log()
