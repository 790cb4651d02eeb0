"""Whose colours a painting has: what is done to the pictures before, and to the result after. Pure tensor functions.

Every picture is (1, 3, H, W), RGB in [0, 1]; sizes may differ. Luminance is the weighted sum of gamma-encoded R, G, B
that kornia's `rgb_to_grayscale` takes (0.299, 0.587, 0.114).
"""

from typing import cast

import torch
from torch import Tensor

from vggfeat.errors import RecipeError, near
from vggfeat.pictures import images
from vggfeat.transfer.recipe import CHOICES, Color

# A deviation of less than a quarter of an 8-bit step is rounding, not colour.
_STILL = 1e-3


def prepare(content: Tensor, style: Tensor, mode: Color) -> tuple[Tensor, Tensor]:
    """What is optimised instead of `content` and `style`, for `finish` to be called on the result.

    `style`, `content`: both as they are. `luminance`: both without colour, the style's luminance with the content's
    mean and deviation. `linear`: the style recoloured by `linear`. `histogram`: by `histogram`.
    Raises `RecipeError` for another mode.
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
    """The painting whose optimised picture is `result`; `content` is the picture that `prepare` was given.

    `luminance` and `content`: the result's luminance with the content's colours. Else `result`.
    Raises `RecipeError` for another mode.
    """
    _check(mode)
    if mode not in {"luminance", "content"}:
        return result
    return colourise(_luminance(result), images.resize(content, result.shape[2], result.shape[3]))


def linear(picture: Tensor, like: Tensor) -> Tensor:
    """`picture` with the mean and the covariance of the colours of `like`, then clamped to [0, 1].

    Of the linear maps that do this it is the one that moves the colours least (Pitié & Kokaram 2007). Along axes on
    which the picture's colours do not vary nothing can be matched but the mean: grey stays on one line of colours.
    """
    mean, covariance = _moments(picture)
    aim, wanted = _moments(like)
    root, inverse = _roots(covariance)
    between, _ = _roots(root @ wanted @ root)
    turn = (inverse @ between @ inverse).to(picture)
    centred = picture - mean.to(picture).view(1, 3, 1, 1)
    moved = torch.einsum("ij,njhw->nihw", turn, centred) + aim.to(picture).view(1, 3, 1, 1)
    return moved.clamp(0, 1)


def histogram(picture: Tensor, like: Tensor) -> Tensor:
    """`picture` with the distribution that each channel has in `like`, after `linear` has aligned how they vary.

    A value becomes that of the same rank; equal values stay equal.
    """
    moved = linear(picture, like)
    channels = [_match(moved[0, channel], like[0, channel]) for channel in range(3)]
    return torch.stack(channels)[None].to(picture)


def colourise(luminance: Tensor, colours: Tensor) -> Tensor:
    """A picture of that luminance, (1, 1, H, W), with the hues of `colours`, (1, 3, H, W).

    A colour that its new luminance has no room for is paled, so that the luminance is exact.
    """
    chroma = colours - _luminance(colours)
    room = torch.where(chroma > 0, 1 - luminance, luminance) / chroma.abs().clamp_min(1e-6)
    return (luminance + chroma * room.amin(1, keepdim=True).clamp(0, 1)).clamp(0, 1)


def _check(mode: str) -> None:
    if mode not in CHOICES["color"]:
        raise RecipeError(f"unknown color '{mode}': {near(mode, CHOICES['color'])}")


def _luminance(rgb: Tensor) -> Tensor:
    from kornia.color import rgb_to_grayscale

    return rgb_to_grayscale(rgb)


def _rescale(grey: Tensor, like: Tensor) -> Tensor:
    """`grey` with the mean and the deviation of `like`, clamped; without contrast it becomes the mean."""
    scale = like.std(correction=0) / grey.std(correction=0).clamp_min(1e-4)
    return ((grey - grey.mean()) * scale + like.mean()).clamp(0, 1)


def _moments(rgb: Tensor) -> tuple[Tensor, Tensor]:
    """The mean colour, (3,), and the covariance, (3, 3), as float64 on the CPU: not every device has `eigh`."""
    pixels = rgb.detach()[0].flatten(1)
    mean = pixels.mean(1, keepdim=True)
    centred = pixels - mean
    return mean[:, 0].cpu().double(), (centred @ centred.T).cpu().double() / pixels.shape[1]


def _roots(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """The square root of a symmetric matrix, and its inverse on the axes along which there is any variance."""
    values, axes = cast("tuple[Tensor, Tensor]", torch.linalg.eigh(covariance))  # pyright: ignore[reportUnknownMemberType] - torch leaves it untyped
    roots = values.clamp_min(0).sqrt()
    inverses = torch.where(roots > _STILL, 1 / roots, 0)
    return axes * roots @ axes.T, axes * inverses @ axes.T


def _match(values: Tensor, like: Tensor) -> Tensor:
    """`values`, each replaced by the value of the same rank in `like`; the sizes may differ."""
    unique = torch.unique(values, return_inverse=True, return_counts=True)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] - torch leaves it untyped
    _, places, counts = cast("tuple[Tensor, Tensor, Tensor]", unique)
    ranks = (counts.cumsum(0) - counts / 2) / values.numel()  # of the middle one of all that are equal
    ordered = like.flatten().sort().values
    positions = (ranks * ordered.numel() - 0.5).clamp(0, ordered.numel() - 1)
    below = positions.floor().long()
    above = (below + 1).clamp_max(ordered.numel() - 1)
    return torch.lerp(ordered[below], ordered[above], (positions - below).to(ordered))[places]
