"""Perceptual and style losses of images, and the losses of published papers as recipes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self, Unpack

from torch import Tensor

from vggfeat.errors import InputError, WeightsError, one_of
from vggfeat.features.extractor import FeatureExtractor
from vggfeat.losses.base import Distance, FeatureLoss, Layers, Reduction, layer_weights
from vggfeat.losses.content import ContentLoss
from vggfeat.losses.criterion import Criterion, OwnNetworkOptions, Target, TrunkOptions, split_options
from vggfeat.losses.formulas import GramDivisor
from vggfeat.losses.gram import GramLoss
from vggfeat.losses.lpips import LPIPSLoss
from vggfeat.losses.variation import TotalVariationLoss
from vggfeat.losses.weighted_sum import WeightedSum
from vggfeat.networks import arch
from vggfeat.networks import weights as weights_table
from vggfeat.networks.weights import WeightsLike

# Style layers of Johnson et al. (2016) for VGG-16; piq and BasicSR use the same.
_STYLE_LAYERS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")


@dataclass(frozen=True, kw_only=True)
class LossRecipe:
    """The terms of a published loss. A term with weight 0 or without layers is not computed.

    `content` and `style` are {layer: weight}. `distance` compares content (see `ContentLoss`). Gram matrices are
    divided according to `divide_by` and compared by their mean square. `pixel` is the weight of the mean absolute
    difference of the images in [0, 1], `tv` of the prediction's total variation (squared differences), `lpips` of
    LPIPS with VGG. `adversarial` is the weight that the paper gives to the discriminator's term, which the caller adds.
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
    # Ledig et al. (2017): features are multiplied by 1/12.75 before the mean square.
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
    # Wang et al. (2018), "pix2pixHD": 10 times the weighted sum of five layers.
    "pix2pixhd": LossRecipe(
        network="vgg19",
        content={"relu1_1": 10 / 32, "relu2_1": 10 / 16, "relu3_1": 10 / 8, "relu4_1": 10 / 4, "relu5_1": 10.0},
        distance="l1",
        adversarial=1.0,
    ),
    # Esser et al. (2021). The weight of the adversarial term is adaptive.
    "vqgan": LossRecipe(lpips=1.0, pixel=1.0),
}


