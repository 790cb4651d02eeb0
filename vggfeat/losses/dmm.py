"""DMMLoss: debiased mapping for image quality (Chen et al. 2023), over features."""

from typing import Any, cast

import torch
from torch import Tensor

from vggfeat.errors import InputError
from vggfeat.features import tensors
from vggfeat.features.products import product
from vggfeat.losses.base import Features, LayerSumLoss, Reduction, layer_features
from vggfeat.losses.formulas import CHUNK_BYTES

DMM_LAYERS = ("relu3_3", "relu4_3")

PATCH = 16
"""The side of a patch of features, in positions."""

_STEP = 4
_CONSTANT = 1e-6


class DMMLoss(LayerSumLoss):
    """DMM (Chen et al. 2023, "Debiased mapping for full-reference image quality assessment") over features.

    It is 0 for equal images. `DMM` compares images directly. The features must come from a VGG-16 with `pooling="l2"`,
    a mean of 0 and a std of 1, and have at least 16x16 positions in each layer.

    Each channel is divided into patches of 16x16 positions, 4 apart. The squared distance of the singular values of two
    patches is multiplied by the dispersion of |U U'| over its rows, where U and U' hold the patches' singular vectors,
    and averaged over patches and channels. A factor of exp(-2 s) follows, where s is the similarity of the channels'
    means.

    The gradient is finite where singular values are equal, as in patches of zeros: there the singular vectors are not
    unique, and get no gradient. There is no second derivative.

    Args:
        reduction: `mean` or `sum` over the batch gives a scalar, `none` gives (N,).

    Example:
        >>> import torch
        >>> from vggfeat import DMMLoss, FeatureExtractor
        >>> loss = DMMLoss()
        >>> extract = FeatureExtractor("vgg16", loss.layers, pooling="l2", mean=(0, 0, 0), std=(1, 1, 1))
        >>> features = extract(torch.rand(1, 3, 128, 128))
        >>> loss(features, loss.target(features)).item()
        0.0
    """

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        super().__init__(DMM_LAYERS, reduction=reduction)

    def per_layer(self, features: Features, target: Features) -> dict[str, Tensor]:
        """The contribution of each layer, {layer: (N,)}. They add up to the distance.

        Raises `InputError` for features of less than 16x16 positions.
        """
        values: dict[str, Tensor] = {}
        for name in self.layers:
            x = layer_features(features, name)
            if min(x.shape[2:]) < PATCH:
                raise InputError(
                    f"{name} has {x.shape[2]}x{x.shape[3]} positions: DMM compares patches of {PATCH}x{PATCH}"
                )
            with tensors.without_autocast(x.device.type):
                y = self.matching(target, name, x).expand_as(x)
                values[name] = _distance(*map(tensors.at_least_float32, (x, y)))
        return values


def _distance(x: Tensor, y: Tensor) -> Tensor:
    """The distance (N,) of the features (N, C, H, W) of a layer."""
    patches = [(side - PATCH) // _STEP + 1 for side in x.shape[2:]]
    each = x.element_size() * x.shape[0] * patches[0] * patches[1] * PATCH**2
    some = max(1, CHUNK_BYTES // each)
    parts = zip(x.split(some, 1), y.split(some, 1), strict=True)
    structure = torch.cat([_patch_distance(*part) for part in parts], dim=1).mean(1)
    mean_x, mean_y = x.mean((2, 3)), y.mean((2, 3))
    alike = (2 * mean_x * mean_y + _CONSTANT) / (mean_x.square() + mean_y.square() + _CONSTANT)
    return structure * (-2 * alike.mean(1)).exp()


def _patch_distance(x: Tensor, y: Tensor) -> Tensor:
    """The mean over patches of the weighted distances of singular values: (N, C, H, W) twice to (N, C)."""
    (vectors_x, values_x), (vectors_y, values_y) = map(_decomposed, (x, y))
    agreement = (vectors_x * vectors_y).abs().sum(-1)
    weight = _deviation(agreement) / (agreement.mean(-1) + 1e-9)
    return ((values_x - values_y).square().sum(-1) * weight).mean(2)


def _decomposed(x: Tensor) -> tuple[Tensor, Tensor]:
    """Left singular vectors (N, C, P, 16, 16) and singular values (N, C, P, 16) of the transposed patches."""
    patches = x.unfold(2, PATCH, _STEP).unfold(3, PATCH, _STEP).mT
    return cast("Any", _SingularVectors).apply(patches.flatten(2, 3).contiguous())


def _deviation(x: Tensor) -> Tensor:
    """The standard deviation over the last axis, with a gradient of 0 where it is 0."""
    variance = x.var(-1)
    return torch.where(variance > 0, variance.clamp_min(torch.finfo(x.dtype).tiny).sqrt(), 0.0)


class _SingularVectors(torch.autograd.Function):
    """Matrices (..., K, K) to their left singular vectors (..., K, K) and singular values (..., K).

    The gradient of singular vectors has a factor 1 / (s_i² - s_j²). Where that difference is only rounding, the vectors
    are not unique, and the gradient is 0.
    """

    @staticmethod
    def forward(ctx: Any, matrices: Tensor) -> tuple[Tensor, Tensor]:
        left, values, right = torch.linalg.svd(matrices, full_matrices=False)
        ctx.save_for_backward(left, values, right)
        return left, values

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            raise InputError("DMM has no second derivative: call backward() without create_graph")
        left, values, right = ctx.saved_tensors
        turned = product(left.mT, grad_outputs[0])
        squares = values.square()
        gaps = squares[..., None, :] - squares[..., :, None]
        least = values.shape[-1] * torch.finfo(values.dtype).eps * squares[..., :1, None]
        inner = torch.where(gaps.abs() > least, (turned - turned.mT) / gaps, 0.0) * values[..., None, :]
        return product(product(left, inner + torch.diag_embed(grad_outputs[1])), right)
