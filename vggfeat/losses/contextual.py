"""ContextualLoss: compares images that are not aligned by the best match of each feature."""

from torch import Tensor

from vggfeat.features import tensors
from vggfeat.losses import formulas
from vggfeat.losses.base import FeatureLoss, Layers, Reduction


class ContextualLoss(FeatureLoss):
    """Contextual loss of Mechrez et al. (2018), for images that are not aligned.

    The loss is minus the logarithm of `formulas.contextual_similarity`.

    Args:
        layers: {layer: weight}, or layer names, each of weight 1.
        bandwidth: h of the paper; smaller values make the assignment of features sharper.
        chunk: positions of the prediction compared at a time. Memory is proportional to `chunk` times the number of
            positions of the target.
        reduction: `mean` or `sum` over the batch gives a scalar, `none` gives (N,).

    Example:
        >>> import torch
        >>> from vggfeat import ContextualLoss
        >>> x = torch.rand(1, 8, 6, 6, generator=torch.Generator().manual_seed(0))
        >>> loss = ContextualLoss(["relu4_2"])
        >>> target = loss.target({"relu4_2": x})
        >>> moved, noise = x.roll(2, dims=3), x.flip(1)
        >>> bool(loss({"relu4_2": moved}, target) < loss({"relu4_2": noise}, target))
        True
    """

    aligned = False

    def __init__(
        self, layers: Layers, *, bandwidth: float = 0.5, chunk: int = 1024, reduction: Reduction = "mean"
    ) -> None:
        super().__init__(layers, reduction=reduction)
        self.bandwidth = bandwidth
        self._chunk = chunk

    def summary(self, x: Tensor) -> Tensor:
        """The features (N, C, H, W), unchanged, except that half precision becomes float32."""
        return tensors.at_least_float32(x)

    def distance(self, x: Tensor, target: Tensor) -> Tensor:
        """Minus the logarithm of the contextual similarity, (N,)."""
        return -formulas.contextual_similarity(x, target, bandwidth=self.bandwidth, chunk=self._chunk).log()
