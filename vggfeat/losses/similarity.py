"""LPIPS and DISTS: learned perceptual distances, as losses over features and as criteria of two images.

`LPIPSLoss` and `DISTSLoss` read features, and can share a pass with other losses; `LPIPS` and `DISTS` bring the
network that their definition names.
"""

from typing import Any

import torch

from vggfeat.features.device import Precision
from vggfeat.features.extractor import FeatureExtractor
from vggfeat.features.squeezenet import SqueezeNet
from vggfeat.features.trunk import Check, Trunk
from vggfeat.losses.base import Reduction
from vggfeat.losses.criterion import Criterion
from vggfeat.losses.dists import DISTS_LAYERS, DISTSLoss
from vggfeat.losses.lpips import LPIPS_TAPS, LPIPSLoss, Net, Version
from vggfeat.networks.weights import WeightsLike
from vggfeat.pictures.ranges import InputRange


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
            trunk = SqueezeNet(layers, **plain, **options)
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
