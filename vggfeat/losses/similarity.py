"""LPIPS and DISTS of images. `LPIPSLoss` and `DISTSLoss` are the same distances over features."""

from typing import Unpack

from vggfeat.features.extractor import FeatureExtractor
from vggfeat.features.squeezenet import SqueezeNet
from vggfeat.losses.base import Reduction
from vggfeat.losses.criterion import Criterion, TrunkOptions, with_defaults
from vggfeat.losses.dists import DISTS_LAYERS, DISTSLoss
from vggfeat.losses.lpips import LPIPS_TAPS, LPIPSLoss, Net, Version
from vggfeat.networks.weights import IMAGENET_MEAN, IMAGENET_STD


class LPIPS(Criterion[LPIPSLoss]):
    """Learned perceptual image patch similarity (Zhang et al. 2018): `LPIPS()(prediction, target)`.

    Args:
        net: `vgg` and `alex` use bundled weights; `squeeze` downloads torchvision's.
        version: version of the heads. `0.0` also skips the normalisation of the images.
        spatial: return a map (N, 1, H, W) instead of a mean.
        exact: use the operations of the `lpips` package one by one. Slower; the result equals the package's to the bit
            if the convolutions do.
        reduction: `mean` or `sum` over the batch gives a scalar, `none` gives (N,).
        both: let the gradient reach the target, too.
        options: `weights`, `input_range`, `precision`, `check` and `device`, see `TrunkOptions`. The `lpips` package
            takes images in `signed` range.

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
        net: Net = "vgg",
        *,
        version: Version = "0.1",
        spatial: bool = False,
        exact: bool = False,
        reduction: Reduction = "mean",
        both: bool = False,
        **options: Unpack[TrunkOptions],
    ) -> None:
        loss = LPIPSLoss(net, version=version, spatial=spatial, exact=exact, reduction=reduction)
        network, layers = LPIPS_TAPS[net]
        options = with_defaults(options)
        half = (0.5, 0.5, 0.5)
        # Version 0.0 does not normalise images in [-1, 1]; for [0, 1] that is a mean and a std of 0.5.
        mean, std = (half, half) if version == "0.0" else (None, None)
        trunk = (
            SqueezeNet(layers, mean=mean or IMAGENET_MEAN, std=std or IMAGENET_STD, **options)
            if net == "squeeze"
            else FeatureExtractor(network, layers, channels_last=not exact, mean=mean, std=std, **options)
        )
        super().__init__(trunk, loss, both=both)


class DISTS(Criterion[DISTSLoss]):
    """Deep image structure and texture similarity (Ding et al. 2020): `DISTS()(prediction, target)`.

    Args:
        resize: first reduce images whose shorter side is longer than this. The authors' code uses 256; by default
            images keep their size.
        reduction: `mean` or `sum` over the batch gives a scalar, `none` gives (N,).
        both: let the gradient reach the target, too.
        options: `weights`, `input_range`, `precision`, `check` and `device`, see `TrunkOptions`.

    Example:
        >>> import torch
        >>> from vggfeat import DISTS
        >>> dists = DISTS(reduction="none")
        >>> image = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        >>> dists(image, image.flip(0)).shape
        torch.Size([2])
    """

    def __init__(
        self,
        *,
        resize: int | None = None,
        reduction: Reduction = "mean",
        both: bool = False,
        **options: Unpack[TrunkOptions],
    ) -> None:
        trunk = FeatureExtractor("vgg16", DISTS_LAYERS[1:], pooling="l2", **with_defaults(options))
        super().__init__(trunk, DISTSLoss(reduction=reduction), resize=resize, both=both)
