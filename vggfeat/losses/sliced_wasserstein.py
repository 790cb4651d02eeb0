"""SlicedWassersteinLoss: the distance between feature distributions along random directions."""

import torch
import torch.nn.functional as F
from torch import Tensor

from vggfeat.losses import formulas
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
        self._drawn: dict[tuple[int, torch.device, torch.dtype], Tensor] = {}

    def summary(self, x: Tensor) -> Tensor:
        """The projections of the features (N, C, H, W), sorted over positions: (N, K, H·W)."""
        return formulas.sorted_projections(x, self._directions(x))

    def compare(self, x: Tensor, target: Tensor, name: str) -> Tensor:  # noqa: ARG002 (the base's)
        """`formulas.sliced_distance`, (N,)."""
        return formulas.sliced_distance(x, target, self._directions(x))

    def _directions(self, x: Tensor) -> Tensor:
        """The unit directions for features `x`: (C, K), drawn once for each number of channels, device and dtype."""
        key = x.shape[1], x.device, torch.promote_types(x.dtype, torch.float32)
        if key not in self._drawn:
            generator = torch.Generator().manual_seed(self.seed)
            shape = key[0], self.projections or key[0]
            # A later call may need a gradient.
            with torch.inference_mode(mode=False):
                directions = torch.randn(*shape, generator=generator, dtype=torch.float64)
                self._drawn[key] = F.normalize(directions, dim=0).to(key[1], key[2])
        return self._drawn[key]

    def distance(self, x: Tensor, target: Tensor) -> Tensor:
        """`formulas.quantile_distance`, (N,)."""
        return formulas.quantile_distance(x, target)
