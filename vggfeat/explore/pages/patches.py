"""A page of the patches that activate a channel most, and where they are in their pictures."""

from collections.abc import Sequence
from math import ceil

from torch import Tensor

from vggfeat.errors import InputError
from vggfeat.explore.pages import canvas
from vggfeat.explore.patches import Patch
from vggfeat.pictures import images

_SIDE, _MARGIN, _GAP, _HEADER, _LABEL, _COLUMNS = 250, 36, 18, 118, 44, 6

# Patches of fewer pixels a side are enlarged without interpolation.
_SMOOTH = 40


def sheet(patches: Sequence[Patch], layer: str, channel: int, *, title: str) -> Tensor:
    """A page, (1, 3, H, W), of patches above their pictures with a box. Raises `InputError` if there are none."""
    if not patches:
        raise InputError(f"no picture of the dump activates channel {channel}")
    rows = ceil(len(patches) / _COLUMNS)
    columns = ceil(len(patches) / rows)
    width = max(860, 2 * _MARGIN + columns * (_SIDE + _GAP) - _GAP)
    contexts = [canvas.contain(patch.picture.shape[2], patch.picture.shape[3], _SIDE, _SIDE) for patch in patches]
    heights = [max(size[0] for size in contexts[row * columns : (row + 1) * columns]) for row in range(rows)]
    pitches = [_SIDE + 8 + height + _LABEL + _GAP for height in heights]
    page = canvas.Canvas(width, _HEADER + sum(pitches) + _MARGIN - _GAP)
    room = width - 2 * _MARGIN
    page.write(_MARGIN, _MARGIN - 6, f"{layer}, channel {channel}", size=34, width=room)
    side = patches[0].field.right - patches[0].field.left
    facts = (
        f"The {len(patches)} pictures of {title} that activate it most. Above each, the receptive field of its "
        f"strongest position, {side} x {side} pixels; padding is grey."
    )
    page.write(_MARGIN, _MARGIN + 42, facts, size=17, fill=canvas.DIM, width=room)
    y = _HEADER
    for row, pitch in enumerate(pitches):
        for column, patch in enumerate(patches[row * columns : (row + 1) * columns]):
            _paint(page, _MARGIN + column * (_SIDE + _GAP), y, patch, contexts[row * columns + column])
        y += pitch
    return page.tensor()


def _paint(page: canvas.Canvas, x: int, y: int, patch: Patch, size: tuple[int, int]) -> None:
    crop = patch.crop()
    page.put(x, y, canvas.scaled(crop, _SIDE, _SIDE, smooth=crop.shape[3] >= _SMOOTH))
    y += _SIDE + 8
    page.put(x, y, images.resize(patch.picture, *size))
    height, width = patch.picture.shape[2:]
    down, across = size[0] / height, size[1] / width
    left, right = (min(max(0, edge), width) * across for edge in (patch.field.left, patch.field.right))
    top, bottom = (min(max(0, edge), height) * down for edge in (patch.field.top, patch.field.bottom))
    box = [x + left, y + top, x + max(left + 4, right - 1), y + max(top + 4, bottom - 1)]
    page.draw.rectangle(box, outline=canvas.ACCENT, width=2)
    y += size[0] + 6
    used = page.write(x, y, f"{patch.value:.4g}", size=15)
    page.write(x + used + 10, y + 1, patch.id, fill=canvas.DIM, width=_SIDE - used - 10)
