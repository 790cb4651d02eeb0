"""ADISTSLoss: locally adaptive structure and texture similarity (Ding et al. 2021), over features."""

from collections.abc import Mapping

import torch
from torch import Tensor

from vggfeat.features import tensors
from vggfeat.features.convolution import convolve
from vggfeat.losses.base import Features, LayerSumLoss, Reduction, layer_features
from vggfeat.losses.dists import DISTS_LAYERS

WINDOW = 21
"""The side of the Gaussian window, in positions. Its standard deviation is a third of it."""

# The centre and the width of the logistic function that makes the dispersion of a layer a probability of texture.
_LOGISTIC: Mapping[str, tuple[float, float]] = {
    "relu1_2": (1.0, 0.29),
    "relu2_2": (2.0, 0.52),
    "relu3_3": (2.95, 0.56),
    "relu4_3": (0.97, 0.25),
    "relu5_3": (0.21, 0.10),
}
_CONSTANT = 1e-6


class ADISTSLoss(LayerSumLoss):
    """A-DISTS (Ding et al. 2021) over features: 0 for equal images. `ADISTS` compares images directly.

    Means, variances and covariances are those of a Gaussian window around each position, where DISTS takes the whole
    image. At each position, the similarities of texture and of structure are weighted by how probable texture is: a
    logistic function of the target's dispersion, its variance divided by its mean. Layers smaller than the window are
    compared as a whole. Nothing is learned.

    The features must come from a VGG-16 with `pooling="l2"` and contain the `image` in [0, 1].

    Args:
        reduction: `mean` or `sum` over the batch gives a scalar, `none` gives (N,).

    Example:
        >>> import torch
        >>> from vggfeat import ADISTSLoss, FeatureExtractor
        >>> loss = ADISTSLoss()
        >>> image = torch.rand(1, 3, 32, 32)
        >>> features = {**FeatureExtractor("vgg16", loss.layers[1:], pooling="l2")(image), "image": image}
        >>> loss(features, loss.target(features)).item()
        0.0
    """

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        super().__init__(DISTS_LAYERS, reduction=reduction)

    def per_layer(self, features: Features, target: Features) -> dict[str, Tensor]:
        """The contribution of each layer, {layer: (N,)}. They add up to the distance."""
        total = sum(layer_features(features, name).shape[1] for name in self.layers)
        values: dict[str, Tensor] = {}
        structured: dict[str, Tensor] = {}
        for name in reversed(self.layers):
            x = layer_features(features, name)
            with tensors.without_autocast(x.device.type):
                y = self.matching(target, name, x).expand_as(x)
                texture, structure, dispersion = _differences(*map(tensors.at_least_float32, (x, y)))
                if name in _LOGISTIC:
                    centre, width = _LOGISTIC[name]
                    structured[name] = ((dispersion.mean(1, keepdim=True) - centre) / width).sigmoid()
                # The image comes last, and has the probabilities of relu1_2, which is as large.
                found = torch.lerp(texture, structure, structured[name if name in _LOGISTIC else "relu1_2"])
                values[name] = found.mean((2, 3)).sum(1) / total
        return {name: values[name] for name in self.layers}


def _differences(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """1 minus the similarity of texture, 1 minus that of structure, and the dispersion of `y`: (N, C, h, w) each.

    1 - (2 cov + c) / (var x + var y + c) is var(x - y) / (var x + var y + c), which keeps the digits of small
    differences, and is 0 for equal features.
    """
    (mean_x, var_x), (mean_y, var_y), (_, var_difference) = map(_local_moments, (x, y, x - y))
    texture = (mean_x - mean_y).square() / (mean_x.square() + mean_y.square() + _CONSTANT)
    return texture, var_difference / (var_x + var_y + _CONSTANT), var_y / (mean_y + 1e-12)


def _local_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """The mean and the variance around each position: (N, C, H, W) to (N, C, h, w) each.

    They are weighted by a Gaussian window within the features; features smaller than it give one position.
    """
    if min(x.shape[2:]) < WINDOW:
        variance, mean = torch.var_mean(x, dim=(2, 3), correction=0, keepdim=True)
        return mean, variance
    mean = _windowed(x)
    return mean, (_windowed(x.square()) - mean.square()).clamp_min(0)


def _windowed(x: Tensor) -> Tensor:
    """The means of a Gaussian window inside (N, C, H, W)."""
    offsets = torch.arange(WINDOW, dtype=x.dtype, device=x.device) - WINDOW // 2
    window = (offsets.square() / (-2 * (WINDOW / 3) ** 2)).softmax(0)
    for weight in (window[None, None, :, None], window[None, None, None, :]):
        x = convolve(x, weight.expand(x.shape[1], -1, -1, -1), groups=x.shape[1])
    return x
