"""Optical flow in files of the Middlebury format, `.flo`."""

import os
import struct
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vggfeat import files
from vggfeat.errors import ImageError, InputError

_TAG = b"PIEH"  # the float 202021.25 in little-endian order
_HEADER = struct.Struct("<4sii")
# Larger values are unknown in the format. Its authors write 1e10 for them.
_KNOWN = 1e9
_UNKNOWN = 1e10
_MOST_SIDE = 99_999  # as the format's own reader


def read_flo(path: str | os.PathLike[str]) -> Tensor:
    """Read a flow, (1, 2, H, W) float32: the offsets (x, y) in pixels of each pixel. NaN is unknown.

    Raises `ImageError` for a file that is missing, damaged or of another format.

    Example:
        >>> import tempfile, torch
        >>> from vggfeat import read_flo, write_flo
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_flo(f"{folder}/a.flo", torch.full((1, 2, 4, 6), 0.5))
        ...     flow = read_flo(f"{folder}/a.flo")
        >>> flow.shape, flow.unique()
        (torch.Size([1, 2, 4, 6]), tensor([0.5000]))
    """
    path = Path(path)
    with files.os_errors_as(ImageError, f"cannot read '{path}'"):
        data = path.read_bytes()
    if data[:4] != _TAG or len(data) < _HEADER.size:
        raise ImageError(f"cannot read '{path}': it is not a .flo file, which begins with {_TAG.decode()}")
    _, width, height = _HEADER.unpack_from(data)
    if not (1 <= width <= _MOST_SIDE and 1 <= height <= _MOST_SIDE):
        raise ImageError(f"cannot read '{path}': its size is {width}x{height}")
    if len(data) != (expected := _HEADER.size + 8 * width * height):
        raise ImageError(f"cannot read '{path}': a flow of {width}x{height} has {expected} bytes, not {len(data)}")
    values = np.frombuffer(data, "<f4", offset=_HEADER.size).reshape(height, width, 2)
    flow = torch.from_numpy(values.transpose(2, 0, 1).astype(np.float32))[None]  # pyright: ignore[reportUnknownMemberType] (untyped upstream)
    return flow.masked_fill(~(flow.abs() <= _KNOWN).all(1, keepdim=True), torch.nan)


def write_flo(path: str | os.PathLike[str], flow: Tensor) -> None:
    """Write a flow, (1, 2, H, W) or (2, H, W), as float32. NaN is written as the format's unknown.

    Raises `InputError` for another shape, `ImageError` if the file cannot be written.

    Example:
        >>> import tempfile, torch
        >>> from vggfeat import read_flo, write_flo
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_flo(f"{folder}/a.flo", torch.tensor([[[torch.nan, 2.0]], [[0.0, 3.0]]]))
        ...     read_flo(f"{folder}/a.flo")[0, :, 0]
        tensor([[nan, 2.],
                [nan, 3.]])
    """
    single = flow[None] if flow.ndim == 3 else flow
    if single.ndim != 4 or single.shape[:2] != (1, 2) or not single.is_floating_point():
        raise InputError(f"a flow is {flow.dtype} {tuple(flow.shape)}: pass floating point, (1, 2, H, W)")
    values = single[0].detach().cpu().float().nan_to_num(_UNKNOWN, _UNKNOWN, _UNKNOWN).permute(1, 2, 0)
    height, width = values.shape[:2]
    content = _HEADER.pack(_TAG, width, height) + values.contiguous().numpy().astype("<f4").tobytes()
    with files.os_errors_as(ImageError, f"cannot write '{path}'"):
        files.write(path, content)
