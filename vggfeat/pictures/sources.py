"""Pictures as callers pass them: files, tensors, PIL images, arrays, bytes."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from vggfeat.errors import InputError
from vggfeat.pictures import images
from vggfeat.pictures.images import Picture
from vggfeat.pictures.ranges import check_range

if TYPE_CHECKING:
    from typing_extensions import TypeIs

Source = str | os.PathLike[str] | Tensor | Image.Image | npt.NDArray[Any] | bytes | BinaryIO
"""One picture.

A path; an RGB tensor (1, 3, H, W) or (3, H, W) in [0, 1]; a PIL image; an array (H, W, 3), uint8 or floating in [0, 1];
the bytes of a picture file, or a binary file object.
"""


def is_source(x: object) -> "TypeIs[Source]":
    """Whether `x` is one picture, and not a sequence of them.

    >>> is_source("a.png"), is_source(["a.png", "b.png"])
    (True, False)
    """
    kinds = str | Tensor | Image.Image | np.ndarray | bytes
    return isinstance(x, kinds) or hasattr(x, "__fspath__") or hasattr(x, "read")


def read(source: Source, role: str = "the picture") -> Tensor:
    """The colours of `source`, (1, 3, H, W), float32 in [0, 1]; transparent parts become its mean visible colour.

    `role` names the picture in errors. Raises `ImageError` for a file, bytes or a PIL image that cannot be read, and
    `InputError` for a tensor or an array of another shape, type or range.

    >>> read(Image.new("RGB", (6, 4))).shape, read(np.zeros((4, 6, 3), np.uint8)).shape
    (torch.Size([1, 3, 4, 6]), torch.Size([1, 3, 4, 6]))
    """
    if isinstance(source, np.ndarray):
        return _from_array(source, role)
    if not isinstance(source, Tensor):
        return images.flatten(picture(source, role))
    rgb = source[None] if source.ndim == 3 else source
    if rgb.ndim != 4 or rgb.shape[:2] != (1, 3) or not rgb.is_floating_point():
        raise InputError(f"{role} is {source.dtype} {tuple(source.shape)}: pass one float RGB image, (1, 3, H, W)")
    check_range(rgb, "unit")
    return rgb.detach().float().clamp(0, 1)


def read_visible(source: Source, role: str = "the picture") -> tuple[Tensor, Tensor | None]:
    """As `read`, with the opacity, (1, 1, H, W) in [0, 1], or None if there is no transparency.

    >>> colours, opacity = read_visible(Image.new("LA", (6, 4)))
    >>> colours.shape, opacity.shape
    (torch.Size([1, 3, 4, 6]), torch.Size([1, 1, 4, 6]))
    """
    if isinstance(source, np.ndarray | Tensor):
        return read(source, role), None
    found = picture(source, role)
    return images.flatten(found), found.alpha


def picture(source: str | os.PathLike[str] | Image.Image | bytes | BinaryIO, role: str = "the picture") -> Picture:
    """Read a file, a PIL image, bytes or a file object, with its transparency.

    Raises `ImageError`, and `InputError` for another type.

    >>> picture(Image.new("LA", (6, 4))).alpha.shape
    torch.Size([1, 1, 4, 6])
    """
    if isinstance(source, str | os.PathLike):
        return images.read_picture(source)
    if isinstance(source, Image.Image):
        return images.from_pil(source)
    return images.decode_picture(_bytes(source, role), name=role)


def name(source: Source) -> str:
    """The file's name, or the kind of source, for titles.

    >>> name("photos/a.png"), name(torch.zeros(1, 3, 4, 4))
    ('a.png', 'a tensor')
    """
    if isinstance(source, str | os.PathLike):
        return Path(source).name
    if isinstance(source, Tensor):
        return "a tensor"
    return "an array" if isinstance(source, np.ndarray) else "a picture"


def _from_array(array: npt.NDArray[Any], role: str) -> Tensor:
    if array.ndim != 3 or array.shape[2] != 3 or not (array.dtype == np.uint8 or array.dtype.kind == "f"):
        raise InputError(f"{role} is {array.dtype} {array.shape}: pass one RGB array, (H, W, 3), uint8 or float")
    rgb = torch.from_numpy(np.array(array, order="C")).permute(2, 0, 1)[None].float()  # pyright: ignore[reportUnknownMemberType] (untyped upstream)
    return read(rgb / 255 if array.dtype == np.uint8 else rgb, role)


def _bytes(source: object, role: str) -> bytes:
    data: object = source.read() if hasattr(source, "read") else source  # pyright: ignore[reportAttributeAccessIssue, reportUnknownVariableType, reportUnknownMemberType]
    if not isinstance(data, bytes):
        raise InputError(f"{role} is of type {type(source).__name__}: pass a path, a picture, its bytes or a tensor")
    return data
