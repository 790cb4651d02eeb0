"""Measures of flicker: each painted frame against an earlier one, warped onto it by the motion of the original clip."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vggfeat.errors import InputError
from vggfeat.losses.similarity import LPIPS
from vggfeat.pictures import images
from vggfeat.pictures.video.flow import FlowSource, Frame, flow_function
from vggfeat.pictures.video.warping import visible, warp


class Aligned(NamedTuple):
    """A painted frame beside an earlier one that is warped onto it.

    Args:
        number, against: the numbers of the two frames, from 1 on.
        frame: the painted frame, (1, 3, H, W).
        warped: the earlier painted frame, warped by the motion of the original.
        visible: where the two can be compared, (1, 1, H, W) booleans.
    """

    number: int
    against: int
    frame: Tensor
    warped: Tensor
    visible: Tensor


def aligned(
    painted: Iterable[Tensor],
    original: Iterable[Tensor],
    *,
    flow: FlowSource = "tvl1",
    back: Sequence[int | None] = (1,),
) -> Iterator[list[Aligned]]:
    """For each painted frame from the second on, yield it aligned with earlier ones, in the order of `back`.

    Args:
        painted: frames (1, 3, H, W) in [0, 1]; they are read one by one.
        original: the frames that show the motion, as many; they are resized to the painted ones.
        flow: how the motion is found, see `flow_function`.
        back: distances to the earlier frames; None is the first frame of the clip. Frames before the first one are
            left out.

    Raises `InputError` if one of the clips has more frames or frames of several sizes.
    """
    if any(step is not None and step < 1 for step in back):
        raise InputError(f"back is {list(back)}: a frame is compared with one at least 1 frame earlier")
    find = flow_function(flow)
    kept: deque[tuple[Frame, Tensor]] = deque(maxlen=max((step for step in back if step), default=1))
    first: tuple[Frame, Tensor] | None = None
    for number, (frame, content) in enumerate(zip_longest(painted, original), 1):
        if frame is None or content is None:
            shorter = "painted" if frame is None else "original"
            raise InputError(f"the {shorter} clip ends after {number - 1} frames, the other one is longer")
        if first is not None and frame.shape != first[1].shape:
            raise InputError(f"frame {number} is {tuple(frame.shape)}, the first one {tuple(first[1].shape)}")
        now = Frame(number, images.resize(content, *frame.shape[2:]))
        found: dict[int, Aligned] = {}
        for step in back:
            earlier = first if step is None else kept[-step] if step <= len(kept) else None
            if earlier is not None and earlier[0].number not in found:
                found[earlier[0].number] = _align(now, frame, *earlier, find)
        if found:
            wanted = (1 if step is None else number - step for step in back)
            yield [found[against] for against in wanted if against in found]
        first = first or (now, frame)
        kept.append((now, frame))


def _align(now: Frame, frame: Tensor, then: Frame, earlier: Tensor, find: Any) -> Aligned:
    flow = find(now, then)
    warped, _ = warp(earlier, flow)
    return Aligned(now.number, then.number, frame, warped, visible(flow, find(then, now)))


class _Steadiness(ABC):
    """A mean over the frames of a clip."""

    def __init__(self, *, flow: FlowSource = "tvl1", back: int | None = 1) -> None:
        self.flow = flow
        self.back = back

    @abstractmethod
    def distance(self, pair: Aligned) -> Tensor:
        """The distance of two aligned frames, a scalar: NaN if no pixel is visible."""

    def each(self, painted: Iterable[Tensor], original: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yield the distance for each frame that has an earlier one to compare with. Frames are read one by one."""
        for (pair,) in aligned(_frames(painted), _frames(original), flow=self.flow, back=[self.back]):
            yield self.distance(pair)

    def __call__(self, painted: Iterable[Tensor], original: Iterable[Tensor]) -> Tensor:
        """The mean over all pairs of frames that share visible pixels, a scalar; NaN if there are none.

        Args:
            painted: the clip to measure: (T, 3, H, W) in [0, 1], or frames (3, H, W) or (1, 3, H, W).
            original: the clip whose motion it should follow.

        Raises `InputError` for clips without a pair, of different lengths, or with frames of several sizes.
        """
        values = list(self.each(painted, original))
        if not values:
            raise InputError("there is no pair of frames to compare: a clip needs more frames than `back`")
        return torch.stack(values).nanmean()


