"""Augmentation: transform each picture of a batch by random numbers that the caller has drawn.

So a picture is transformed in the same way however the batch is divided among processes, and when a run is resumed.
"""

import math
from typing import Literal

import torch
from kornia.enhance import (
    adjust_brightness_accumulative,
    adjust_contrast_with_mean_subtraction,
    adjust_saturation_with_gray_subtraction,
)
from kornia.geometry.transform import warp_affine
from torch import Tensor

from vggfeat.pictures.images import middle

DRAWS = 8
"""The number of random numbers in [0, 1) that each picture needs."""

# `shift`: largest translation as a share of the side, largest rotation in degrees, largest relative change of scale.
_MOVE, _TURN, _SCALE = 0.1, 10.0, 0.12
# `photo`: smallest share of the area that is cropped, largest aspect ratio, largest relative change of colour.
_LEAST_AREA, _PROPORTION, _COLOUR = 0.35, 4 / 3, 0.3


def augment(pixels: Tensor, draws: Tensor | None, kind: Literal["none", "shift", "photo"], size: int) -> Tensor:
    """Transform bytes (N, 3, S, S) to float32 (N, 3, size, size) in [0, 1].

    Args:
        pixels: the pictures.
        draws: random numbers (N, `DRAWS`) in [0, 1). If None, pictures are only cropped.
        kind: `none` crops the centre; `shift` translates, rotates and scales; `photo` crops a random part, flips
            horizontally, and changes brightness, contrast and saturation.
        size: side of the result in pixels.

    >>> pixels = torch.full((1, 3, 10, 10), 51, dtype=torch.uint8)
    >>> augment(pixels, None, "none", 8).shape
    torch.Size([1, 3, 8, 8])
    """
    images = pixels.float() / 255
    if kind == "none" or draws is None:
        return middle(images, size)
    draws = draws.to(images.device, torch.float32)
    if kind == "shift":
        scale = 1 + _SCALE * (2 * draws[:, 0] - 1)
        angle = math.radians(_TURN) * (2 * draws[:, 1] - 1)
        moves = _MOVE * size * (2 * draws[:, 2:4] - 1)
        return _warp(images, torch.stack([scale, scale], 1), angle, moves, size=size, padding="zeros").clamp(0, 1)
    return _recolour(_crop(images, draws, size), draws).clamp(0, 1)


def _crop(images: Tensor, draws: Tensor, size: int) -> Tensor:
    """Crop each picture at random area, aspect ratio and position, flip half of them, and resize to `size`."""
    side = images.shape[-1]
    area = _LEAST_AREA + (1 - _LEAST_AREA) * draws[:, 0]
    proportion = torch.exp(math.log(_PROPORTION) * (2 * draws[:, 1] - 1))
    width, height = ((area * proportion).sqrt().clamp(max=1) * side, (area / proportion).sqrt().clamp(max=1) * side)
    centre = torch.stack([(draws[:, 2] - 0.5) * (side - width), (draws[:, 3] - 0.5) * (side - height)], dim=1)
    mirror = torch.where(draws[:, 4] < 0.5, -1.0, 1.0)
    scale = torch.stack([size / width * mirror, size / height], dim=1)
    return _warp(images, scale, torch.zeros_like(mirror), -centre * scale, size=size, padding="border")


def _warp(images: Tensor, scale: Tensor, angle: Tensor, moves: Tensor, *, size: int, padding: str) -> Tensor:
    """Scale by (x, y) about the centre, rotate by `angle`, then translate by `moves` pixels of the result."""
    cos, sin = angle.cos(), angle.sin()
    x, y = scale.unbind(1)
    linear = torch.stack([torch.stack([x * cos, -y * sin], 1), torch.stack([x * sin, y * cos], 1)], 1)
    offset = (size - 1) / 2 + moves - linear.sum(2) * ((images.shape[-1] - 1) / 2)
    return warp_affine(images, torch.cat([linear, offset[:, :, None]], 2), (size, size), padding_mode=padding)


def _recolour(images: Tensor, draws: Tensor) -> Tensor:
    """Change brightness, contrast and saturation, each by a random factor."""
    brightness, contrast, saturation = (1 + _COLOUR * (2 * draws[:, 5:8] - 1)).unbind(1)
    images = adjust_brightness_accumulative(images, brightness)
    images = adjust_contrast_with_mean_subtraction(images, contrast)
    return adjust_saturation_with_gray_subtraction(images, saturation)
