"""Colour maps of features: lightness grows evenly in OKLab, so equal steps look equal.

Matplotlib's maps with a dark centre are not used: they are neither black at 0 nor equally light at both ends.
OKLab and its matrices: Ottosson, "A perceptual color space for image processing" (2020).
"""

import torch
from torch import Tensor

# All colours lie within sRGB. Heat: hue in degrees at values 0 and 1, chroma at 0.5 (its maximum), lightness at 1.
_HUES, _CHROMA, _LIGHTEST = (300, 455), 0.17, 0.97

# Signed: black at 0; hues below (blue) and above (orange), chroma at its maximum, lightness at both ends.
_BELOW, _ABOVE, _SIGNED_CHROMA, _SIGNED_LIGHTEST = 256, 50, 0.115, 0.96

# From OKLab to cube roots of cone responses, and from cone responses to linear sRGB.
_CONES = (
    (1.0, 0.3963377774, 0.2158037573),
    (1.0, -0.1055613458, -0.0638541728),
    (1.0, -0.0894841775, -1.2914855480),
)
_LINEAR = (
    (4.0767416621, -3.3077115913, 0.2309699292),
    (-1.2684380046, 2.6097574011, -0.3413193965),
    (-0.0041960863, -0.7034186147, 1.7076147010),
)


def heat(share: Tensor) -> Tensor:
    """Map (N, 1, H, W) in [0, 1] to RGB (N, 3, H, W): black, violet, red, orange, white.

    Lightness grows evenly in OKLab, so a grey copy shows the same order.

    >>> heat(torch.zeros(1, 1, 2, 2)).amax().item()
    0.0
    """
    hue = torch.deg2rad(_HUES[0] + (_HUES[1] - _HUES[0]) * share)
    return _rgb(_LIGHTEST * share, _CHROMA * (torch.pi * share).sin().clamp_min(0), hue)


def signed(share: Tensor) -> Tensor:
    """Map (N, 1, H, W) in [-1, 1] to RGB (N, 3, H, W): light blue, blue, black, orange, light orange.

    Lightness grows evenly in OKLab with the magnitude, equally on both sides.
    """
    hue = torch.deg2rad(torch.where(share < 0, float(_BELOW), float(_ABOVE)))
    size = share.abs()
    return _rgb(_SIGNED_LIGHTEST * size, _SIGNED_CHROMA * (torch.pi * size).sin().clamp_min(0), hue)


def over(picture: Tensor, share: Tensor) -> Tensor:
    """Lay the heat of (1, 1, H, W) in [0, 1] over the (1, 3, H, W) picture, dimmed to grey: (1, 3, H, W)."""
    weights = torch.tensor([0.2126, 0.7152, 0.0722], device=picture.device).reshape(1, 3, 1, 1)
    grey = (picture * weights).sum(1, keepdim=True)
    return (heat(share) + 0.25 * grey * (1 - share) ** 2).clamp(0, 1)


def _rgb(lightness: Tensor, chroma: Tensor, hue: Tensor) -> Tensor:
    lab = torch.cat([lightness, chroma * hue.cos(), chroma * hue.sin()], dim=1)
    cones, rgb = (torch.tensor(matrix, dtype=lab.dtype, device=lab.device) for matrix in (_CONES, _LINEAR))
    linear = torch.einsum("ij,njhw->nihw", rgb, torch.einsum("ij,njhw->nihw", cones, lab) ** 3).clamp(0, 1)
    return torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear.clamp_min(1e-3) ** (1 / 2.4) - 0.055)
