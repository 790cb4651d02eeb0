"""Pictures as callers hand them over: a file, or a tensor."""

import os
from pathlib import Path

from torch import Tensor

from vggfeat.errors import InputError
from vggfeat.pictures import images
from vggfeat.pictures.ranges import check_range

Source = str | os.PathLike[str] | Tensor
"""A picture file, or an RGB tensor (1, 3, H, W) or (3, H, W) in [0, 1]."""


def read(source: Source, role: str = "the picture") -> Tensor:
    """The colours of `source`, (1, 3, H, W), float32 in [0, 1]; a file's transparency shows its mean colour.

    `source`: a file, or a floating (1, 3, H, W) or (3, H, W) tensor. `role` names it in errors. Raises `ImageError`,
    `InputError`.
    """
    if not isinstance(source, Tensor):
        return images.flatten(images.read_picture(source))
    rgb = source[None] if source.ndim == 3 else source
    if rgb.ndim != 4 or rgb.shape[:2] != (1, 3) or not rgb.is_floating_point():
        raise InputError(f"{role} is {source.dtype} {tuple(source.shape)}: pass one float RGB image, (1, 3, H, W)")
    check_range(rgb, "unit")
    return rgb.detach().float().clamp(0, 1)


def name(source: Source) -> str:
    """The file's name, for titles."""
    return "a tensor" if isinstance(source, Tensor) else Path(source).name
