"""Optical flow between two frames: computed by scikit-image or torchvision, or read from files."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vggfeat.errors import InputError, VggfeatError, imported, near
from vggfeat.pictures.video.flo import read_flo
from vggfeat.pictures.video.names import METHODS

_LEAST_SIDE = 16  # of a picture whose flow is computed
_RAFT_STRIDE, _RAFT_LEAST = 8, 128


class Frame(NamedTuple):
    """A frame of a clip: its number, from 1 on, and its picture (1, 3, H, W) in [0, 1]."""

    number: int
    picture: Tensor


FlowFunction = Callable[[Frame, Frame], Tensor]
"""Returns the flow (1, 2, H, W) from one frame to another: where each pixel of the first one is in the second."""

FlowSource = str | os.PathLike[str] | FlowFunction
"""One of `names.METHODS`, a folder of .flo files, or a function."""


def flow_function(source: FlowSource) -> FlowFunction:
    """The function that `source` stands for.

    A folder holds `forward_1_2.flo`, the flow from frame 1 to frame 2, and `backward_2_1.flo`, the flow back, and so on
    for all pairs that are requested. Flows of another size are resized.

    Raises `InputError` for an unknown method, `VggfeatError` if a method needs a package or weights that are missing.
    """
    if not isinstance(source, str | os.PathLike):
        return source
    if source in METHODS:
        _check_available(str(source))
        return _raft() if source == "raft" else lambda first, second: optical_flow(*first[1:], *second[1:], str(source))
    folder = Path(source)
    if not folder.is_dir():
        raise InputError(f"unknown flow '{source}': {near(str(source), METHODS)}, or name a folder of .flo files")
    if not any(folder.glob("*.flo")):
        raise InputError(f"there is no .flo file in '{source}'")
    return lambda first, second: _from_file(folder, first, second)


def optical_flow(first: Tensor, second: Tensor, method: str = "tvl1") -> Tensor:
    """Where each pixel of `first` is in `second`, both (1, 3, H, W) in [0, 1]: (1, 2, H, W), offsets (x, y) in pixels.

    Args:
        first: a picture.
        second: another one of its size.
        method: `tvl1` (Zach, Pock & Bischof 2007) keeps the edges of motions; `ilk` (Le Besnerais & Champagnat 2005) is
            faster. Both are scikit-image's. `raft` (Teed & Deng 2020) is torchvision's small network, whose weights
            must be in torch's cache.

    Raises `InputError`, and `VggfeatError` if scikit-image or the weights are missing.

    Example:
        >>> import torch
        >>> from vggfeat import optical_flow
        >>> waves = torch.sin(torch.arange(40) / 3).outer(torch.sin(torch.arange(60) / 4)).expand(1, 3, 40, 60)
        >>> flow = optical_flow(waves[..., 2:50] / 2 + 0.5, waves[..., :48] / 2 + 0.5)  # moves right by two pixels
        >>> flow.shape, flow[0, :, 10:30, 10:30].mean((1, 2)).round().int()
        (torch.Size([1, 2, 40, 48]), tensor([2, 0], dtype=torch.int32))
    """
    if first.shape != second.shape or first.ndim != 4 or first.shape[:2] != (1, 3):
        raise InputError(
            f"flow needs two pictures (1, 3, H, W) of one size, not {tuple(first.shape)} and {tuple(second.shape)}"
        )
    if min(first.shape[2:]) < _LEAST_SIDE:
        raise InputError(
            f"a picture of {first.shape[3]}x{first.shape[2]} is too small for optical flow: {_LEAST_SIDE} a side"
        )
    if method not in METHODS:
        raise InputError(f"unknown method '{method}': {near(method, METHODS)}")
    _check_available(method)
    if method == "raft":
        return _raft()(Frame(1, first), Frame(2, second))
    from skimage import registration

    compute: Any = registration.optical_flow_tvl1 if method == "tvl1" else registration.optical_flow_ilk
    rows, columns = compute(_grey(first), _grey(second), dtype="float32")
    flow = torch.stack([torch.as_tensor(columns), torch.as_tensor(rows)])[None]
    return flow.to(first.device)


def _grey(picture: Tensor) -> Any:
    from kornia.color import rgb_to_grayscale

    return rgb_to_grayscale(picture.float())[0, 0].cpu().numpy()


def _check_available(method: str) -> None:
    if method == "raft":
        if not (path := _raft_file()).is_file():
            raise VggfeatError(f"the weights of RAFT are not at hand: download {_raft_weights().url} to '{path}'")
    else:
        imported("skimage", "optical flow needs scikit-image", "video", instead="name a folder of .flo files")


def _raft_weights() -> Any:
    from torchvision.models.optical_flow import Raft_Small_Weights

    return Raft_Small_Weights.DEFAULT


def _raft_file() -> Path:
    return Path(torch.hub.get_dir(), "checkpoints", _raft_weights().url.rpartition("/")[2])


def _raft() -> FlowFunction:
    """Torchvision's small RAFT with weights from torch's cache. Pictures are enlarged to what it needs."""
    from torchvision.models.optical_flow import raft_small

    network = raft_small(weights=None).eval()
    network.load_state_dict(torch.load(_raft_file(), map_location="cpu", weights_only=True))

    def compute(first: Frame, second: Frame) -> Tensor:
        height, width = first.picture.shape[2:]
        size = [max(_RAFT_LEAST, -(-side // _RAFT_STRIDE) * _RAFT_STRIDE) for side in (height, width)]
        signed = [F.interpolate(frame.picture.float(), size, mode="bilinear") * 2 - 1 for frame in (first, second)]
        network.to(first.picture.device)
        with torch.inference_mode():
            flow: Tensor = network(*signed)[-1]
        return _resized(flow.clone(), height, width)

    return compute


def _from_file(folder: Path, first: Frame, second: Frame) -> Tensor:
    direction = "forward" if first.number < second.number else "backward"
    flow = read_flo(folder / f"{direction}_{first.number}_{second.number}.flo")
    return _resized(flow, *first.picture.shape[2:]).to(first.picture.device)


def _resized(flow: Tensor, height: int, width: int) -> Tensor:
    """A flow of another size of the picture."""
    if flow.shape[2:] == (height, width):
        return flow
    scale = torch.tensor([width / flow.shape[3], height / flow.shape[2]], device=flow.device)
    return F.interpolate(flow, (height, width), mode="bilinear", align_corners=False) * scale[:, None, None]
