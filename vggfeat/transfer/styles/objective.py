"""What training lowers: the distance of paintings to the content of photographs and to the statistics of styles."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from vggfeat.features.extractor import FeatureExtractor
from vggfeat.losses.content import ContentLoss
from vggfeat.losses.formulas import total_variation
from vggfeat.losses.gram import GramLoss
from vggfeat.transfer.styles.recipe import StyleRecipe

# The least mean square that a distance is divided by. That of a black picture is near 0.
_LEAST = 1e-6

Terms = Mapping[str, Tensor]


class StyleObjective:
    """The objective of a recipe for given style pictures.

    Args:
        recipe: of the training.
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
        """The features of photographs (N, 3, H, W), to compare their paintings with."""
        with torch.no_grad():
            return self._content_of(photographs)

    def __call__(self, paintings: Tensor, content: Mapping[str, Tensor], styles: Sequence[int]) -> Terms:
        """The weighted terms of paintings (N, 3, H, W), each (N,).

        `content` is that of their photographs, in order; `styles` are the numbers of their styles.
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
