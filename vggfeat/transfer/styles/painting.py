"""Paint a picture in an instant style, whole or in blocks."""

import copy
import os
from collections.abc import Mapping

import torch
from torch import Tensor

from vggfeat.errors import InputError, check_number
from vggfeat.features.device import choose_device, settings
from vggfeat.pictures import images, sources
from vggfeat.pictures.sources import Source
from vggfeat.transfer import memory
from vggfeat.transfer.styles import blocks
from vggfeat.transfer.styles.file import InstantStyles
from vggfeat.transfer.styles.mixes import find_mix
from vggfeat.transfer.styles.network import check_side


def fast_stylize(
    content: Source,
    style: str | Mapping[str, float],
    *,
    styles: InstantStyles | str | os.PathLike[str] | None = None,
    strength: float = 1.0,
    size: int | None = None,
    memory_limit: int | str | None = None,
    device: str = "auto",
) -> Tensor:
    """Paint `content` in an instant style, by one pass through a small network.

    Args:
        content: the picture to paint: a file, its bytes, a PIL image, an array or a tensor, as for `stylize`.
        style: a style's name; a mix such as `swirls:2,mosaic:1` or {"swirls": 2, "mosaic": 1}; `FILE:NAME`.
        styles: the file of `style`, or what `InstantStyles.load` read from it; None takes the bundled styles.
        strength: from 0, the picture as it is, to 1, the painting. The two are blended, since no scales and shifts of
            the network give the picture back.
        size: long side of the result in pixels; a smaller content is not enlarged. None keeps the content's size.
        memory_limit: memory for the pass, in bytes or as text such as `4GB`; None allows 0.6 of what is free. A picture
            that needs more is computed in blocks, with the same result up to rounding.
        device: `auto` (CUDA, else MPS, else the CPU) or the name of a torch device.

    Returns (1, 3, H, W) in [0, 1] on the CPU.

    Raises `ImageError`, `InputError`, `WeightsError`.

    Example:
        >>> import torch
        >>> from vggfeat import InstantStyles, fast_stylize
        >>> from vggfeat.transfer.styles.network import StyleNetwork  # in place of a trained file
        >>> from vggfeat.transfer.styles.widths import StyleWidths
        >>> untrained = InstantStyles(StyleNetwork(["waves", "dots"], StyleWidths(4, 8, 8, blocks=1)))
        >>> fast_stylize(torch.rand(1, 3, 30, 40), "waves:2,dots:1", styles=untrained, strength=0.8).shape
        torch.Size([1, 3, 30, 40])
    """
    check_number("strength", strength, 0.0, 1.0)
    place = choose_device(device)
    found, weights = find_mix(style, styles)
    with torch.device("cpu"), torch.inference_mode():
        picture = sources.read(content, "the content")
        if size is not None:
            picture = images.resize(picture, *images.fit(picture.shape[2], picture.shape[3], size))
        return paint(found, weights, picture, strength=strength, memory_limit=memory_limit, device=place)


def paint(
    styles: InstantStyles,
    weights: Mapping[str, float],
    picture: Tensor,
    *,
    strength: float,
    memory_limit: int | str | None,
    device: torch.device,
) -> Tensor:
    """Paint a picture (1, 3, H, W) in [0, 1] as `fast_stylize` does, with styles that are loaded. On the CPU."""
    height, width = picture.shape[2:]
    check_side(height, width)
    # A copy, because `to` would move the caller's module.
    network = copy.deepcopy(styles.network).to(device).to(memory_format=torch.channels_last)
    budget = memory.budget(memory_limit, device)
    side = blocks.choose(network.widths, height, width, budget)
    with torch.inference_mode(), settings(device, "float32", deterministic=True):
        mix = network.mix(dict(weights))
        if side is None:
            placed = picture.to(device).contiguous(memory_format=torch.channels_last)
            painting = network(placed, mix).cpu()
        else:
            painting = blocks.paint(network, picture, mix, side)
        if not painting.isfinite().all():
            raise InputError("the painting holds values that are not finite: the file of styles is not usable")
        return painting if strength == 1 else torch.lerp(picture, painting, strength)
