"""A labelled grid of pictures that differ in two values, one for rows and one for columns."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from vggfeat.explore.pages import canvas
from vggfeat.pictures import images

_MARGIN, _GAP, _HEADER, _LABEL, _LEFT = 36, 12, 130, 34, 130
_THUMB = 84


def grid(
    cells: Mapping[tuple[int, int], Tensor | str],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    names: tuple[str, str],
    title: str,
    facts: str,
    sources: Mapping[str, Tensor],
    size: tuple[int, int],
) -> Tensor:
    """Lay out a grid of pictures as a page: (1, 3, H, W) in [0, 1].

    Args:
        cells: {(row, column): a picture, (1, 3, H, W) in [0, 1], or a line that says why there is none}. A missing cell
            is shown as not painted.
        rows: the labels of the rows.
        columns: the labels of the columns.
        names: what rows and columns stand for, written before their labels.
        title: of the page.
        facts: a line below the title.
        sources: {caption: picture}, shown small beside the title.
        size: (height, width) of a cell.
    """
    height, width = size
    left, top = _MARGIN + _LEFT, _HEADER + _LABEL
    body = len(columns) * width + (len(columns) - 1) * _GAP
    thumbs = len(sources) * (_THUMB * 2 + _GAP)
    total = max(left + body + _MARGIN, 2 * _MARGIN + thumbs + 420)
    page = canvas.Canvas(total, top + len(rows) * (height + _GAP) + _MARGIN - _GAP)
    _write_header(page, title, facts, sources, total - _MARGIN - thumbs)
    page.write(_MARGIN, _HEADER + 6, names[1], size=15, fill=canvas.DIM, width=_LEFT - 8)
    for column, label in enumerate(columns):
        page.write(left + column * (width + _GAP) + width / 2, _HEADER + 3, label, size=19, anchor="ma", width=width)
    for row, label in enumerate(rows):
        y = top + row * (height + _GAP)
        page.write(_MARGIN, y + height / 2 - 28, names[0], size=15, fill=canvas.DIM, width=_LEFT - 8)
        page.write(_MARGIN, y + height / 2 - 8, label, size=19, width=_LEFT - 8)
        for column in range(len(columns)):
            _put(page, left + column * (width + _GAP), y, cells.get((row, column), "not painted"), size)
    return page.tensor()


def _write_header(page: canvas.Canvas, title: str, facts: str, sources: Mapping[str, Tensor], thumbs_at: float) -> None:
    page.write(_MARGIN, _MARGIN - 6, title, size=30, width=thumbs_at - _MARGIN - _GAP)
    page.write(_MARGIN, _MARGIN + 38, facts, size=16, fill=canvas.DIM, width=thumbs_at - _MARGIN - _GAP)
    x = int(thumbs_at) + _GAP
    for caption, picture in sources.items():
        height, width = canvas.contain(picture.shape[2], picture.shape[3], _THUMB, 2 * _THUMB)
        page.put(x + 2 * _THUMB - width, 12, canvas.scaled(picture, height, width))
        page.write(x + 2 * _THUMB, 16 + _THUMB, caption, size=13, fill=canvas.DIM, anchor="ra", width=2 * _THUMB)
        x += 2 * _THUMB + _GAP


def _put(page: canvas.Canvas, x: int, y: int, cell: Tensor | str, size: tuple[int, int]) -> None:
    height, width = size
    if not isinstance(cell, str):
        page.put(x, y, cell if cell.shape[2:] == size else images.resize(cell, height, width))
        return
    page.put(x, y, canvas.blank(height, width, canvas.SLATE))
    page.write_lines(x + 10, y + 10, cell, width=width - 20, height=height - 20)
