"""DISTSLoss: deep image structure and texture similarity (Ding et al. 2020), over features."""

import torch
from torch import Tensor

from vggfeat.features import tensors
from vggfeat.features.products import product
from vggfeat.losses.base import Features, LayerSumLoss, Reduction, layer_features
from vggfeat.losses.lpips import LPIPS_TAPS
from vggfeat.networks import weights as weights_table

DISTS_LAYERS = ("image", *LPIPS_TAPS["vgg"][1])


class DISTSLoss(LayerSumLoss):
    """DISTS (Ding et al. 2020) over features: 0 for equal images. `DISTS` compares images directly.

    The features must come from a VGG-16 with `pooling="l2"` and contain the `image` in [0, 1].

    Args:
        reduction: `mean` or `sum` over the batch gives a scalar, `none` gives (N,).

    Example:
        >>> import torch
        >>> from vggfeat import DISTSLoss, FeatureExtractor
        >>> loss = DISTSLoss()
        >>> extract = FeatureExtractor("vgg16", loss.layers[1:], pooling="l2")
        >>> image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        >>> features = {**extract(image), "image": image}
        >>> abs(round(loss(features, loss.target(features)).item(), 6))
        0.0
    """

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        super().__init__(DISTS_LAYERS, reduction=reduction)
        self.register_published()

    def published(self) -> dict[str, Tensor]:
        """The weights `alpha` of texture and `beta` of structure, (1475,) each."""
        return weights_table.load_dists()

    def per_layer(self, features: Features, target: Features) -> dict[str, Tensor]:
        """The contribution of each layer, {layer: (N,)}. They add up to the distance."""
        alpha, beta = self.get_buffer("alpha"), self.get_buffer("beta")
        total = (alpha + beta).sum()
        values: dict[str, Tensor] = {}
        start = 0
        for name in self.layers:
            x = layer_features(features, name)
            with tensors.without_autocast(x.device.type):
                texture, structure = _ssim_terms(x, self.matching(target, name, x))
                a, b = (w[start : start + x.shape[1]].to(texture.dtype) for w in (alpha, beta))
                # The weights add up to 1. Subtracting each term from 1 before summing keeps the digits of small
                # distances.
                values[name] = (product(1 - texture, a) + product(1 - structure, b)) / total
            start += x.shape[1]
        return values


def _ssim_terms(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The texture and structure similarity of each channel (Ding et al. 2020), (N, C) each, at least float32."""
    x, y = (tensors.at_least_float32(z).flatten(2) for z in (x, y.expand_as(x)))
    (var_x, mean_x), (var_y, mean_y) = (torch.var_mean(z, dim=2, correction=0) for z in (x, y))
    covariance = ((x - mean_x[..., None]) * (y - mean_y[..., None])).mean(2)
    constant = 1e-6
    texture = (2 * mean_x * mean_y + constant) / (mean_x.square() + mean_y.square() + constant)
    structure = (2 * covariance + constant) / (var_x + var_y + constant)
    return texture, structure
