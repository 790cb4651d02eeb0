"""The loss of the Gatys notebook, by which pictures painted in different ways are compared."""

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from vggfeat import FeatureExtractor, gram
from vggfeat.pictures.images import resize

STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")


class Judge:
    """The Gatys notebook's loss of an image against a content and a style, written out."""

    def __init__(self, content: Tensor, style: Tensor) -> None:
        self.extract = FeatureExtractor("vgg19", [*STYLE_LAYERS, "relu4_2"], weights="oxford", check="off")
        with torch.no_grad():
            self.content = self.extract(content)["relu4_2"]
            self.style = {name: gram(x) for name, x in self.extract(style).items() if name in STYLE_LAYERS}

    @torch.no_grad()
    def __call__(self, image: Tensor) -> float:
        """The loss of an image (1, 3, H, W) in [0, 1], rounded to 8 bits."""
        features = self.extract((image.clamp(0, 1) * 255).round() / 255)
        total = mse_loss(features["relu4_2"], self.content)
        for name, target in self.style.items():
            total += 1e3 / features[name].shape[1] ** 2 * mse_loss(gram(features[name]), target)
        return float(total)


def of_area(style: Tensor, height: int, width: int) -> Tensor:
    """A style with as many pixels as a picture of `height` x `width`, and no side too short for the network."""
    scale = (height * width / (style.shape[2] * style.shape[3])) ** 0.5
    return resize(style, *(max(16, round(side * scale)) for side in style.shape[2:]))
