"""The training objective of instant styles: the content of photographs and the Gram matrices of styles."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from vggfeat.features.extractor import FeatureExtractor
from vggfeat.losses.content import ContentLoss
from vggfeat.losses.formulas import total_variation
from vggfeat.losses.gram import GramLoss
from vggfeat.transfer.styles.recipe import StyleRecipe

# Distances are divided by a mean square, but by at least this: the mean square of a black picture is near 0.
_LEAST = 1e-6

Terms = Mapping[str, Tensor]


class StyleObjective:
    """The objective of a recipe for given style pictures.

    Args:
        recipe: the layers and weights of the losses.
        pictures: the styles, each (1, 3, H, W) in [0, 1].
        device: where to compute.
    """

    def __init__(self, recipe: StyleRecipe, pictures: Sequence[Tensor], device: torch.device) -> None:
        self.recipe = recipe
        self._content_of = FeatureExtractor(recipe.network, list(recipe.content_layers), check="off", device=device)
        self._extract = FeatureExtractor(recipe.network, list(recipe.layers), check="off", device=device)
        self._styles: list[tuple[GramLoss, Mapping[str, Tensor]]] = []
        for picture in pictures:
            with torch.no_grad():
                features = self._extract(picture.to(device))
            targets = GramLoss(list(recipe.style_layers)).target(features)
            weights = {
                name: weight / max(float(targets[name].square().mean()), _LEAST)
                for name, weight in recipe.style_layers.items()
            }
            self._styles.append((GramLoss(weights, reduction="none"), targets))

    def content(self, photographs: Tensor) -> Mapping[str, Tensor]:
        """The features of photographs (N, 3, H, W) with which their paintings are compared."""
        with torch.no_grad():
            return self._content_of(photographs)

    def __call__(self, paintings: Tensor, content: Mapping[str, Tensor], styles: Sequence[int]) -> Terms:
        """The weighted terms of paintings (N, 3, H, W), each (N,).

        `content` holds the features of their photographs, `styles` the index of each painting's style.
        """
        recipe, features = self.recipe, self._extract(paintings)
        weights = {
            name: weight / max(float(content[name].square().mean()), _LEAST)
            for name, weight in recipe.content_layers.items()
        }
        painted: list[Tensor] = []
        for row, number in enumerate(styles):
            loss, target = self._styles[number]
            painted.append(loss({name: x[row : row + 1] for name, x in features.items()}, target))
        return {
            "content": recipe.content_weight * ContentLoss(weights, reduction="none")(features, content),
            "style": recipe.style_weight * torch.cat(painted),
            "variation": recipe.tv_weight * total_variation(paintings),
        }
