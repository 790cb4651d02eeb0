"""Warp a picture by an optical flow, and find the pixels where a flow can be trusted.

A flow is (N, 2, H, W): for each pixel of a picture, where it is in another one, as (x, y) offsets in pixels. NaN is
unknown.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from vggfeat.errors import InputError

# Constants of Sundaram, Brox & Keutzer (2010), which Ruder, Dosovitskiy & Brox (2016) use: the share of the squared
# length of the motion, and the squared pixels that are added to it.
_INCONSISTENT = (0.01, 0.5)
_BOUNDARY = (0.01, 0.002)
# torch's bicubic interpolation amplifies waves of 4 to 15 pixels by up to 3 %, which adds up from warp to warp. This
# share of it, the rest bilinear, amplifies none.
_CUBIC = 2 / 3


def warp(picture: Tensor, flow: Tensor, *, mode: Literal["bilinear", "cubic"] = "bilinear") -> tuple[Tensor, Tensor]:
    """Read `picture` (N, C, H, W) where `flow` (N, 2, H, W) points; beyond the edge the nearest pixel.

    `mode` is the interpolation. Pictures that are warped again and again stay sharp longer by `cubic`, which may leave
    the range of the values.

    Returns the warped picture, and (N, 1, H, W) booleans that are true where the flow is known and points inside.

    Raises `InputError` if the shapes do not match.

    Example:
        >>> import torch
        >>> from vggfeat import warp
        >>> picture = torch.arange(4.0).expand(1, 1, 2, 4)
        >>> flow = torch.tensor([1.5, 0.0]).reshape(1, 2, 1, 1).expand(1, 2, 2, 4)
        >>> warped, inside = warp(picture, flow)
        >>> warped[0, 0, 0], inside[0, 0, 0]
        (tensor([1.5000, 2.5000, 3.0000, 3.0000]), tensor([ True,  True, False, False]))
    """
    if flow.ndim != 4 or picture.ndim != 4 or flow.shape[1] != 2 or picture.shape[::2] != (len(flow), flow.shape[2]):
        raise InputError(f"a flow of shape {tuple(flow.shape)} does not fit a picture of shape {tuple(picture.shape)}")
    if flow.shape[3] != picture.shape[3]:
        raise InputError(f"the flow is {flow.shape[3]} pixels wide, the picture {picture.shape[3]}")
    height, width = flow.shape[2:]
    x = torch.arange(width, device=flow.device, dtype=flow.dtype) + flow[:, 0]
    y = torch.arange(height, device=flow.device, dtype=flow.dtype)[:, None] + flow[:, 1]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)  # false for NaN
    # grid_sample counts from -1 at the first pixel's centre to 1 at the last one's.
    places = torch.stack([x / max(width - 1, 1), y / max(height - 1, 1)], dim=3).nan_to_num() * 2 - 1
    places = places.to(picture.dtype)
    warped = F.grid_sample(picture, places, padding_mode="border", align_corners=True)
    if mode == "cubic":
        cubic = F.grid_sample(picture, places, mode="bicubic", padding_mode="border", align_corners=True)
        warped = torch.lerp(warped, cubic, _CUBIC)
    return warped, inside[:, None]


def visible(flow: Tensor, back: Tensor) -> Tensor:
    """Where the pixels of one picture can be found in another: (N, 1, H, W) booleans.

    A pixel counts as hidden if `flow` points outside, if following `flow` and then `back` does not return to it, or if
    it is at the boundary of a motion (Sundaram et al. 2010, with the constants of Ruder et al. 2016).

    Args:
        flow: from the first picture to the second, (N, 2, H, W).
        back: from the second picture to the first.

    Example:
        >>> import torch
        >>> from vggfeat.pictures.video.warping import visible
        >>> flow = torch.tensor([2.0, 0.0]).reshape(1, 2, 1, 1).expand(1, 2, 3, 8)
        >>> visible(flow, -flow).float().mean().item(), visible(flow, flow).any().item()
        (0.75, False)
    """
    share, floor = _BOUNDARY
    return returns(flow, back) & (_gradient(flow) <= share * _square(flow) + floor)


def returns(flow: Tensor, back: Tensor) -> Tensor:
    """Where following `flow` and then `back` returns to the pixel, inside the picture: (N, 1, H, W) booleans.

    That is `visible` without its test for boundaries of motions; arguments as there.

    Example:
        >>> import torch
        >>> from vggfeat.pictures.video.warping import returns
        >>> flow = torch.tensor([2.0, 0.0]).reshape(1, 2, 1, 1).expand(1, 2, 3, 8)
        >>> returns(flow, -flow).float().mean().item(), returns(flow, flow).any().item()
        (0.75, False)
    """
    returning, inside = warp(back, flow)
    share, floor = _INCONSISTENT
    return inside & (_square(flow + returning) <= share * (_square(flow) + _square(returning)) + floor)


def _square(flow: Tensor) -> Tensor:
    return flow.square().sum(1, keepdim=True)


def _gradient(flow: Tensor) -> Tensor:
    """The squared gradient of a flow, added over x and y, by central differences."""
    padded = F.pad(flow, (1, 1, 1, 1), mode="replicate")
    dx = (padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]) / 2
    dy = (padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]) / 2
    return _square(dx) + _square(dy)
