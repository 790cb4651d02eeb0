"""LPIPS and DISTS: learned perceptual distances, as losses over features and as criteria of two images.

`LPIPSLoss` and `DISTSLoss` read features, and can share a pass with other losses; `LPIPS` and `DISTS` bring the
network that their definition names.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from os import PathLike
from pathlib import Path, PurePath
from typing import Any, Literal, Self, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torchvision.models import squeezenet1_1  # pyright: ignore[reportMissingTypeStubs] (untyped upstream)

from vggfeat import functional
from vggfeat import weights as weights_table
from vggfeat.criterion import Criterion
from vggfeat.errors import WeightsError
from vggfeat.extract import Check, FeatureExtractor, InputRange, Precision, Trunk, choose_device, resolve_precision
from vggfeat.losses import FeatureLoss, Features, Reduction, one_of, read

Net = Literal["vgg", "alex", "squeeze"]
Version = Literal["0.1", "0.0"]
WeightsLike = str | PathLike[str] | Mapping[str, Tensor] | None

# Zhang et al. (2018), as the `lpips` package has it: the network and its taps. SqueezeNet is no VGG: its taps are
# numbers of torchvision's `features`.
LPIPS_TAPS: Mapping[Net, tuple[str, tuple[str, ...]]] = {
    "vgg": ("vgg16", ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")),
    "alex": ("alexnet", ("relu1_1", "relu2_1", "relu3_1", "relu3_2", "relu3_3")),
    "squeeze": ("squeezenet1_1", tuple(f"features.{index}" for index in (1, 4, 7, 9, 10, 11, 12))),
}
DISTS_LAYERS = ("image", *LPIPS_TAPS["vgg"][1])

# Positions that are compared at a time on a CPU: few enough for their features to stay in its cache.
_POSITIONS = 4096


class LPIPSLoss(FeatureLoss):
    """The learned distance of Zhang et al. (2018) over features that were extracted already.

    For each layer, features of unit length are subtracted, squared, weighed by a non-negative head, averaged over
    space; layers add up. The heads are those of the `lpips` package, version 0.1 or 0.0. With `spatial` the maps are
    resized to the image, bilinearly, and added: (N, 1, H, W), for which the mapping must hold `image`. With `exact`
    the operations are those of the `lpips` package one by one, so that equal features give an equal value to the bit.
    Gradients are finite where features are zero, either way. Not twice differentiable.
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
        """The features as they are: what they come down to is formed where they are compared."""
        return x

    def maps(self, features: Features, target: Features) -> dict[str, Tensor]:
        """The distance at each position of each layer: {layer: (N, 1, h, w)} in float32 at least."""
        compare = _head_distance_exact if self.exact else _head_distance
        found: dict[str, Tensor] = {}
        for number, name in enumerate(self.layers):
            x = read(features, name)
            with functional.without_autocast(x.device.type):
                found[name] = compare(x, self.fitting(target, name, x), self.get_buffer(f"head{number}"))
        return found

    def per_layer(self, features: Features, target: Features) -> dict[str, Tensor]:
        """What each layer contributes: {layer: (N,)}."""
        return {name: x.mean((2, 3))[:, 0] for name, x in self.maps(features, target).items()}

    def forward(self, features: Features, target: Features) -> Tensor:
        """The distance: a scalar or (N,), and (N, 1, H, W) if `spatial`."""
        if not self.spatial:
            return self.reduce(_sum(self.per_layer(features, target)))
        size = read(features, "image").shape[2:]
        maps = self.maps(features, target)
        return _sum({name: F.interpolate(x, size, mode="bilinear", align_corners=False) for name, x in maps.items()})


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
            with functional.without_autocast(x.device.type):
                texture, structure = _ssim_terms(x, self.fitting(target, name, x))
                a, b = (values[start : start + x.shape[1]].to(texture.dtype) for values in (alpha, beta))
                # 1 - sum of weights x terms, where the weights add up to 1: each term is taken from 1 on its own,
                # which keeps the digits of small distances.
                found[name] = ((1 - texture) @ a + (1 - structure) @ b) / total
            start += x.shape[1]
        return found

    def forward(self, features: Features, target: Features) -> Tensor:
        """The distance, 0 for equal images: a scalar or (N,)."""
        return self.reduce(_sum(self.per_layer(features, target)))


