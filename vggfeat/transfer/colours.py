"""The colour modes of a recipe: what is done to the pictures before a run, and to the result after it.

Every picture is (1, 3, H, W), RGB in [0, 1]; sizes may differ. Luminance is the weighted sum of gamma-encoded R, G, B
that kornia's `rgb_to_grayscale` computes (0.299, 0.587, 0.114).
"""

from typing import cast

import torch
from torch import Tensor

from vggfeat.errors import RecipeError, one_of
from vggfeat.features.device import settings
from vggfeat.pictures import images
from vggfeat.transfer.recipe import CHOICES, Color

# A standard deviation of less than a quarter of an 8-bit step is rounding, not colour.
_LEAST_DEVIATION = 1e-3

_COLOURED_BY_CONTENT = frozenset({"luminance", "content"})
_LUMA = (0.299, 0.587, 0.114)  # kornia's weights, for the gradient


def prepare(content: Tensor, style: Tensor, mode: Color) -> tuple[Tensor, Tensor]:
    """The content and the style that the network sees. Call `finish` on the result.

    The modes `style` and `content` change nothing. `luminance` removes the colour of both, and gives the style's
    luminance the content's mean and standard deviation. `linear` and `histogram` recolour the style by the functions of
    these names. Raises `RecipeError` for another mode.
    """
    _check(mode)
    if mode == "luminance":
        content, style = _luminance(content), _luminance(style)
        return content.expand(-1, 3, -1, -1), _rescale(style, content).expand(-1, 3, -1, -1)
    if mode == "linear":
        return content, linear(style, content)
    if mode == "histogram":
        return content, histogram(style, content)
    return content, style


def finish(result: Tensor, content: Tensor, mode: Color) -> Tensor:
    """The finished picture for the optimised `result`; `content` is the one that `prepare` was given.

    In the modes `luminance` and `content` it has the result's luminance and the content's colours; in the others it is
    `result`. Raises `RecipeError` for another mode.
    """
    _check(mode)
    if mode not in _COLOURED_BY_CONTENT:
        return result
    return colourise(_luminance(result), images.resize(content, result.shape[2], result.shape[3]))


def compared(picture: Tensor, mode: Color) -> Tensor:
    """The part of a picture that `finish` leaves unchanged, for losses between frames.

    That is the picture (1, 3, H, W), or if the content gives the colours, the luminance (1, 1, H, W).
    """
    return _luminance(picture) if mode in _COLOURED_BY_CONTENT else picture


def gradient_of_compared(gradient: Tensor, mode: Color) -> Tensor:
    """The gradient with respect to the picture (1, 3, H, W), from that with respect to `compared`."""
    if mode not in _COLOURED_BY_CONTENT:
        return gradient
    return gradient * torch.tensor(_LUMA, device=gradient.device).view(1, 3, 1, 1)


def linear(picture: Tensor, reference: Tensor) -> Tensor:
    """`picture` with the mean and the covariance of the colours of `reference`, clamped to [0, 1].

    The map is the Monge-Kantorovich solution, which moves the colours least of all linear maps that do this (Pitié &
    Kokaram, 2007). Along axes on which the picture's colours do not vary, only the mean is matched.
    """
    mean, covariance = _moments(picture)
    target_mean, target_covariance = _moments(reference)
    root, inverse = _roots(covariance)
    between, _ = _roots(root @ target_covariance @ root)
    matrix = (inverse @ between @ inverse).to(picture)
    centred = picture - mean.to(picture).view(1, 3, 1, 1)
    with settings(picture.device, "float32"):
        mapped = torch.einsum("ij,njhw->nihw", matrix, centred)
    return (mapped + target_mean.to(picture).view(1, 3, 1, 1)).clamp(0, 1)


def histogram(picture: Tensor, reference: Tensor) -> Tensor:
    """`linear`, then histogram matching of each channel to `reference`.

    Each value is replaced by the reference's value of the same rank; equal values stay equal.
    """
    aligned = linear(picture, reference)
    channels = [_match(aligned[0, channel], reference[0, channel]) for channel in range(3)]
    return torch.stack(channels)[None].to(picture)


def colourise(luminance: Tensor, colours: Tensor) -> Tensor:
    """A picture with this `luminance` (1, 1, H, W) and the hues of `colours` (1, 3, H, W).

    Where a colour would leave [0, 1] at its new luminance, it is desaturated, so that the luminance is exact.
    """
    chroma = colours - _luminance(colours)
    room = torch.where(chroma > 0, 1 - luminance, luminance) / chroma.abs().clamp_min(1e-6)
    return (luminance + chroma * room.amin(1, keepdim=True).clamp(0, 1)).clamp(0, 1)


def _check(mode: str) -> None:
    one_of("color", mode, CHOICES["color"], kind=RecipeError)


def _luminance(rgb: Tensor) -> Tensor:
    from kornia.color import rgb_to_grayscale

    return rgb_to_grayscale(rgb)


def _rescale(grey: Tensor, reference: Tensor) -> Tensor:
    """`grey` with the mean and standard deviation of `reference`, clamped; without contrast it becomes the mean."""
    scale = reference.std(correction=0) / grey.std(correction=0).clamp_min(1e-4)
    return ((grey - grey.mean()) * scale + reference.mean()).clamp(0, 1)


def _moments(rgb: Tensor) -> tuple[Tensor, Tensor]:
    """The mean colour (3,) and the covariance (3, 3), in float64 on the CPU, since not every device has `eigh`."""
    pixels = rgb.detach()[0].flatten(1)
    mean = pixels.mean(1, keepdim=True)
    centred = pixels - mean
    with settings(pixels.device, "float32"):
        products = centred @ centred.T
    return mean[:, 0].cpu().double(), products.cpu().double() / pixels.shape[1]


def _roots(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """The square root of a covariance matrix, and the inverse of the root on the axes along which colours vary."""
    values, axes = cast("tuple[Tensor, Tensor]", torch.linalg.eigh(covariance))
    roots = values.clamp_min(0).sqrt()
    inverses = torch.where(roots > _LEAST_DEVIATION, 1 / roots, 0)
    return axes * roots @ axes.T, axes * inverses @ axes.T


def _match(values: Tensor, reference: Tensor) -> Tensor:
    """Replace each value by the one of the same rank in `reference`; the sizes may differ."""
    unique = torch.unique(values, return_inverse=True, return_counts=True)
    _, places, counts = cast("tuple[Tensor, Tensor, Tensor]", unique)
    ranks = (counts.cumsum(0) - counts / 2) / values.numel()  # equal values share the middle rank
    ordered = reference.flatten().sort().values
    positions = (ranks * ordered.numel() - 0.5).clamp(0, ordered.numel() - 1)
    below = positions.floor().long()
    above = (below + 1).clamp_max(ordered.numel() - 1)
    return torch.lerp(ordered[below], ordered[above], (positions - below).to(ordered))[places]
