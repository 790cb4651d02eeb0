"""More from the loop of a style transfer: textures, which have no content, and inversions, which have no style."""

from collections.abc import Mapping
from dataclasses import replace
from os import PathLike

import torch
from torch import Tensor

from vggfeat.errors import InputError, RecipeError
from vggfeat.features.device import Precision, choose_device
from vggfeat.features.extractor import FeatureExtractor
from vggfeat.pictures import images, sources
from vggfeat.pictures.sources import Source
from vggfeat.transfer.named import recipe as named
from vggfeat.transfer.recipe import Recipe, parse_layers
from vggfeat.transfer.run import Stylization, stylize

# A style that is larger than the texture is seen at so many times its sides at most: more costs time and memory.
_MOST_LARGER = 2.0
# Long side at which the features of an inversion are measured.
_LEVEL_SIZE = 256


def texture(  # noqa: D417 (the rest stands in `stylize`)
    style: Source,
    recipe: Recipe | str = "texture",
    *,
    size: tuple[int, int] = (512, 512),
    seamless: bool = False,
    seconds: float | None = None,
    memory_limit: int | str | None = None,
    resume: str | PathLike[str] | None = None,
    device: str = "auto",
    precision: Precision = "auto",
) -> Stylization:
    """More of the texture of `style`: its statistics alone, from noise.

    Args:
        style: the picture whose manner is taken.
        recipe: a `Recipe`, or the name of one. Its content layers count nothing. Its `style_scale` is relative to the
            pixels of `style`: 1 keeps the strokes as large as they are there. A style of more than twice the
            texture's sides is shrunk to that first.
        size: (width, height) in pixels.
        seamless: whether the left edge meets the right and the top the bottom, so that copies tile a plane.
    The rest is as in `stylize`, and so is what is raised.
    """
    asked = named(recipe) if isinstance(recipe, str) else recipe
    width, height = size
    if min(size) < 1:
        raise InputError(f"the texture is {width}x{height}: both sides are at least 1")
    if not asked.style_weight or not any(asked.style_layers.values()):
        raise RecipeError("a texture needs a style layer of some weight")
    seen = sources.read(style, "style")
    larger = (seen.shape[2] * seen.shape[3] / (width * height)) ** 0.5
    chosen = replace(
        asked,
        content_layers={},
        color="style",
        style_scale=min(20.0, max(0.05, asked.style_scale * min(_MOST_LARGER, larger))),
        start="noise" if asked.start == "content" else asked.start,
        edges="wrap" if seamless else asked.edges,
    )
    run = stylize(
        torch.full((1, 3, height, width), 0.5),  # of the content only the size matters
        seen,
        chosen,
        size=max(size),
        seconds=seconds,
        memory_limit=memory_limit,
        resume=resume,
        device=device,
        precision=precision,
    )
    run.asked = asked
    return run


def invert(  # noqa: D417 (the rest stands in `stylize`)
    image: Source,
    layer: str | None = None,
    recipe: Recipe | str = "invert",
    *,
    size: int | None = None,
    seconds: float | None = None,
    memory_limit: int | str | None = None,
    resume: str | PathLike[str] | None = None,
    device: str = "auto",
    precision: Precision = "auto",
) -> Stylization:
    """A picture that a layer takes for `image`: what the layer still knows, painted from noise.

    What is minimised is the mean square difference of the layer's features, over that between `image` and plain grey
    at 256 pixels, so that a recipe's `tv_weight` means about the same at every layer.

    Args:
        image: the picture.
        layer: a layer of the recipe's network, or several as `parse_layers` reads them; None takes the recipe's.
        recipe: a `Recipe`, or the name of one. Its style layers count nothing.
        size: pixels of the result's long side, the recipe's if None; a smaller picture is not enlarged.
    The rest is as in `stylize`, and so is what is raised.
    """
    asked = named(recipe) if isinstance(recipe, str) else recipe
    layers = asked.content_layers if layer is None else parse_layers(asked.network, layer)
    if not layers or not any(layers.values()):
        raise RecipeError("an inversion needs a layer of some weight")
    seen = sources.read(image, "image")
    place = choose_device(device)
    chosen = replace(
        asked,
        content_layers=_levelled(layers, asked, seen.to(place)),
        style_layers={},
        color="style",
        start="noise" if asked.start == "content" else asked.start,
    )
    run = stylize(
        seen,
        seen,
        chosen,
        size=chosen.size if size is None else size,
        seconds=seconds,
        memory_limit=memory_limit,
        resume=resume,
        device=device,
        precision=precision,
    )
    run.asked = replace(asked, content_layers=layers)
    return run


def _levelled(layers: Mapping[str, float], recipe: Recipe, image: Tensor) -> dict[str, float]:
    """The weights over the mean square difference that each layer sees between `image` and plain grey."""
    extract = FeatureExtractor(
        recipe.network, layers, weights=recipe.weights, pooling=recipe.pooling, check="off", device=image.device
    )
    least = extract.minimum_size
    height, width = images.fit(image.shape[2], image.shape[3], _LEVEL_SIZE)
    small = images.resize(image, max(least, height), max(least, width))
    with torch.no_grad():
        ours, plain = extract(small), extract(torch.full_like(small, 0.5))
    levels = {name: float((ours[name] - plain[name]).square().mean()) for name in layers}
    # A picture that is grey itself has nothing to be measured by.
    return {name: weight / (levels[name] or 1.0) for name, weight in layers.items()}