class LPIPS(Criterion[LPIPSLoss]):
    """LPIPS of two batches of images (Zhang et al. 2018): `LPIPS()(prediction, target)`.

    Args:
        net: `vgg` and `alex` run on bundled weights; `squeeze` downloads torchvision's.
        version: of the heads; `0.0` also skips the scaling of the images.
        spatial: return a map, (N, 1, H, W).
        exact: compute as the `lpips` package does, operation by operation: slower, equal to the bit where the
            convolutions are.
        input_range, precision, check, device, weights: as for `FeatureExtractor`. `lpips` itself takes `signed`.
        reduction: `mean` over the batch, or `none`, (N,).
        both: let the gradient reach the target too.
    """

    def __init__(
        self,
        net: Net = "vgg",
        *,
        version: Version = "0.1",
        spatial: bool = False,
        exact: bool = False,
        reduction: Reduction = "mean",
        both: bool = False,
        input_range: InputRange = "unit",
        precision: Precision = "float32",
        check: Check = "warn",
        weights: WeightsLike = "default",
        device: str | torch.device | None = None,
    ) -> None:
        loss = LPIPSLoss(net, version=version, spatial=spatial, exact=exact, reduction=reduction)
        network, layers = LPIPS_TAPS[net]
        # Version 0.0 feeds images in [-1, 1] unscaled, which for [0, 1] is a mean and a std of one half.
        plain = {} if version == "0.1" else {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
        options: dict[str, Any] = {
            "weights": weights,
            "input_range": input_range,
            "precision": precision,
            "check": check,
            "device": device,
        }
        trunk: Trunk
        if net == "squeeze":
            trunk = _SqueezeNet(layers, **plain, **options)
        else:
            trunk = FeatureExtractor(network, layers, channels_last=not exact, **plain, **options)
        super().__init__(trunk, loss.to(device), both=both)


class DISTS(Criterion[DISTSLoss]):
    """DISTS of two batches of images (Ding et al. 2020): `DISTS()(prediction, target)`.

    Images are taken at their own size; the original resizes the shorter side to 256 first if it is larger:
    `resize=256`. The other arguments are those of `LPIPS`.
    """

    def __init__(
        self,
        *,
        resize: int | None = None,
        reduction: Reduction = "mean",
        both: bool = False,
        input_range: InputRange = "unit",
        precision: Precision = "float32",
        check: Check = "warn",
        weights: WeightsLike = "default",
        device: str | torch.device | None = None,
    ) -> None:
        trunk = FeatureExtractor(
            "vgg16",
            DISTS_LAYERS[1:],
            weights=weights,
            input_range=input_range,
            precision=precision,
            pooling="l2",
            check=check,
            device=device,
        )
        super().__init__(trunk, DISTSLoss(reduction=reduction).to(device), resize=resize, both=both)


def _sum(values: Mapping[str, Tensor]) -> Tensor:
    # One after the other from the first, as the `lpips` package adds them.
    total, *rest = values.values()
    for value in rest:
        total = total + value
    return total


def _lpips_heads(net: Net, version: Version) -> list[Tensor]:
    """The heads in the `lpips` package, (C,) each; the package itself is not imported."""
    spec = find_spec("lpips")
    if spec is None or spec.origin is None:
        raise WeightsError("LPIPS needs the package lpips, whose heads it uses: pip install lpips")
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
    values: Tensor = _HeadDistance.apply(*rows, head)  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    return values.reshape(x.shape[0], 1, *x.shape[2:])


class _HeadDistance(torch.autograd.Function):
    """Rows (P, C), (P, C) and weights (C,) to (P,): the sum over C of weight x (x/|x| - y/|y|)².

    The gradient is formed along with the value, a part of the rows at a time while they are in the processor's cache:
    written with tensors, each of a dozen operations would read and write all the features of a layer in float32.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, head: Tensor) -> Tensor:  # noqa: ANN401 (torch's own)
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
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, Tensor | None, None]:  # noqa: ANN401 # pyright: ignore[reportIncompatibleMethodOverride] (untyped decorator)
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


def _ssim_terms(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Ding et al.'s texture and structure similarities of each channel, (N, C) each, in float32 at least."""
    x, y = (functional.at_least_float32(z).flatten(2) for z in (x, y.expand_as(x)))
    (var_x, mean_x), (var_y, mean_y) = (torch.var_mean(z, dim=2, correction=0) for z in (x, y))
    covariance = ((x - mean_x[..., None]) * (y - mean_y[..., None])).mean(2)
    constant = 1e-6
    texture = (2 * mean_x * mean_y + constant) / (mean_x.square() + mean_y.square() + constant)
    structure = (2 * covariance + constant) / (var_x + var_y + constant)
    return texture, structure


class _SqueezeNet(Trunk):
    """torchvision's SqueezeNet 1.1, which torchvision also downloads, tapped at numbers of its `features`."""

    def __init__(
        self,
        layers: Sequence[str],
        *,
        weights: WeightsLike,
        precision: Precision,
        device: str | torch.device | None,
        mean: weights_table.Triple = weights_table.IMAGENET_MEAN,
        std: weights_table.Triple = weights_table.IMAGENET_STD,
        input_range: InputRange,
        check: Check,
    ) -> None:
        super().__init__(layers, mean=mean, std=std, input_range=input_range, check=check, minimum=_SQUEEZE_MINIMUM)
        place = choose_device(device)
        self.dtype = resolve_precision(precision, place)
        features = squeezenet1_1(weights=None).features.requires_grad_(requires_grad=False)
        features.load_state_dict(_squeezenet_state(weights))
        # Out of this module's children, so that a parent sees neither its parameters nor its keys.
        self._features = [features.to(place, self.dtype)]
        self._set_normalisation(place)

    @property
    def name(self) -> str:
        """The network, for messages."""
        return "squeezenet1_1"

    def run(self, x: Tensor) -> dict[str, Tensor]:
        """The features of images that are checked, normalised and of the trunk's precision."""
        found: dict[str, Tensor] = {}
        for index, module in enumerate(self._features[0]):
            x = module(x)
            if f"features.{index}" in self.layers:
                found[f"features.{index}"] = x
        return found

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._features[0]._apply(fn, recurse)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage, reportUnknownMemberType]
        return super()._apply(fn, recurse)


