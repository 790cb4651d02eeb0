"""LPIPS, DISTS and their kin, of images. `LPIPSLoss`, `DISTSLoss`, ... are the same distances over features."""

import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, Unpack, cast, get_args

from torch import allclose

from vggfeat.errors import InputError, one_of
from vggfeat.features.extractor import FeatureExtractor
from vggfeat.features.shift_tolerant import ShiftTolerant
from vggfeat.features.squeezenet import SqueezeNet
from vggfeat.losses.adists import ADISTSLoss
from vggfeat.losses.base import LayerSumLoss, Reduction, outside_inference_mode
from vggfeat.losses.criterion import Criterion, CriterionOptions, split_options
from vggfeat.losses.dists import DISTS_LAYERS, DISTSLoss
from vggfeat.losses.dmm import DMM_LAYERS, PATCH, DMMLoss
from vggfeat.losses.lpips import CONVENTION_NETS, LPIPS_TAPS, Convention, Heads, LPIPSLoss, Net, Version, read_heads
from vggfeat.networks import weights as weights_table
from vggfeat.networks.weights import IMAGENET_MEAN, IMAGENET_STD, Triple

ShiftTolerantNet = Literal["alex", "vgg"]

# The trunk's keys in a state dict of the `lpips` package.
_TRUNK_KEY = re.compile(r"(?:^|\.)net\.slice\d\.(.+)$")


class LPIPS(Criterion[LPIPSLoss]):
    """Learned perceptual image patch similarity (Zhang et al. 2018): `LPIPS()(prediction, target)`.

    Args:
        net: `vgg` and `alex` use bundled weights; `squeeze` downloads torchvision's. `vgg`, unless the convention
            evaluates with `alex`.
        version: version of the heads. `0.0` also skips the normalisation of the images.
        spatial: return a map (N, 1, H, W) instead of a mean.
        exact: use the operations of the `lpips` package one by one. Slower; the result equals the package's to the bit
            if the convolutions do.
        heads: other heads, from a file or a state dict, see `LPIPSLoss`.
        convention: how published code departs from the `lpips` package. `3dgs` (gaussian-splatting's evaluation):
            images in [0, 1] are fed where [-1, 1] is meant. `torchmetrics`: net `alex`, `signed` range unless given,
            features divided by sqrt(norm² + 1e-8). `pyiqa`: net `alex`. `basicsr`: as `lpips`.
        reduction: `mean` or `sum` over the batch gives a scalar, `none` gives (N,).
        both: let the gradient reach the target, too.
        options: `weights`, `input_range`, `precision`, `check` and `device`, see `TrunkOptions`; `channels`, `chunk`,
            `checkpoint` and `small`, see `InputOptions`. The `lpips` package takes images in `signed` range.

    Raises `InputError` for unknown words, and `WeightsError` for weights or heads that do not fit.

    Example:
        >>> import torch
        >>> from vggfeat import LPIPS
        >>> lpips = LPIPS("alex")
        >>> image = torch.rand(1, 3, 64, 64)
        >>> lpips(image, image).item()
        0.0
        >>> LPIPS("alex", spatial=True)(image, image).shape
        torch.Size([1, 1, 64, 64])
    """

    def __init__(
        self,
        net: Net | None = None,
        *,
        version: Version = "0.1",
        spatial: bool = False,
        exact: bool = False,
        heads: Heads | None = None,
        convention: Convention = "lpips",
        reduction: Reduction = "mean",
        both: bool = False,
        **options: Unpack[CriterionOptions],
    ) -> None:
        loss = LPIPSLoss(
            net or CONVENTION_NETS.get(convention, "vgg"),
            version=version,
            spatial=spatial,
            exact=exact,
            heads=heads,
            convention=convention,
            reduction=reduction,
        )
        if version == "0.0" and convention in ("3dgs", "torchmetrics"):
            raise InputError(f"convention='{convention}' is defined for version='0.1' only")
        net = loss.net
        network, layers = LPIPS_TAPS[net]
        if convention == "torchmetrics":
            options = {"input_range": "signed", **options}
        found, reading = split_options(options)
        mean, std = _normalisation(version, convention)
        trunk = (
            SqueezeNet(layers, mean=mean or IMAGENET_MEAN, std=std or IMAGENET_STD, **found)
            if net == "squeeze"
            else FeatureExtractor(network, layers, channels_last=not exact, mean=mean, std=std, **found)
        )
        super().__init__(trunk, loss, both=both, **reading)

    @classmethod
    def from_lpips(cls, source: Heads, net: Net = "vgg", **options: Any) -> Self:
        """LPIPS with the heads, and if they are there the network's weights, of a state dict of `lpips.LPIPS`.

        `source` is a file or a state dict, also of a model that contains an `lpips.LPIPS`. `options` are those of the
        class; give `version="0.0"` for such heads. Raises `WeightsError` if the weights do not fit `net`.

        Example:
            >>> from vggfeat import LPIPS
            >>> heads = {f"lin{i}.model.1.weight": LPIPS("alex").loss.get_buffer(f"head{i}") for i in range(5)}
            >>> LPIPS.from_lpips(heads, "alex").loss.net
            'alex'
        """
        state = source if isinstance(source, Mapping) else weights_table.read_state(Path(source))
        trunk = {f"features.{match[1]}": x for key, x in state.items() if (match := _TRUNK_KEY.search(key))}
        if trunk:
            options = {"weights": trunk, **options}
        return cls(net, heads=state, **options)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride] (torch passes all by position)
        """Read nothing, but report heads that were trained further: their values would be lost."""
        loss = cast("LPIPSLoss", self.loss)
        saved = {key: x for key, x in state_dict.items() if key.startswith(f"{prefix}lin")}
        if saved and not all(
            allclose(head, loss.get_buffer(f"head{number}").cpu())
            for number, head in enumerate(read_heads(saved, loss.net))
        ):
            rest[-1].append(f"the LPIPS heads under '{prefix}' are not those of this LPIPS: use LPIPS.from_lpips")


