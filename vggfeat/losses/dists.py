"""DISTSLoss: the structure and texture distance of Ding et al. (2020), over features."""

import torch
from torch import Tensor

from vggfeat.features import tensors
from vggfeat.losses.base import FeatureLoss, Features, Reduction, ordered_sum, read
from vggfeat.losses.lpips import LPIPS_TAPS
from vggfeat.networks import weights as weights_table

DISTS_LAYERS = ("image", *LPIPS_TAPS["vgg"][1])


class DISTSLoss(FeatureLoss):
    """The structure and texture distance of Ding et al. (2020) over features that were extracted already.

    The features must come from L2 pooling, and the mapping must hold the `image` in [0, 1].
    """

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        super().__init__(DISTS_LAYERS, reduction=reduction)
        for name, values in weights_table.load_dists().items():
            self.register_buffer(name, values, persistent=False)

    def summary(self, x: Tensor) -> Tensor:
        """The features as they are."""
        return x

    def per_layer(self, features: Features, target: Features) -> dict[str, Tensor]:
        """What each layer contributes, {layer: (N,)}: they add up to the distance."""
        alpha, beta = self.get_buffer("alpha"), self.get_buffer("beta")
        total = (alpha + beta).sum()
        found: dict[str, Tensor] = {}
        start = 0
        for name in self.layers:
            x = read(features, name)
            with tensors.without_autocast(x.device.type):
                texture, structure = _ssim_terms(x, self.fitting(target, name, x))
                a, b = (values[start : start + x.shape[1]].to(texture.dtype) for values in (alpha, beta))
                # 1 - sum of weights x terms, where the weights add up to 1: each term is taken from 1 on its own,
                # which keeps the digits of small distances.
                found[name] = ((1 - texture) @ a + (1 - structure) @ b) / total
            start += x.shape[1]
        return found

    def forward(self, features: Features, target: Features) -> Tensor:
        """The distance, 0 for equal images: a scalar or (N,)."""
        return self.reduce(ordered_sum(self.per_layer(features, target)))


def _ssim_terms(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Ding et al.'s texture and structure similarities of each channel, (N, C) each, in float32 at least."""
    x, y = (tensors.at_least_float32(z).flatten(2) for z in (x, y.expand_as(x)))
    (var_x, mean_x), (var_y, mean_y) = (torch.var_mean(z, dim=2, correction=0) for z in (x, y))
    covariance = ((x - mean_x[..., None]) * (y - mean_y[..., None])).mean(2)
    constant = 1e-6
    texture = (2 * mean_x * mean_y + constant) / (mean_x.square() + mean_y.square() + constant)
    structure = (2 * covariance + constant) / (var_x + var_y + constant)
    return texture, structure