class WarpingError(_Steadiness):
    """The warping error (Lai et al. 2018): how much a painted clip flickers.

    Each frame is compared with an earlier one, which is warped by the optical flow of the original clip: the mean
    squared difference over the pixels that are visible in both and the three channels, for values in [0, 1], averaged
    over the pairs of frames. 0 is perfectly steady.

    Args:
        flow: how the motion is found: `tvl1`, `ilk` or `raft`, a folder of .flo files, or a function of two frames.
        back: how many frames earlier the other frame is, 1 for the short-term error; None compares with the first
            frame, for the long-term error.

    Example:
        >>> import torch
        >>> from vggfeat import WarpingError
        >>> picture = torch.rand(3, 24, 40)
        >>> clip = torch.stack([picture[:, :, i : i + 32] for i in range(4)])  # moves left by a pixel a frame
        >>> def moved(first, second):
        ...     return torch.tensor([first.number - second.number, 0.0]).reshape(1, 2, 1, 1).expand(1, 2, 24, 32)
        >>> metric = WarpingError(flow=moved)
        >>> flickering = clip + torch.tensor([0, 0.1, 0, 0.1]).reshape(4, 1, 1, 1)
        >>> print(f"{metric(clip, clip):.4f} {metric(flickering, clip):.4f}")
        0.0000 0.0100
    """

    def distance(self, pair: Aligned) -> Tensor:
        """The mean squared difference of the visible pixels."""
        return warping_error(pair)


class WarpedLPIPS(_Steadiness):
    """LPIPS of each frame and an earlier one, warped by the optical flow of the original clip, over visible pixels.

    Args:
        net: the network of LPIPS: `vgg`, `alex` or `squeeze`.
        flow, back: as for `WarpingError`.
        options: further options of `LPIPS`, such as `device`.

    Example:
        >>> import torch
        >>> from vggfeat import WarpedLPIPS
        >>> still = torch.rand(1, 3, 40, 40).expand(3, 3, 40, 40)
        >>> WarpedLPIPS("alex", flow=lambda first, second: torch.zeros(1, 2, 40, 40))(still, still) < 1e-6
        tensor(True)
    """

    def __init__(self, net: Any = "vgg", *, flow: FlowSource = "tvl1", back: int | None = 1, **options: Any) -> None:
        super().__init__(flow=flow, back=back)
        self.criterion = LPIPS(net, **options)

    def distance(self, pair: Aligned) -> Tensor:
        """LPIPS over the visible pixels."""
        return warped_lpips(self.criterion, pair)


def warping_error(pair: Aligned) -> Tensor:
    """The mean squared difference over the visible pixels and the channels, a scalar; NaN if none is visible."""
    squared = (pair.frame - pair.warped).square().mean(1, keepdim=True)
    return squared[pair.visible].mean()


def warped_lpips(criterion: LPIPS, pair: Aligned) -> Tensor:
    """LPIPS of the two frames, averaged over the visible pixels, a scalar; NaN if none is visible."""
    with torch.no_grad():
        return criterion(pair.frame, pair.warped, pair.visible) / pair.visible.float().mean()


def _frames(clip: Iterable[Tensor]) -> Iterator[Tensor]:
    """The frames of a clip, (1, 3, H, W) each."""
    for frame in clip:
        single = frame[None] if frame.ndim == 3 else frame
        if single.ndim != 4 or single.shape[:2] != (1, 3) or not single.is_floating_point():
            raise InputError(f"a frame is {frame.dtype} {tuple(frame.shape)}: pass floating point, (3, H, W)")
        yield single