def _normalisation(version: Version, convention: Convention) -> tuple[Triple, Triple] | tuple[None, None]:
    """The mean and std for images in [0, 1], if they are not those of the weights."""
    if convention == "3dgs":  # those for images in [-1, 1]
        red, green, blue = (2 * value - 1 for value in IMAGENET_MEAN)
        deviations = (2 * IMAGENET_STD[0], 2 * IMAGENET_STD[1], 2 * IMAGENET_STD[2])
        return (red, green, blue), deviations
    # Version 0.0 does not normalise images in [-1, 1]; for [0, 1] that is a mean and a std of 0.5.
    half = (0.5, 0.5, 0.5)
    return (half, half) if version == "0.0" else (None, None)


class STLPIPS(Criterion[LPIPSLoss]):
    """Shift-tolerant LPIPS (Ghildyal & Liu 2022): `STLPIPS()(prediction, target)`.

    It changes less than LPIPS if one of the images is shifted by a pixel: the network blurs before it downsamples, and
    network and heads were trained that way. Equal images have a distance of 0.

    Args:
        net: `alex` uses bundled weights; `vgg` needs a file.
        spatial: return a map (N, 1, H, W) instead of a mean.
        reduction: `mean` or `sum` over the batch gives a scalar, `none` gives (N,).
        both: let the gradient reach the target, too.
        options: `weights`, `input_range`, `precision`, `check` and `device`, see `TrunkOptions`; `channels`, `chunk`,
            `checkpoint` and `small`, see `InputOptions`. `weights` are those of the network and the heads: `default`,
            or a file or state dict of the package `stlpips_pytorch`, such as its `vgg_shift_tolerant.pth`. That
            package takes images in `signed` range.

    Raises `InputError` for unknown words, and `WeightsError` for weights that are not bundled or do not fit.

    Example:
        >>> import torch
        >>> from vggfeat import LPIPS, STLPIPS
        >>> image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        >>> shifted = image.roll(1, dims=3)
        >>> bool(STLPIPS()(image, shifted) < LPIPS("alex")(image, shifted) / 2)
        True
    """

    def __init__(
        self,
        net: ShiftTolerantNet = "alex",
        *,
        spatial: bool = False,
        reduction: Reduction = "mean",
        both: bool = False,
        **options: Unpack[CriterionOptions],
    ) -> None:
        one_of("net", net, get_args(ShiftTolerantNet))
        network, layers = LPIPS_TAPS[net]
        found, reading = split_options(options)
        settings = cast("dict[str, Any]", found)
        with outside_inference_mode():
            state = weights_table.load_stlpips(network, settings.pop("weights"))
        loss = LPIPSLoss(net, spatial=spatial, heads=state, reduction=reduction)
        features = {key: x for key, x in state.items() if key.startswith("features.")}
        super().__init__(ShiftTolerant(network, layers, features, **settings), loss, both=both, **reading)


