"""A contact sheet of a search: each query, and the pictures of the dump that are most similar to it."""

from pathlib import Path

from torch import Tensor

from vggfeat.dumps.inputs import DumpInputs
from vggfeat.dumps.reading import Dump
from vggfeat.dumps.search import SearchResult
from vggfeat.errors import ImageError
from vggfeat.explore.pages import canvas
from vggfeat.pictures import images

_SIDE, _MARGIN, _GAP, _HEADER, _LABEL = 168, 36, 12, 104, 44

# Further neighbours, and further queries, are not drawn.
_MOST_COLUMNS, _MOST_ROWS = 24, 60


def sheet(dump: Dump, result: SearchResult, *, title: str) -> Tensor:
    """A page, (1, 3, H, W): a row for each query, with the query at its left and its neighbours after it.

    Pictures of the dump are shown as the network received them. One that cannot be read again says so in its place.
    """
    shown = result.found[:_MOST_ROWS]
    columns = min(_MOST_COLUMNS, max(len(one.ids) for one in shown))
    pitch = _SIDE + _LABEL + _GAP
    width = max(860, 2 * _MARGIN + (columns + 1) * (_SIDE + _GAP) + _GAP)
    page = canvas.Canvas(width, _HEADER + len(shown) * pitch + _MARGIN - _GAP)
    room = width - 2 * _MARGIN
    page.write(_MARGIN, _MARGIN - 6, f"Nearest in {title}", size=34, width=room)
    facts = f"{result.array}, {result.metric} distance; the query is on the left"
    page.write(_MARGIN, _MARGIN + 40, facts, size=17, fill=canvas.DIM, width=room)
    inputs = DumpInputs(dump)
    for number, one in enumerate(shown):
        y = _HEADER + number * pitch
        query = _of_dump(inputs, one.query) if one.row is not None else _of_file(one.query)
        _put(page, _MARGIN, y, query)
        page.write(_MARGIN, y + _SIDE + 4, "query", size=15, fill=canvas.ACCENT)
        page.write(_MARGIN, y + _SIDE + 22, Path(one.query).name, size=14, fill=canvas.DIM, width=_SIDE)
        for column, (name, distance) in enumerate(zip(one.ids[:columns], one.distances.tolist(), strict=False)):
            x = _MARGIN + (column + 1) * (_SIDE + _GAP) + _GAP
            _put(page, x, y, _of_dump(inputs, name))
            page.write(x, y + _SIDE + 4, f"{distance:.4g}", size=15)
            page.write(x, y + _SIDE + 22, name, size=14, fill=canvas.DIM, width=_SIDE)
    return page.tensor()


def _of_dump(inputs: DumpInputs, name: str) -> Tensor | str:
    try:
        return inputs[name]
    except ImageError as error:
        return str(error)


def _of_file(path: str) -> Tensor | str:
    try:
        return images.flatten(images.read_picture(path))
    except ImageError as error:
        return str(error)


def _put(page: canvas.Canvas, x: int, y: int, picture: Tensor | str) -> None:
    if isinstance(picture, str):
        page.put(x, y, canvas.blank(_SIDE, _SIDE, canvas.SLATE))
        page.write_lines(x + 8, y + 8, picture, width=_SIDE - 16, height=_SIDE - 16)
        return
    height, width = canvas.contain(picture.shape[2], picture.shape[3], _SIDE, _SIDE)
    page.put(x + (_SIDE - width) // 2, y + _SIDE - height, canvas.scaled(picture, height, width))
