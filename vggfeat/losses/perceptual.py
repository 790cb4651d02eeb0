"""Perceptual and style loss of two batches of images, and the recipes that papers made known."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from os import PathLike
from typing import Any, Self

import torch
from torch import Tensor

from vggfeat.errors import InputError, WeightsError, near
from vggfeat.features import tensors
from vggfeat.features.device import Precision
from vggfeat.features.extractor import FeatureExtractor
from vggfeat.features.trunk import Check
from vggfeat.losses.base import Distance, FeatureLoss, Layers, Reduction
from vggfeat.losses.content import ContentLoss
from vggfeat.losses.criterion import Criterion, Target, scale_gradient
from vggfeat.losses.functional import GramDivisor
from vggfeat.losses.gram import GramLoss
from vggfeat.losses.lpips import LPIPSLoss
from vggfeat.losses.variation import TotalVariationLoss
from vggfeat.losses.weighted_sum import WeightedSum
from vggfeat.networks import arch
from vggfeat.networks import weights as weights_table
from vggfeat.pictures.ranges import InputRange

# The layers that piq and BasicSR take for style, and Johnson et al. (2016) for VGG-16.
_STYLE_LAYERS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")


@dataclass(frozen=True, kw_only=True)
class LossRecipe:
    """The terms of a published loss. A term of weight 0, or without layers, is not computed.

    `content` and `style` weigh layers, `distance` compares content, Gram matrices are divided as `divide_by` says and
    compared by their mean square, `pixel` weighs the mean absolute difference of the images in [0, 1], `tv` their
    total variation (mean of squares), `lpips` weighs LPIPS-vgg. `adversarial` is the weight that the paper gives to the
    discriminator's term, which is the caller's to add.
    """

    network: str = "vgg16"
    weights: str = "imagenet1k_v1"
    content: Mapping[str, float] = field(default_factory=dict[str, float])
    distance: Distance = "l2"
    style: Mapping[str, float] = field(default_factory=dict[str, float])
    divide_by: GramDivisor = "chw"
    pixel: float = 0.0
    tv: float = 0.0
    lpips: float = 0.0
    adversarial: float = 0.0


LOSS_RECIPES: Mapping[str, LossRecipe] = {
    # Johnson et al. (2016).
    "johnson": LossRecipe(content={"relu3_3": 1.0}, style=dict.fromkeys(_STYLE_LAYERS, 5.0), tv=1e-6),
    # Ledig et al. (2017): features times 1/12.75 before the mean square.
    "srgan": LossRecipe(network="vgg19", content={"conv5_4": 12.75**-2}, adversarial=1e-3),
    # Wang et al. (2018).
    "esrgan": LossRecipe(network="vgg19", content={"conv5_4": 1.0}, distance="l1", pixel=1e-2, adversarial=5e-3),
    # Wang et al. (2021).
    "realesrgan": LossRecipe(
        network="vgg19",
        content={"conv1_2": 0.1, "conv2_2": 0.1, "conv3_4": 1.0, "conv4_4": 1.0, "conv5_4": 1.0},
        distance="l1",
        pixel=1.0,
        adversarial=0.1,
    ),
    # Wang et al. (2018), "pix2pixHD": 10 times the sum of these.
    "pix2pixhd": LossRecipe(
        network="vgg19",
        content={"relu1_1": 10 / 32, "relu2_1": 10 / 16, "relu3_1": 10 / 8, "relu4_1": 10 / 4, "relu5_1": 10.0},
        distance="l1",
        adversarial=1.0,
    ),
    # Esser et al. (2021): the weight of the adversarial term adapts.
    "vqgan": LossRecipe(lpips=1.0, pixel=1.0),
}


class PerceptualLoss(Criterion[WeightedSum]):
    """Perceptual loss of images: `PerceptualLoss()(prediction, target)`, a scalar; all its terms share one pass.

    Args:
        content: {layer: weight}, or layers of weight 1, whose features are compared by `distance` (as `ContentLoss`).
        style: layers whose Gram matrices are compared, divided as `divide_by` says (as `GramLoss`).
        network, weights, input_range, precision, check, device: as for `FeatureExtractor`.
        pixel: weight of the mean absolute difference of the images in [0, 1].
        tv: weight of the prediction's total variation.
        lpips: weight of LPIPS, whose network must be vgg16.
        reduction: `mean` over the batch, or `none`, (N,).
        both: let the gradient reach the target too.

    Feature distances are not small, and grow with depth: begin with a weight near 0.01 of the term beside a pixel loss.
    `terms()` gives the value of each.
    """

    def __init__(
        self,
        content: Layers = ("relu3_3",),
        style: Layers = (),
        *,
        network: str = "vgg16",
        weights: str | PathLike[str] | Mapping[str, Tensor] | None = "default",
        distance: Distance = "l2",
        divide_by: GramDivisor = "chw",
        pixel: float = 0.0,
        tv: float = 0.0,
        lpips: float = 0.0,
        reduction: Reduction = "mean",
        both: bool = False,
        input_range: InputRange = "unit",
        precision: Precision = "float32",
        check: Check = "warn",
        device: str | torch.device | None = None,
    ) -> None:
        terms: dict[str, tuple[float, FeatureLoss]] = {}
        if content:
            terms["content"] = 1.0, ContentLoss(_named(network, content), distance=distance, reduction=reduction)
        if style:
            terms["style"] = 1.0, GramLoss(_named(network, style), divide_by=divide_by, reduction=reduction)
        if lpips:
            if network != "vgg16":
                raise InputError(f"LPIPS is defined on vgg16, not on {network}")
            terms["lpips"] = lpips, LPIPSLoss("vgg", reduction=reduction)
        if not terms:
            raise InputError("a perceptual loss needs a content layer, a style layer or lpips")
        if pixel:
            terms["pixel"] = pixel, ContentLoss(["image"], distance="l1", reduction=reduction)
        if tv:
            terms["tv"] = tv, TotalVariationLoss(reduction=reduction)
        loss = WeightedSum(**terms)
        extract = FeatureExtractor(
            network,
            [name for name in loss.layers if name != "image"],
            weights=weights,
            input_range=input_range,
            precision=precision,
            check=check,
            device=device,
        )
        super().__init__(extract, loss.to(device), both=both)

    @classmethod
    def from_recipe(cls, name: str, *, weights: str | PathLike[str] | None = None, **options: Any) -> Self:  # noqa: ANN401 (those of the class)
        """The loss of a paper: johnson, srgan, esrgan, realesrgan, pix2pixhd or vqgan, as `LOSS_RECIPES` states it.

        `weights` stands in for the published ones where it is given; other options replace the recipe's. Raises
        `InputError` for an unknown name, and `WeightsError` where the published weights cannot be had: nothing else is
        taken instead.
        """
        if name not in LOSS_RECIPES:
            raise InputError(f"unknown recipe '{name}': {near(name, LOSS_RECIPES)}")
        recipe = LOSS_RECIPES[name]
        terms: dict[str, Any] = {item.name: getattr(recipe, item.name) for item in fields(recipe)}
        del terms["adversarial"]
        terms |= options
        terms["weights"] = weights or recipe.weights
        try:
            return cls(**terms)
        except WeightsError as error:
            bundled = weights_table.find(recipe.network)
            if weights is not None or not bundled.bundled:
                raise
            raise WeightsError(
                f"the recipe '{name}' was published with {recipe.network} {recipe.weights}: {error}; "
                f"weights='{bundled.name}' of {recipe.network} are bundled, and give other values"
            ) from error

    def forward(self, prediction: Tensor, target: Tensor | Target) -> Tensor:
        """The weighted sum of the terms, a scalar; `target` is a batch of images or what `target()` returned."""
        return self.terms(prediction, target)[0]

    def terms(self, prediction: Tensor, target: Tensor | Target) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and the weighted value of each of its terms."""
        with tensors.without_autocast(prediction.device.type):
            scale = self._gradient_scale(prediction)
            total, terms = self.loss(*self.compared(scale_gradient(prediction, 1 / scale), target))
            return scale_gradient(total, scale), {name: scale_gradient(x, scale) for name, x in terms.items()}


