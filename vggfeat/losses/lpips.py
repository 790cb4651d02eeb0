"""LPIPSLoss: learned perceptual image patch similarity (Zhang et al. 2018), over features."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from vggfeat.errors import WeightsError, one_of
from vggfeat.features import tensors
from vggfeat.losses import functional
from vggfeat.losses.base import FeatureLoss, Features, Reduction, layer_features, ordered_sum

Net = Literal["vgg", "alex", "squeeze"]
Version = Literal["0.1", "0.0"]

# The network and the layers of each variant in the `lpips` package. SqueezeNet's layers are indices of torchvision's
# `features`.
LPIPS_TAPS: Mapping[Net, tuple[str, tuple[str, ...]]] = {
    "vgg": ("vgg16", ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")),
    "alex": ("alexnet", ("relu1_1", "relu2_1", "relu3_1", "relu3_2", "relu3_3")),
    "squeeze": ("squeezenet1_1", tuple(f"features.{index}" for index in (1, 4, 7, 9, 10, 11, 12))),
}


# On CPU, positions with 64 channels that are compared at a time, so that their features stay in the cache.
_POSITIONS = 4096


class LPIPSLoss(FeatureLoss):
    """LPIPS (Zhang et al. 2018) over features: 0 for equal images. `LPIPS` compares images directly.

    In each layer, channel vectors are scaled to unit length, subtracted, squared, weighted by a non-negative head and
    averaged over positions. The values of the layers are added. Gradients are finite where features are zero.

    Args:
        net: the variant, which decides the layers: `vgg`, `alex` or `squeeze`.
        version: version of the heads in the `lpips` package.
        spatial: return a map instead, (N, 1, H, W): each layer's map is resized to the `image`, which the features
            must contain, bilinearly, and the maps are added.
        exact: use the operations of the `lpips` package one by one, so that equal features give an equal value to the
            bit.
        reduction: `mean` over the batch gives a scalar, `none` gives (N,).

    Example:
        >>> import torch
        >>> from vggfeat import FeatureExtractor, LPIPSLoss
        >>> loss = LPIPSLoss("alex")
        >>> features = FeatureExtractor("alexnet", loss.layers)(torch.rand(1, 3, 64, 64))
        >>> loss(features, loss.target(features)).item()
        0.0
    """

    def __init__(
        self,
        net: Net = "vgg",
        *,
        version: Version = "0.1",
        spatial: bool = False,
        exact: bool = False,
        reduction: Reduction = "mean",
    ) -> None:
        one_of("net", net, get_args(Net))
        super().__init__(LPIPS_TAPS[net][1], reduction=reduction)
        self.net: Net = net
        self.version: Version = one_of("version", version, get_args(Version))
        self.spatial = spatial
        self.exact = exact
        for number, head in enumerate(_lpips_heads(net, version)):
            self.register_buffer(f"head{number}", head, persistent=False)

    def summary(self, x: Tensor) -> Tensor:
        """The features, unchanged: they are normalised when they are compared."""
        return x

    def maps(self, features: Features, target: Features) -> dict[str, Tensor]:
        """The distance at each position of each layer, {layer: (N, 1, h, w)}, at least float32."""
        compare = _head_distance_exact if self.exact else _head_distance
        values: dict[str, Tensor] = {}
        for number, name in enumerate(self.layers):
            x = layer_features(features, name)
            with tensors.without_autocast(x.device.type):
                values[name] = compare(x, self.matching(target, name, x), self.get_buffer(f"head{number}"))
        return values

    def per_layer(self, features: Features, target: Features) -> dict[str, Tensor]:
        """The contribution of each layer, {layer: (N,)}. They add up to the distance."""
        return {name: x.mean((2, 3))[:, 0] for name, x in self.maps(features, target).items()}

    def forward(self, features: Features, target: Features) -> Tensor:
        """The distance: a scalar or (N,), or (N, 1, H, W) if `spatial`."""
        if not self.spatial:
            return self.reduce(ordered_sum(self.per_layer(features, target)))
        size = layer_features(features, "image").shape[2:]
        maps = self.maps(features, target)
        return ordered_sum(
            {name: F.interpolate(x, size, mode="bilinear", align_corners=False) for name, x in maps.items()}
        )


def _lpips_heads(net: Net, version: Version) -> list[Tensor]:
    """The heads of the `lpips` package, (C,) each, read without importing the package."""
    spec = find_spec("lpips")
    if spec is None or spec.origin is None:
        raise WeightsError("LPIPS uses the heads of the package lpips, which is not installed: pip install lpips")
    path = Path(spec.origin).parent / "weights" / f"v{version}" / f"{net}.pth"
    state = cast("dict[str, Tensor]", torch.load(path, map_location="cpu", weights_only=True))
    return [head.flatten().float() for _, head in sorted(state.items())]


def _head_distance_exact(x: Tensor, y: Tensor, head: Tensor) -> Tensor:
    difference = (functional.unit_normalize(x) - functional.unit_normalize(y)) ** 2
    return F.conv2d(difference, head[None, :, None, None].to(difference.dtype))


def _head_distance(x: Tensor, y: Tensor, head: Tensor) -> Tensor:
    """(N, C, H, W) twice and (C,) to (N, 1, H, W): the weighed squared distance of features of unit length."""
    y = y.expand_as(x)
    rows = (z.permute(0, 2, 3, 1).flatten(0, 2) for z in (x, y))
    values: Tensor = _HeadDistance.apply(*rows, head)
    return values.reshape(x.shape[0], 1, *x.shape[2:])


class _HeadDistance(torch.autograd.Function):
    """Rows (P, C), (P, C) and weights (C,) to (P,): the sum over C of weight x (x/|x| - y/|y|)².

    The gradient is formed along with the value, a part of the rows at a time while they are in the processor's cache:
    written with tensors, each of a dozen operations would read and write all the features of a layer in float32.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, head: Tensor) -> Tensor:
        wanted = (ctx.needs_input_grad[0], ctx.needs_input_grad[1])
        work = torch.promote_types(x.dtype, torch.float32)
        head = head.to(work)
        values = torch.empty(x.shape[0], dtype=work, device=x.device)
        gradients = [torch.empty_like(z) if want else None for z, want in zip((x, y), wanted, strict=True)]
        whole = x.is_cuda or torch.compiler.is_compiling()
        step = max(1, _POSITIONS * 64 // x.shape[1])
        for part in [slice(None)] if whole else [slice(start, start + step) for start in range(0, x.shape[0], step)]:
            (unit_x, scale_x), (unit_y, scale_y) = (_unit(z[part].to(work)) for z in (x, y))
            difference = unit_x - unit_y
            weighed = difference * head
            values[part] = (difference * weighed).sum(1)
            for gradient, unit, scale, sign in (
                (gradients[0], unit_x, scale_x, 2),
                (gradients[1], unit_y, scale_y, -2),
            ):
                if gradient is not None:
                    along = (unit * weighed).sum(1, keepdim=True)
                    gradient[part] = torch.addcmul(weighed, unit, along, value=-1) * (sign * scale)
        ctx.save_for_backward(*gradients)
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, Tensor | None, None]:  # pyright: ignore[reportIncompatibleMethodOverride] (untyped decorator)
        (arriving,) = grad_outputs
        x, y = (
            None if gradient is None else gradient * arriving[:, None].to(gradient.dtype)
            for gradient in ctx.saved_tensors
        )
        return x, y, None


def _unit(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows over (their norm + 1e-10), and one over that, 0 where a row is zero and so has no direction to change."""
    norm = rows.square().sum(1, keepdim=True).sqrt()
    scale = 1 / (norm + 1e-10)
    return rows * scale, torch.where(norm > 0, scale, 0.0)