class _OfStructureAndTexture(Criterion[Any]):
    """The base class of DISTS and A-DISTS, which read the same features."""

    make_loss: ClassVar[Callable[..., LayerSumLoss]]

    def __init__(
        self,
        *,
        resize: int | None = None,
        reduction: Reduction = "mean",
        both: bool = False,
        **options: Unpack[CriterionOptions],
    ) -> None:
        found, reading = split_options(options)
        trunk = FeatureExtractor("vgg16", DISTS_LAYERS[1:], pooling="l2", **found)
        super().__init__(trunk, type(self).make_loss(reduction=reduction), resize=resize, both=both, **reading)


class DISTS(_OfStructureAndTexture):
    """Deep image structure and texture similarity (Ding et al. 2020): `DISTS()(prediction, target)`.

    Args:
        resize: first reduce images whose shorter side is longer than this. The authors' code uses 256; by default
            images keep their size.
        reduction: `mean` or `sum` over the batch gives a scalar, `none` gives (N,).
        both: let the gradient reach the target, too.
        options: `weights`, `input_range`, `precision`, `check` and `device`, see `TrunkOptions`; `channels`, `chunk`,
            `checkpoint` and `small`, see `InputOptions`.

    Example:
        >>> import torch
        >>> from vggfeat import DISTS
        >>> dists = DISTS(reduction="none")
        >>> image = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        >>> dists(image, image.flip(0)).shape
        torch.Size([2])
    """

    make_loss = DISTSLoss


class ADISTS(_OfStructureAndTexture):
    """Locally adaptive structure and texture similarity, A-DISTS (Ding et al. 2021): `ADISTS()(prediction, target)`.

    The target is the reference picture, which decides where texture is: exchanging the two gives another value.

    Args:
        resize: first reduce images whose shorter side is longer than this. By default images keep their size.
        reduction: `mean` or `sum` over the batch gives a scalar, `none` gives (N,).
        both: let the gradient reach the target, too.
        options: `weights`, `input_range`, `precision`, `check` and `device`, see `TrunkOptions`; `channels`, `chunk`,
            `checkpoint` and `small`, see `InputOptions`.

    Example:
        >>> import torch
        >>> from vggfeat import ADISTS
        >>> image = torch.rand(1, 3, 32, 32)
        >>> ADISTS()(image, image).item()
        0.0
    """

    make_loss = ADISTSLoss


class DMM(Criterion[DMMLoss]):
    """DMM, debiased mapping (Chen et al. 2023), for restored or slightly misaligned images: `DMM()(x, y)`.

    A side must have at least 121 pixels. Two images of 256x256 pixels take over 100,000 decompositions of 16x16
    matrices. There is no second derivative. See `DMMLoss`.

    Args:
        resize: first reduce images whose shorter side is longer than this. The authors' code reduces a side of m
            pixels, if it is over 128, to 32 floor(m / 48), at least 128. By default images keep their size.
        reduction: `mean` or `sum` over the batch gives a scalar, `none` gives (N,).
        both: let the gradient reach the target, too.
        options: `weights`, `input_range`, `precision`, `check` and `device`, see `TrunkOptions`; `channels`, `chunk`,
            `checkpoint` and `small`, see `InputOptions`.

    Example:
        >>> import torch
        >>> from vggfeat import DMM
        >>> image = torch.rand(1, 3, 128, 128)
        >>> DMM()(image, image).item()
        0.0
    """

    def __init__(
        self,
        *,
        resize: int | None = None,
        reduction: Reduction = "mean",
        both: bool = False,
        **options: Unpack[CriterionOptions],
    ) -> None:
        found, reading = split_options(options)
        # The singular vectors of patches of low rank are not unique: only features equal to the authors' to the bit
        # give their values. Their network reads images without normalisation.
        plain: dict[str, Any] = {"channels_last": False, "mean": (0.0,) * 3, "std": (1.0,) * 3}
        trunk = FeatureExtractor("vgg16", DMM_LAYERS, pooling="l2", positions=PATCH, **plain, **found)
        super().__init__(trunk, DMMLoss(reduction=reduction), resize=resize, both=both, **reading)


METRIC_CRITERIA: "Mapping[str, Callable[..., Criterion[Any]]]" = {
    **{f"lpips-{net}": partial(LPIPS, net) for net in get_args(Net)},
    "stlpips-alex": STLPIPS,
    "dists": DISTS,
    "a-dists": ADISTS,
    "dmm": DMM,
}
"""{name of a metric: makes its criterion}, of the metrics that are sums over layers."""