# Three poolings by 2, rounded up, after a convolution of stride 2 without padding.
_SQUEEZE_MINIMUM = 17


def _squeezenet_state(weights: WeightsLike) -> dict[str, Tensor]:
    """The `features` of a SqueezeNet state dict: torchvision's, a file's, a mapping's, or random ones for None."""
    from torchvision.models import SqueezeNet1_1_Weights  # pyright: ignore[reportMissingTypeStubs] (untyped upstream)

    if weights is None:
        return squeezenet1_1(weights=None).features.state_dict()
    if isinstance(weights, Mapping):
        state = weights
    elif weights in ("default", "imagenet1k_v1"):
        state = weights_table.read_state(_torchvisions_file(SqueezeNet1_1_Weights.IMAGENET1K_V1.url))
    else:
        state = weights_table.read_state(Path(weights))
    return {key.removeprefix("features."): x for key, x in state.items() if key.startswith("features.")}


def _torchvisions_file(url: str) -> Path:
    """The file that torchvision downloads from `url`, where torchvision keeps it: downloaded if it is not there yet.

    torchvision's own way there prints on standard output.
    """
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    file = folder / PurePath(url).name
    net, _, digits = file.stem.partition("-")
    try:
        if not file.exists():
            folder.mkdir(parents=True, exist_ok=True)
            # A process may be started without a standard error.
            shown = sys.stderr is not None and sys.stderr.isatty()  # pyright: ignore[reportUnnecessaryComparison]
            torch.hub.download_url_to_file(url, str(file), digits, progress=shown)  # pyright: ignore[reportUnknownMemberType] (untyped upstream)
    except (OSError, RuntimeError) as error:
        raise WeightsError(
            f"the weights of {net} are not bundled and could not be downloaded ({error}); those of vgg and alex are; "
            f"or put torchvision's {file.name} into '{folder}', or in Python pass a file's path as weights"
        ) from error
    return file
