"""NearestNeighbourLoss: the cosine distance from each feature to its nearest neighbour."""

from torch import Tensor

from vggfeat.features import tensors
from vggfeat.losses import formulas
from vggfeat.losses.base import FeatureLoss, Layers, Reduction


class NearestNeighbourLoss(FeatureLoss):
    """Cosine distance from the features of each position to the nearest features of the target, averaged.

    Single positions are matched, as in Kolkin et al. (2022); Li & Wand (2016) match patches. Images may differ in size.
    The gradient reaches the first argument only, also with `target(features, graph=True)`.

    With `centre=False` it is the feature loss of 3D stylisation (Zhang et al. 2022, "ARF: artistic radiance fields").
    They match the channels of several layers of one size together: concatenate those features, as in the example.

    Args:
        layers: {layer: weight}, or layer names, each of weight 1. The names are keys of the mapping of features.
        centre: subtract the mean of the target's features from both sides first.
        chunk: positions of the prediction compared at a time. Memory is proportional to `chunk` times the number of
            positions of the target.
        reduction: `mean` or `sum` over the batch gives a scalar, `none` gives (N,).

    Example:
        >>> import torch
        >>> from vggfeat import FeatureExtractor, NearestNeighbourLoss
        >>> extract = FeatureExtractor("vgg16", ["relu3_1", "relu3_2", "relu3_3"])
        >>> def third_block(images):
        ...     return {"block3": torch.cat(list(extract(images).values()), dim=1)}
        >>> loss = NearestNeighbourLoss(["block3"], centre=False)
        >>> style = loss.target(third_block(torch.rand(1, 3, 48, 64)))  # once
        >>> rendered = torch.rand(1, 3, 40, 40, requires_grad=True)
        >>> loss(third_block(rendered), style).backward()
        >>> rendered.grad.shape
        torch.Size([1, 3, 40, 40])
    """

    aligned = False
    local = True

    def __init__(
        self, layers: Layers, *, centre: bool = True, chunk: int = 1024, reduction: Reduction = "mean"
    ) -> None:
        super().__init__(layers, reduction=reduction)
        self.centre = centre
        self._chunk = chunk

    def summary(self, x: Tensor) -> Tensor:
        """The features (N, C, H, W), unchanged, except that half precision becomes float32."""
        return tensors.at_least_float32(x)

    def distance(self, x: Tensor, target: Tensor) -> Tensor:
        """The mean over positions of 1 minus the largest cosine, (N,)."""
        return formulas.nearest_cosine_distance(x, target, centre=self.centre, chunk=self._chunk)