class PerceptualLoss(Criterion[WeightedSum]):
    """Perceptual loss of images: `PerceptualLoss()(prediction, target)`. All terms share one pass.

    Feature distances are large and grow with depth: start with a weight near 0.01 beside a pixel loss. `terms()`
    returns the value of each term.

    Args:
        content: {layer: weight}, or layers of weight 1, compared by `distance` (see `ContentLoss`). Layers are names,
            indices or globs, as for `FeatureExtractor`.
        style: the same for Gram matrices, divided according to `divide_by` (see `GramLoss`).
        network: a name of `arch.NETWORKS`.
        distance: distance between the features of content layers.
        divide_by: convention for Gram matrices.
        pixel: weight of the mean absolute difference of the images in [0, 1].
        tv: weight of the prediction's total variation.
        lpips: weight of LPIPS, which needs the network vgg16.
        reduction: `mean` or `sum` over the batch gives a scalar, `none` gives (N,).
        both: let the gradient reach the target, too.
        options: `weights`, `input_range`, `precision`, `check` and `device`, see `TrunkOptions`; `channels`, `chunk`,
            `checkpoint` and `small`, see `InputOptions`; `mean`, `std` and `input_order`, see `weights.Preprocessing`.

    Raises `InputError` if there is no term, `LayerError` for unknown layers, `WeightsError` for unavailable weights.

    Example:
        >>> import torch
        >>> from vggfeat import PerceptualLoss
        >>> criterion = PerceptualLoss({"relu1_2": 1.0, "relu2_2": 0.5}, pixel=1.0)
        >>> prediction = torch.rand(2, 3, 32, 32, requires_grad=True)
        >>> loss, terms = criterion.terms(prediction, torch.rand(2, 3, 32, 32))
        >>> loss.backward()
        >>> prediction.grad.shape, list(terms)
        (torch.Size([2, 3, 32, 32]), ['content', 'pixel'])
    """

    def __init__(
        self,
        content: Layers = ("relu3_3",),
        style: Layers = (),
        *,
        network: str = "vgg16",
        distance: Distance = "l2",
        divide_by: GramDivisor = "chw",
        pixel: float = 0.0,
        tv: float = 0.0,
        lpips: float = 0.0,
        reduction: Reduction = "mean",
        both: bool = False,
        **options: Unpack[OwnNetworkOptions],
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
        trunk, reading = split_options(options)
        super().__init__(_extractor(network, loss.layers, trunk), loss, both=both, **reading)

    @classmethod
    def from_recipe(cls, name: str, *, weights: WeightsLike = None, **options: Any) -> Self:
        """The loss of a paper: johnson, srgan, esrgan, realesrgan, pix2pixhd or vqgan, see `LOSS_RECIPES`.

        `weights` replaces the published weights; `options` replace other values of the recipe. Raises `InputError` for
        an unknown name, and `WeightsError` if the published weights are unavailable: others are never substituted.
        """
        recipe = LOSS_RECIPES[one_of("recipe", name, LOSS_RECIPES)]
        values: dict[str, Any] = {item.name: getattr(recipe, item.name) for item in fields(recipe)}
        del values["adversarial"]
        values |= options
        values["weights"] = weights or recipe.weights
        try:
            return cls(**values)
        except WeightsError as error:
            bundled = weights_table.find_entry(recipe.network)
            if weights is not None or not bundled.bundled:
                raise
            raise WeightsError(
                f"the recipe '{name}' was published with {recipe.network} {recipe.weights}: {error}; the bundled "
                f"weights='{bundled.name}' of {recipe.network} give other values"
            ) from error

    def forward(self, prediction: Tensor, target: Tensor | Target, mask: Tensor | None = None) -> Tensor:
        """The weighted sum of the terms: a scalar or (N,). The arguments are those of `Criterion.forward`."""
        return self.terms(prediction, target, mask)[0]

    def terms(
        self, prediction: Tensor, target: Tensor | Target, mask: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and {term: weighted value}, each a scalar or (N,)."""
        return self._compare(prediction, target, mask)


class StyleLoss(Criterion[GramLoss]):
    """Gram style loss of images (Gatys et al. 2016): `StyleLoss()(prediction, style_image)`. Sizes may differ.

    Args:
        layers: {layer: weight}, or layers of weight 1: names, indices or globs.
        network: a name of `arch.NETWORKS`.
        divide_by: convention for Gram matrices, see `gram`.
        reduction: `mean` or `sum` over the batch gives a scalar, `none` gives (N,).
        both: let the gradient reach the style image, too.
        options: `weights`, `input_range`, `precision`, `check` and `device`, see `TrunkOptions`; `channels`, `chunk`,
            `checkpoint` and `small`, see `InputOptions`; `mean`, `std` and `input_order`, see `weights.Preprocessing`.

    Example:
        >>> import torch
        >>> from vggfeat import StyleLoss
        >>> criterion = StyleLoss(["relu1_2", "relu2_2"])
        >>> style = criterion.target(torch.rand(1, 3, 48, 40))
        >>> criterion(torch.rand(2, 3, 32, 32), style).shape
        torch.Size([])
    """

    def __init__(
        self,
        layers: Layers = _STYLE_LAYERS,
        *,
        network: str = "vgg16",
        divide_by: GramDivisor = "hw",
        reduction: Reduction = "mean",
        both: bool = False,
        **options: Unpack[OwnNetworkOptions],
    ) -> None:
        loss = GramLoss(_named(network, layers), divide_by=divide_by, reduction=reduction)
        trunk, reading = split_options(options)
        super().__init__(_extractor(network, loss.layers, trunk), loss, both=both, **reading)


def _extractor(network: str, layers: Iterable[str], options: TrunkOptions) -> FeatureExtractor:
    return FeatureExtractor(network, [name for name in layers if name != "image"], **options)


def _named(network: str, layers: Layers) -> dict[str, float]:
    """{layer name: weight} with globs and indices resolved. Raises `InputError` for two weights of one layer."""
    named: dict[str, float] = {}
    patterns: dict[str, str] = {}
    for pattern, weight in layer_weights(layers).items():
        for layer in arch.find_layers(network, pattern):
            other = patterns.setdefault(layer.name, pattern)
            if other != pattern and isinstance(layers, Mapping):
                raise InputError(f"'{other}' and '{pattern}' both give {layer.name} a weight: name each layer once")
            named[layer.name] = weight
    return named
