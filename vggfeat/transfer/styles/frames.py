"""Paint the frames of a clip in an instant style, without flicker."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence

from torch import Tensor

from vggfeat.features.device import choose_device
from vggfeat.pictures import sources
from vggfeat.pictures.sources import Source
from vggfeat.pictures.video.flow import FlowSource
from vggfeat.pictures.video.names import FAST_STEADINESS
from vggfeat.transfer.steady import Steady
from vggfeat.transfer.styles.file import InstantStyles
from vggfeat.transfer.styles.mixes import find_mix
from vggfeat.transfer.styles.painting import fast_stylize


def fast_stylize_frames(
    frames: Iterable[Source],
    style: str | Mapping[str, float],
    *,
    styles: InstantStyles | str | os.PathLike[str] | None = None,
    strength: float = 1.0,
    size: int | None = None,
    flow: FlowSource = "tvl1",
    steadiness: float = FAST_STEADINESS,
    back: Sequence[int] = (1,),
    memory_limit: int | str | None = None,
    device: str = "auto",
) -> Iterator[Tensor]:
    """Paint the frames of a clip in an instant style, one after the other, without flicker.

    Each painting is blended with the one before, warped by the optical flow between the two frames, where the flow can
    be trusted. Only the frames that `back` reaches are kept in memory.

    Args:
        frames: pictures in any form that `fast_stylize` takes, such as `frame.picture.rgb` for each frame of a clip.
        style: as for `fast_stylize`, and so are `styles`, `strength` and `size`.
        styles: the file of `style`; None takes the bundled styles.
        strength: from 0, the frames as they are, to 1, the paintings.
        size: long side of the result in pixels; None keeps the frames' size.
        flow: as for `stylize_frames`, and so is `back`.
        back: keep each frame close to the frames that are this many earlier.
        memory_limit: memory for a frame, as for `fast_stylize`.
        device: `auto` or the name of a torch device.
        steadiness: parts of the frame before that are blended with one part of the painting; 0 does not blend.

    Yields each painting, (1, 3, H, W) in [0, 1] on the CPU. Raises what `fast_stylize` raises.

    Example:
        >>> import torch
        >>> from vggfeat import InstantStyles, fast_stylize_frames
        >>> from vggfeat.transfer.styles.network import StyleNetwork  # in place of a trained file
        >>> from vggfeat.transfer.styles.widths import StyleWidths
        >>> untrained = InstantStyles(StyleNetwork(["waves"], StyleWidths(4, 8, 8, blocks=1)))
        >>> clip = torch.rand(3, 32, 40), torch.rand(3, 32, 40)
        >>> [frame.shape for frame in fast_stylize_frames(clip, "waves", styles=untrained, flow="ilk")]
        [torch.Size([1, 3, 32, 40]), torch.Size([1, 3, 32, 40])]
    """
    found, weights = find_mix(style, styles)
    place = choose_device(device)
    steady = Steady(flow, weight=steadiness, back=back, device=place)
    for frame in frames:
        content = sources.read(frame, "a frame")
        painted = fast_stylize(
            content, weights, styles=found, strength=strength, size=size, memory_limit=memory_limit, device=device
        )
        before = steady.before(content)
        painted = painted if before is None else before.blended(painted.to(place)).cpu()
        yield painted
        steady.add(content, painted)
