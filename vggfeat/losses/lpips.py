"""LPIPSLoss: learned perceptual image patch similarity (Zhang et al. 2018), over features."""

import re
from collections.abc import Mapping
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad

from vggfeat.errors import WeightsError, one_of
from vggfeat.features import steps, tensors
from vggfeat.features.convolution import convolve
from vggfeat.features.products import product
from vggfeat.losses import formulas
from vggfeat.losses.base import (
    Features,
    LayerSumLoss,
    Reduction,
    layer_features,
    ordered_sum,
    outside_inference_mode,
    usable_in_training,
)
from vggfeat.networks import weights as weights_table

Net = Literal["vgg", "alex", "squeeze"]
Version = Literal["0.1", "0.0"]
Convention = Literal["lpips", "3dgs", "torchmetrics", "pyiqa", "basicsr"]
Heads = str | PathLike[str] | Mapping[str, Tensor]

# The network and the layers of each variant in the `lpips` package. SqueezeNet's layers are indices of torchvision's
# `features`.
LPIPS_TAPS: Mapping[Net, tuple[str, tuple[str, ...]]] = {
    "vgg": ("vgg16", ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")),
    "alex": ("alexnet", ("relu1_1", "relu2_1", "relu3_1", "relu3_2", "relu3_3")),
    "squeeze": ("squeezenet1_1", tuple(f"features.{index}" for index in (1, 4, 7, 9, 10, 11, 12))),
}


# The variant that each convention evaluates with.
CONVENTION_NETS: Mapping[Convention, Net] = {
    "lpips": "vgg",
    "3dgs": "vgg",
    "torchmetrics": "alex",
    "pyiqa": "alex",
    "basicsr": "vgg",
}

# The key of a head in a state dict of the `lpips` package and of those that copied it.
_HEAD_KEY = re.compile(r"(?:^|\.)lin(?:s\.)?(\d)\.(?:model\.)?\d\.weight$")

POSITIONS = 4096
"""On CPU, positions with 64 channels that are compared at a time, so that their features stay in the cache."""


class LPIPSLoss(LayerSumLoss):
    """LPIPS (Zhang et al. 2018) over features: 0 for equal images. `LPIPS` compares images directly.

    In each layer, channel vectors are scaled to unit length, subtracted, squared, weighted by a non-negative head and
    averaged over positions. The values of the layers are added. Gradients are finite where features are zero. The
    loss can be differentiated twice.

    Args:
        net: the variant, which decides the layers: `vgg`, `alex` or `squeeze`.
        version: version of the heads in the `lpips` package.
        spatial: return a map instead, (N, 1, H, W): each layer's map is resized to the `image`, which the features
            must contain, bilinearly, and the maps are added.
        exact: use the operations of the `lpips` package one by one, so that equal features give an equal value to the
            bit.
        heads: other heads: a file, or a state dict with the keys of the `lpips` package, of its heads or of all.
        convention: `torchmetrics` divides features by sqrt(norm² + 1e-8), all others by norm + 1e-10.
        reduction: `mean` or `sum` over the batch gives a scalar, `none` gives (N,).

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
        heads: Heads | None = None,
        convention: Convention = "lpips",
        reduction: Reduction = "mean",
    ) -> None:
        one_of("net", net, get_args(Net))
        super().__init__(LPIPS_TAPS[net][1], reduction=reduction)
        self.convention: Convention = one_of("convention", convention, get_args(Convention))
        self.net: Net = net
        self.version: Version = one_of("version", version, get_args(Version))
        self.spatial = spatial
        self.exact = exact
        with outside_inference_mode():
            self._own_heads = None if heads is None else [*map(usable_in_training, read_heads(heads, net))]
        self.register_published()

    def published(self) -> dict[str, Tensor]:
        """The heads, {head0: (C,), ...}."""
        heads = self._own_heads or _lpips_heads(self.net, self.version)
        return {f"head{number}": head for number, head in enumerate(heads)}

    def maps(self, features: Features, target: Features) -> dict[str, Tensor]:
        """The distance at each position of each layer, {layer: (N, 1, h, w)}, at least float32."""
        compare = _head_distance_exact if self.exact else _head_distance
        if self.convention == "torchmetrics":
            compare = _head_distance_smooth
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
            return super().forward(features, target)
        size = layer_features(features, "image").shape[2:]
        maps = self.maps(features, target)
        return ordered_sum(
            {name: F.interpolate(x, size, mode="bilinear", align_corners=False) for name, x in maps.items()}
        )


def read_heads(source: Heads, net: Net) -> list[Tensor]:
    """The heads of a variant in a file or a state dict, (C,) each, under the keys of the `lpips` package.

    Other keys are ignored, so the state dict may be that of a whole `lpips.LPIPS`, or of a model with one inside.
    Raises `WeightsError` if a head is missing or has another size.
    """
    state = source if isinstance(source, Mapping) else weights_table.read_state(Path(source))
    found = {int(match[1]): x for key, x in state.items() if (match := _HEAD_KEY.search(key))}
    expected = [len(head) for head in _lpips_heads(net, "0.1")]
    given = [found[number].numel() for number in sorted(found)]
    if given != expected or sorted(found) != list(range(len(expected))):
        named = "the state dict" if isinstance(source, Mapping) else f"'{source}'"
        raise WeightsError(
            f"{named} has LPIPS heads of {given or 'no'} channels, and net='{net}' needs {expected}: "
            "the keys are lin0.model.1.weight and so on"
        )
    return [found[number].detach().cpu().flatten().float() for number in sorted(found)]


def _lpips_heads(net: Net, version: Version) -> list[Tensor]:
    """The heads of the `lpips` package, (C,) each, read without importing the package."""
    spec = find_spec("lpips")
    if spec is None or spec.origin is None:
        raise WeightsError("LPIPS uses the heads of the package lpips, which is not installed: pip install lpips")
    path = Path(spec.origin).parent / "weights" / f"v{version}" / f"{net}.pth"
    state = cast("dict[str, Tensor]", torch.load(path, map_location="cpu", weights_only=True))
    return [head.flatten().float() for _, head in sorted(state.items())]


def _head_distance_exact(x: Tensor, y: Tensor, head: Tensor) -> Tensor:
    difference = (formulas.unit_normalize(x) - formulas.unit_normalize(y)) ** 2
    return convolve(difference, head[None, :, None, None].to(difference.dtype))


def _head_distance_smooth(x: Tensor, y: Tensor, head: Tensor) -> Tensor:
    x, y = map(tensors.at_least_float32, (x, y))
    units = [z / (z.square().sum(1, keepdim=True) + 1e-8).sqrt() for z in (x, y)]
    return convolve((units[0] - units[1]).square(), head[None, :, None, None].to(units[0].dtype))


def _head_distance(x: Tensor, y: Tensor, head: Tensor) -> Tensor:
    """The weighted squared distance of unit channel vectors: (N, C, H, W) twice and (C,) to (N, 1, H, W)."""
    y = y.expand_as(x)
    rows = (x.permute(0, 2, 3, 1).flatten(0, 2), y.permute(0, 2, 3, 1).flatten(0, 2))
    # torch.func and forward-mode differentiation need plain tensor operations; a compiler fuses these by itself.
    plain = not all(map(steps.is_eager, (x, y))) or any(map(_has_tangent, (x, y)))
    values: Tensor = _row_distance(*rows, head) if plain else cast("Any", _HeadDistance).apply(*rows, head)
    return values.reshape(x.shape[0], 1, *x.shape[2:])


def _has_tangent(x: Tensor) -> bool:
    return cast("Any", forward_ad).unpack_dual(x).tangent is not None


def _row_distance(x: Tensor, y: Tensor, head: Tensor) -> Tensor:
    """The sum over C of head * (x/|x| - y/|y|)²: (P, C), (P, C) and (C,) to (P,), in plain tensor operations."""
    difference = formulas.unit_normalize(x) - formulas.unit_normalize(y)
    return (difference.square() * head.to(difference.dtype)).sum(1)


class _HeadDistance(torch.autograd.Function):
    """`_row_distance`, on CPU one part of the rows at a time, so that intermediate values stay in the cache.

    Each of a dozen tensor operations would read and write all features of a layer, and autograd would keep some of the
    results. Only the features themselves are saved, which the network's own graph keeps as well.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, head: Tensor) -> Tensor:
        ctx.save_for_backward(x, y, head)
        values = torch.empty(x.shape[0], dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
        for part in _parts(x):
            (unit_x, _), (unit_y, _) = (_unit(z[part].to(values.dtype)) for z in (x, y))
            values[part] = product((unit_x - unit_y).square_(), head.to(values.dtype))
        return values

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (arriving,) = grad_outputs
        x, y, head = ctx.saved_tensors
        wanted: tuple[bool, bool] = ctx.needs_input_grad[:2]
        if torch.is_grad_enabled():  # under create_graph: the gradient must itself be differentiable
            inputs = [z for z, want in zip((x, y), wanted, strict=True) if want]
            found = iter(torch.autograd.grad(_row_distance(x, y, head), inputs, arriving, create_graph=True))
            return next(found) if wanted[0] else None, next(found) if wanted[1] else None, None
        gradients = [torch.empty_like(z) if want else None for z, want in zip((x, y), wanted, strict=True)]
        for part in _parts(x):
            (unit_x, scale_x), (unit_y, scale_y) = (_unit(z[part].to(arriving.dtype)) for z in (x, y))
            weighted = (unit_x - unit_y).mul_(head.to(arriving.dtype)).mul_(2 * arriving[part, None])
            for gradient, unit, scale in ((gradients[0], unit_x, scale_x), (gradients[1], unit_y, -scale_y)):
                if gradient is not None:
                    along = (unit * weighted).sum(1, keepdim=True)
                    gradient[part] = torch.addcmul(weighted, unit, along, value=-1).mul_(scale)
        return gradients[0], gradients[1], None


def _parts(rows: Tensor) -> list[slice]:
    step = len(rows) if rows.is_cuda else max(1, POSITIONS * 64 // rows.shape[1])
    return [slice(start, start + step) for start in range(0, len(rows), max(1, step))]


def _unit(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows divided by (norm + 1e-10), and that divisor's inverse, or 0 for zero rows, which get no gradient."""
    norm = rows.square().sum(1, keepdim=True).sqrt()
    scale = 1 / (norm + 1e-10)
    return rows * scale, torch.where(norm > 0, scale, 0.0)