class StyleLoss(Criterion[GramLoss]):
    """The Gram style loss of images, of any two sizes: `StyleLoss()(prediction, style_image)`.

    `layers`, `divide_by` and `reduction` are those of `GramLoss`, the other arguments those of `PerceptualLoss`.
    """

    def __init__(
        self,
        layers: Mapping[str, float] | Sequence[str] = _STYLE_LAYERS,
        *,
        network: str = "vgg16",
        weights: str | PathLike[str] | Mapping[str, Tensor] | None = "default",
        divide_by: GramDivisor = "hw",
        reduction: Reduction = "mean",
        both: bool = False,
        input_range: InputRange = "unit",
        precision: Precision = "float32",
        check: Check = "warn",
        device: str | torch.device | None = None,
    ) -> None:
        named = _named(network, layers)
        extract = FeatureExtractor(
            network,
            list(named),
            weights=weights,
            input_range=input_range,
            precision=precision,
            check=check,
            device=device,
        )
        super().__init__(extract, GramLoss(named, divide_by=divide_by, reduction=reduction), both=both)


def _named(network: str, layers: Layers) -> dict[str, float]:
    """Layers by their names with their weights: globs and indices are looked up."""
    weighted = (
        layers if isinstance(layers, Mapping) else dict.fromkeys([layers] if isinstance(layers, str) else layers, 1.0)
    )
    return {layer.name: weight for pattern, weight in weighted.items() for layer in arch.find(network, pattern)}
