"""Paint the frames of a clip so that they do not flicker, after Ruder, Dosovitskiy & Brox (2016)."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Unpack

import torch
from torch import Tensor

from vggfeat.errors import InputError, check_number
from vggfeat.features.device import choose_device
from vggfeat.pictures import images, sources
from vggfeat.pictures.sources import Source
from vggfeat.pictures.video.flow import FlowSource, Frame, flow_function
from vggfeat.pictures.video.names import STEADINESS
from vggfeat.pictures.video.warping import returns, visible, warp
from vggfeat.transfer.inputs import Before
from vggfeat.transfer.named import recipe as named
from vggfeat.transfer.recipe import Recipe
from vggfeat.transfer.run import SharedOptions, Stylization, stylize
from vggfeat.transfer.stages import plan

# Where less of the frame before than this share is found again, the scene has changed.
_SAME_SCENE = 0.3


class Steady:
    """Keeps recent frames and their paintings, and derives the start and the temporal loss of the next frame.

    Args:
        flow: how the motion is found, see `flow_function`.
        weight: of the temporal loss, see `Before`.
        back: the earlier frames to compare with, as distances in frames, nearest first. A pixel that is hidden in one
            of them is looked for in the next.
        device: where pictures are kept, and where `raft` runs.

    Example:
        >>> import torch
        >>> from vggfeat.transfer.steady import Steady
        >>> steady = Steady(lambda first, second: torch.zeros(1, 2, 16, 16))
        >>> content = torch.rand(1, 3, 16, 16)
        >>> print(steady.before(content))
        None
        >>> steady.add(content, painted=torch.rand(1, 3, 16, 16))
        >>> steady.before(content).mask.mean()
        tensor(1.)
    """

    def __init__(
        self,
        flow: FlowSource = "tvl1",
        *,
        weight: float = STEADINESS,
        back: Sequence[int] = (1,),
        device: torch.device | str = "cpu",
    ) -> None:
        check_number("steadiness", weight, 0.0, 1e12)
        if not back or any(step < 1 for step in back):
            raise InputError(f"back is {list(back)}: give numbers of frames of at least 1, such as (1, 10)")
        self._find = flow_function(flow)
        self._weight = weight
        self._back = sorted({1, *back})
        self._device = torch.device(device)
        self._kept: deque[tuple[Frame, Tensor]] = deque(maxlen=self._back[-1])
        self._number = 0
        self._shape: torch.Size | None = None  # of the last content: a frame of another one begins a scene
        self.begins = True
        """Whether the next frame begins a scene, as `before` has found."""
        self.scenes = 0
        """The number of scenes so far."""

    @property
    def reach(self) -> int:
        """The number of earlier frames that a new one may be compared with."""
        return self._back[-1]

    def add(self, content: Tensor, painted: Tensor, *, begins: bool | None = None) -> None:
        """Remember a frame, (1, 3, H, W), and its painting. `begins`: whether it begins a scene, else as found."""
        if content.shape != self._shape or (self.begins if begins is None else begins):
            self._kept.clear()
            self.scenes += 1
        self._shape = content.shape
        self.begins = False
        self._number += 1
        painted = painted.to(self._device)
        self._kept.append((self._frame(self._number, content, painted), painted))

    def skip(self) -> None:
        """Count a frame that could not be painted, so that later frames keep their numbers."""
        self._number += 1
        self.begins = False

    def before(self, content: Tensor) -> Before | None:
        """The temporal loss of the next frame, given its content; None at the start of a scene."""
        found = self._before(content)
        self.begins = found is None
        return found

    def _before(self, content: Tensor) -> Before | None:
        if not self._kept or content.shape != self._shape:
            return None
        now = self._frame(self._number + 1, content, self._kept[-1][1])
        picture, found = self._aligned(now, *self._kept[-1])
        if found.float().mean() < _SAME_SCENE:
            return None
        for step in self._back[1:]:
            if step <= len(self._kept):
                warped, seen = self._aligned(now, *self._kept[-step])
                picture = warped.where(seen & ~found, picture)
                found = found | seen
        return Before(picture, found.float(), self._weight)

    def _frame(self, number: int, content: Tensor, painted: Tensor) -> Frame:
        """The content of a frame at the size of the paintings."""
        return Frame(number, images.resize(content.to(self._device), *painted.shape[2:]))

    def _aligned(self, now: Frame, then: Frame, painted: Tensor) -> tuple[Tensor, Tensor]:
        """The painting of an earlier frame, warped onto the new one, and where it can be trusted.

        What was outside or hidden is the content: the edge would be repeated in streaks, and what moves would leave
        ghosts behind.
        """
        flow, back = (self._find(*pair).to(self._device) for pair in ((now, then), (then, now)))
        # Each painting is made of the one before: bilinear interpolation would blur them more and more.
        warped, _ = warp(painted, flow, mode="cubic")
        return warped.clamp(0, 1).where(returns(flow, back), now.picture), visible(flow, back)


def later(recipe: Recipe, height: int, width: int) -> Recipe:
    """The recipe for a frame of `height` x `width` pixels that starts from the one before: only the last stage."""
    stage = plan(recipe, *images.fit(height, width, recipe.size, enlarge=recipe.enlarge))[-1]
    return replace(recipe, first_size=max(16, stage.height, stage.width), steps=stage.steps)


def stylize_frames(
    frames: Iterable[Source],
    style: Source | Sequence[Source],
    recipe: Recipe | str = "default",
    *,
    flow: FlowSource = "tvl1",
    steadiness: float = STEADINESS,
    back: Sequence[int] = (1,),
    size: int | None = None,
    **options: Unpack[SharedOptions],
) -> Iterator[Tensor]:
    """Paint the frames of a clip in the style of `style`, one after the other, without flicker.

    Each frame starts from the painting of the frame before, warped by the optical flow between the two, and is kept
    close to it where the flow can be trusted (Ruder et al. 2016). A new scene starts from its content. Only the frames
    that `back` reaches are kept in memory.

    Args:
        frames: pictures in any form that `stylize` takes, such as `frame.picture.rgb` for each frame of a clip.
        style: as for `stylize`.
        recipe: as for `stylize`; frames that start from the one before take only its last stage.
        size: as for `stylize`.
        flow: how the motion is found: `tvl1`, `ilk` or `raft`, a folder of .flo files, or a function of two frames.
        steadiness: weight of the mean squared difference from the frame before, as a multiple of the objective at the
            start. With 0, a frame only starts from the one before.
        back: the earlier frames that each one is kept like, as distances in frames. With (1, 10), a region that was
            hidden for up to ten frames is painted as it was before.
        options: as for `stylize`, except `resume`.

    Yields each painting, (1, 3, H, W) in [0, 1]. Raises what `stylize` raises.

    Example:
        >>> import torch
        >>> from vggfeat import recipe, stylize_frames
        >>> layers = {"content_layers": {"relu2_1": 1}, "style_layers": {"relu1_1": 1}}
        >>> small = recipe("default", network="vgg16", **layers, steps=2)
        >>> clip = torch.rand(3, 32, 40), torch.rand(3, 32, 40)
        >>> [frame.shape for frame in stylize_frames(clip, torch.rand(3, 32, 32), small)]
        [torch.Size([1, 3, 32, 40]), torch.Size([1, 3, 32, 40])]
    """
    chosen = named(recipe) if isinstance(recipe, str) else recipe
    chosen = chosen if size is None else replace(chosen, size=size)
    steady = Steady(flow, weight=steadiness, back=back, device=choose_device(options.get("device", "auto")))
    run: Stylization | None = None
    for frame in frames:
        content = sources.read(frame, "a frame")
        before = steady.before(content)
        used = chosen if before is None else later(chosen, *content.shape[2:])
        run = stylize(content, style, used, before=before, after=run, **options)
        painted = run.result()
        yield painted
        steady.add(content, painted)
