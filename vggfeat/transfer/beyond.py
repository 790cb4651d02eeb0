"""Textures, which have a style but no content, and inversions, which have a content but no style."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Unpack

import torch
from torch import Tensor

from vggfeat.errors import RecipeError, check_number
from vggfeat.features.device import choose_device
from vggfeat.pictures import images, sources
from vggfeat.pictures.sources import Source
from vggfeat.transfer.evaluator import extractor
from vggfeat.transfer.inputs import Inputs, Style
from vggfeat.transfer.named import recipe as named
from vggfeat.transfer.recipe import Recipe, parse_layers
from vggfeat.transfer.run import SharedOptions, Stylization

# A style that is larger than the texture is used at up to this many times the texture's sides: more costs time and
# memory.
_MOST_LARGER = 2.0
# Long side at which the layers of an inversion are normalised.
_NORMALISING_SIZE = 256


def texture(
    style: Source,
    recipe: Recipe | str = "texture",
    *,
    size: tuple[int, int] = (512, 512),
    seamless: bool = False,
    **options: Unpack[SharedOptions],
) -> Stylization:
    """Synthesise more of the texture of `style`: noise is optimised until it has the style's statistics.

    The method is that of Gatys, Ecker & Bethge (2015).

    Args:
        style: the picture whose texture is taken: a file, or a float RGB tensor (1, 3, H, W) in [0, 1]. Transparent
            parts do not count; of a grey picture the texture is grey.
        recipe: a `Recipe`, or the name of one. Its content layers are ignored. Its `style_scale` is relative to the
            pixels of `style`: 1 keeps the strokes as large as they are there. A style of more than twice the
            texture's sides is shrunk to that first.
        size: (width, height) in pixels.
        seamless: whether opposite edges fit together, so that copies tile a plane.
        options: `seconds`, `memory_limit`, `resume`, `device` and `precision`, as in `stylize`.

    Raises what `stylize` raises.

    Example:
        >>> import torch
        >>> from vggfeat import recipe, texture
        >>> small = recipe("texture", network="vgg16", style_layers={"relu1_1": 1}, steps=1)
        >>> texture(torch.rand(1, 3, 32, 32), small, size=(48, 32), seamless=True).result().shape
        torch.Size([1, 3, 32, 48])
    """
    requested = named(recipe) if isinstance(recipe, str) else recipe
    width, height = size
    for name, side in (("width", width), ("height", height)):
        check_number(name, side, 1)
    if not requested.style_weight or not any(requested.style_layers.values()):
        raise RecipeError("a texture needs a style layer with a weight above 0")
    chosen_style = Style.read(style, 1.0)
    larger = (chosen_style.picture.shape[2] * chosen_style.picture.shape[3] / (width * height)) ** 0.5
    chosen = replace(
        requested,
        content_layers={},
        color="style",
        style_scale=min(20.0, max(0.05, requested.style_scale * min(_MOST_LARGER, larger))),
        start=_start(requested),
        edges="wrap" if seamless else requested.edges,
    )
    # Only the size of the content matters.
    inputs = Inputs(torch.full((1, 3, height, width), 0.5), (chosen_style,))
    return Stylization(inputs, chosen, size=max(size), requested=requested, **options)


def invert(
    image: Source,
    layer: str | None = None,
    recipe: Recipe | str = "invert",
    *,
    size: int | None = None,
    **options: Unpack[SharedOptions],
) -> Stylization:
    """Reconstruct `image` from its features in a layer: noise is optimised until its features match.

    The method is that of Mahendran & Vedaldi (2015). The content term is the mean square difference of the layer's
    features, divided by that between `image` and plain grey at 256 pixels, so that a recipe's `tv_weight` means about
    the same at every layer.

    Args:
        image: the picture: a file, or a float RGB tensor (1, 3, H, W) in [0, 1].
        layer: a layer of the recipe's network, or several as `relu1_1:0.5,relu3_*`; None takes the recipe's.
        recipe: a `Recipe`, or the name of one. Its style layers are ignored.
        size: long side of the result in pixels, the recipe's if None; a smaller picture is not enlarged, unless the
            recipe has `enlarge`.
        options: `seconds`, `memory_limit`, `resume`, `device` and `precision`, as in `stylize`.

    Raises what `stylize` raises.

    Example:
        >>> import torch
        >>> from vggfeat import invert, recipe
        >>> small = recipe("invert", network="vgg16", steps=1)
        >>> run = invert(torch.rand(1, 3, 32, 32), "relu2_1", small)
        >>> [sorted(progress.losses) for progress in run]
        [['content', 'total', 'tv']]
    """
    requested = named(recipe) if isinstance(recipe, str) else recipe
    layers = requested.content_layers if layer is None else parse_layers(requested.network, layer)
    if not layers or not any(layers.values()):
        raise RecipeError("an inversion needs a layer with a weight above 0")
    requested = replace(requested, content_layers=layers)
    picture = sources.read(image, "image")
    normalised = _normalised(layers, requested, picture.to(choose_device(options.get("device", "auto"))))
    chosen = replace(requested, content_layers=normalised, style_layers={}, color="style", start=_start(requested))
    inputs = Inputs(picture, (Style(picture),))
    return Stylization(inputs, chosen, size=chosen.size if size is None else size, requested=requested, **options)


def _start(recipe: Recipe) -> str:
    return "noise" if recipe.start == "content" else recipe.start


def _normalised(layers: Mapping[str, float], recipe: Recipe, image: Tensor) -> dict[str, float]:
    """The layers' weights, each divided by the mean square difference of its features to those of plain grey."""
    extract = extractor(recipe, layers, image.device)
    least = extract.minimum_size
    height, width = images.fit(image.shape[2], image.shape[3], _NORMALISING_SIZE)
    small = images.resize(image, max(least, height), max(least, width))
    with torch.no_grad():
        ours, plain = extract(small), extract(torch.full_like(small, 0.5))
    levels = {name: float((ours[name] - plain[name]).square().mean()) for name in layers}
    # Plain grey itself differs from grey by 0 and is not normalised.
    return {name: weight / (levels[name] or 1.0) for name, weight in layers.items()}
