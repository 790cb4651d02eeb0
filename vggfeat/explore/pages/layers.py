"""A page of the features of a picture, with one row for each layer.

Rows are planned before anything is painted: the places of tiles follow from their number and the picture's shape.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor

from vggfeat.errors import InputError
from vggfeat.explore import colours, view
from vggfeat.explore.pages import canvas
from vggfeat.explore.view import Inspection, Scale
from vggfeat.networks import arch
from vggfeat.pictures import images

_WIDTH, _MARGIN, _GAP = 1680, 36, 14

# The most (height, width) of a panel (the picture, heat map, components): _SMALL with the channels beside the panels,
# _LARGE with the channels below. The others are the heights of a panel's caption, a layer's title and the header.
_SMALL, _LARGE, _CAPTION, _TITLE, HEADER = (240, 330), (340, 520), 26, 48, 186

# Tiles of channels: their gap, the height of their labels, and for tiles below the panels (most channels, columns).
# Channel counts are multiples of these, so rows are full; in rows of 16 a channel is easy to find by its number.
_TILE_GAP, LABEL = 6, 18
_COLUMNS, _MOST_COLUMNS = ((12, 12), (64, 8)), 16
_LEAST_BESIDE = 100  # Narrower tiles go below the panels.

_DIMMED = 0.3

# A unit of a fully connected layer has one value and no picture, so thousands of tiles would say little.
_MOST_UNITS = 64


@dataclass(frozen=True)
class Row:
    """The place of one layer on the page: its top, the (height, width) of its panels, and the tiles of its channels.

    `x`, `y`: the upper left corner of the tiles.
    """

    top: int
    panel: tuple[int, int]
    x: int
    y: int
    columns: int
    tile: tuple[int, int]
    count: int

    def corner(self, number: int) -> tuple[int, int]:
        """The upper left corner of a tile; its label is below."""
        down, across = divmod(number, self.columns)
        return self.x + across * (self.tile[1] + _TILE_GAP), self.y + down * self._pitch

    @property
    def bottom(self) -> int:
        """The y below the row."""
        tiles = self.y + ceil(self.count / self.columns) * self._pitch
        return max(tiles, self.top + _TITLE + self.panel[0] + _CAPTION)

    @property
    def _pitch(self) -> int:
        return self.tile[0] + LABEL + _TILE_GAP


def sheet(
    found: Inspection,
    *,
    channels: Sequence[int] | None = None,
    top: int | None = None,
    at: tuple[float, float] | None = None,
    scale: Scale = "channel",
) -> Tensor:
    """Lay out the features of a picture as a page, (1, 3, H, W): heat map, principal components, channels by layer.

    Args:
        found: a result of `view.inspect`.
        channels: the channels of every layer to show; None shows all, and of fully connected layers (`fc6`, `relu7`)
            the 64 most active ones.
        top: how many of the most active channels of every layer to show instead.
        at: a pixel (x, y) of the original picture, counted from 0. Also shows the receptive field there.
        scale: `channel` scales the colours to each channel, `layer` to the whole layer.

    Raises `InputError` for channels or a pixel that do not exist, and for a page that would be too large.
    """
    if channels is not None and top is not None:
        raise InputError("channels and top cannot both be given")
    shown = {layer.name: _choose(found, layer, channels, top) for layer in found.layers}
    rows: list[Row] = []
    y = HEADER
    for layer in found.layers:
        rows.append(layout(y, found, len(shown[layer.name]), panels=3 if at is None else 4))
        y = rows[-1].bottom + _MARGIN
    page = canvas.Canvas(_WIDTH, y)
    _paint_header(page, found, scale)
    for layer, row in zip(found.layers, rows, strict=True):
        _paint_panels(page, found, layer, row, at, top=None if channels is not None else len(shown[layer.name]))
        _paint_channels(page, found.features[layer.name], shown[layer.name], row, scale)
    return page.tensor()


def _choose(found: Inspection, layer: arch.Layer, channels: Sequence[int] | None, top: int | None) -> Sequence[int]:
    if channels is None and top is None:
        if layer.fixed_side != 1 or layer.channels <= _MOST_UNITS:
            return range(layer.channels)
        top = _MOST_UNITS
    if top is not None:
        return view.most_active(found.features[layer.name], top)
    assert channels is not None  # noqa: S101 (one of the two is)
    if not channels:
        raise InputError("channels is empty: leave it out to show all")
    if missing := [channel for channel in channels if not 0 <= channel < layer.channels]:
        raise InputError(f"there is no channel {missing[0]} in {layer.name}: choose from 0 to {layer.channels - 1}")
    return channels


def layout(top: int, found: Inspection, count: int, *, panels: int) -> Row:
    """Place a layer: its channels beside the panels if the tiles stay large enough, else below."""
    height, width = found.picture.shape[2:]
    y = top + _TITLE
    panel = canvas.contain(height, width, *_SMALL)
    x = _MARGIN + panels * (panel[1] + _GAP) + _GAP
    room = _WIDTH - _MARGIN - x
    columns, tile = 1, (0, 0)
    for rows in range(1, count + 1):
        across = ceil(count / rows)
        inside = (panel[0] + _CAPTION) // rows - LABEL - _TILE_GAP, (room + _TILE_GAP) // across - _TILE_GAP
        if min(inside) > 0 and (fitting := canvas.contain(height, width, *inside)) > tile:
            columns, tile = across, fitting
    if tile[1] >= _LEAST_BESIDE:
        return Row(top, panel, x, y, columns, tile, count)
    room = _WIDTH - 2 * _MARGIN
    panel = canvas.contain(height, width, _LARGE[0], min(_LARGE[1], (room + _GAP) // panels - _GAP))
    columns = next((columns for most, columns in _COLUMNS if count <= most), _MOST_COLUMNS)
    across = (room + _TILE_GAP) // columns - _TILE_GAP
    tile = canvas.contain(height, width, across, across)
    return Row(top, panel, _MARGIN, y + panel[0] + _CAPTION + _GAP, columns, tile, count)


def _paint_header(page: canvas.Canvas, found: Inspection, scale: Scale) -> None:
    room = _WIDTH - 2 * _MARGIN
    page.write(_MARGIN, _MARGIN - 6, found.title, size=34, width=room)
    height, width = found.picture.shape[2:]
    size = "" if (width, height) == found.size else f", shrunk to {width} x {height}"
    line = f"{found.size[0]} x {found.size[1]} pixels{size} · {found.weights}"
    page.write(_MARGIN, _MARGIN + 42, line, size=17, fill=canvas.DIM, width=room)
    x, y = _MARGIN, _MARGIN + 80
    bar = torch.linspace(0, 1, 200).reshape(1, 1, 1, 200).expand(1, 1, 16, 200)
    page.put(x, y + 1, colours.heat(bar))
    whole = "a channel's" if scale == "channel" else "the layer's"
    line = (
        f"Heat maps run from least to most, channels from 0 to what one in a hundred of {whole} activations exceeds. "
        "Beneath a channel stand its number and the value farthest from 0."
    )
    page.write(x + 214, y, line, size=15, fill=canvas.DIM, width=room - 214)
    if any(bool(features.min() < 0) for features in found.features.values()):
        page.put(x, y + 27, colours.signed(2 * bar - 1))
        line = "Where a layer has values below 0, these are blue in its channels, and those above it orange."
        page.write(x + 214, y + 26, line, size=15, fill=canvas.DIM, width=room - 214)


def _paint_panels(
    page: canvas.Canvas,
    found: Inspection,
    layer: arch.Layer,
    row: Row,
    at: tuple[float, float] | None,
    *,
    top: int | None,
) -> None:
    features = found.features[layer.name]
    height, width = features.shape[2:]
    page.draw.line([(_MARGIN, row.top), (_WIDTH - _MARGIN, row.top)], fill=(50, 54, 62))
    used = page.write(_MARGIN, row.top + 11, layer.name, size=26)
    facts = (
        f"{layer.channels} channels of {width} x {height} · stride {layer.stride} · "
        f"each position sees {layer.receptive_field} x {layer.receptive_field} pixels"
    )
    if top is not None and top < layer.channels:
        facts += f" · the {top} most active channels"
    page.write(_MARGIN + used + 16, row.top + 19, facts, size=17, fill=canvas.DIM)
    heat = view.at_pixels(view.mean_heat(features), layer, *found.picture.shape[2:])
    principal = view.components(features)
    rgb = view.at_pixels(principal.rgb, layer, *found.picture.shape[2:])
    pictures = [
        ("the picture", images.resize(found.picture, *row.panel)),
        (
            f"mean {'magnitude ' if features.min() < 0 else ''}of all channels",
            images.resize(colours.over(found.picture, heat), *row.panel),
        ),
        (f"three principal components, {sum(principal.variance):.0%} of variance", images.resize(rgb, *row.panel)),
    ]
    if at is not None:
        lit, patch = _field_panels(found, layer, at, row.panel)
        pictures = [lit, *pictures[1:], patch]
    for number, (caption, picture) in enumerate(pictures):
        corner = _MARGIN + number * (row.panel[1] + _GAP), row.top + _TITLE
        page.put(*corner, picture)
        page.write(corner[0], corner[1] + row.panel[0] + 6, caption, fill=canvas.DIM, width=row.panel[1])
        if at is not None and 0 < number < 3:
            _mark(page, found, at, corner, row.panel)


def _field_panels(
    found: Inspection, layer: arch.Layer, at: tuple[float, float], panel: tuple[int, int]
) -> tuple[tuple[str, Tensor], tuple[str, Tensor]]:
    """Two captioned panels: the picture dimmed outside the receptive field at a pixel, and that field enlarged."""
    field = view.receptive_field(found, layer, at)
    height, width = found.picture.shape[2:]
    left, top, right, bottom = (
        *(max(0, field.left), max(0, field.top)),
        *(min(width, field.right), min(height, field.bottom)),
    )
    dimmed = _DIMMED * found.picture
    dimmed[..., top:bottom, left:right] = found.picture[..., top:bottom, left:right]
    light = images.resize(dimmed, *panel)
    down, across = panel[0] / height, panel[1] / width
    _outline(light, (left * across, top * down, right * across, bottom * down))
    patch = canvas.blank(field.bottom - field.top, field.right - field.left, canvas.SLATE)
    patch[..., top - field.top : bottom - field.top, left - field.left : right - field.left] = found.picture[
        ..., top:bottom, left:right
    ]
    rows, columns = canvas.contain(patch.shape[2], patch.shape[3], *panel)
    enlarged = canvas.blank(*panel)
    enlarged[..., :rows, :columns] = canvas.scaled(patch, rows, columns)
    return (
        (f"receptive field of position {field.x},{field.y}", light),
        (f"its {layer.receptive_field} x {layer.receptive_field} pixels; padding is grey", enlarged),
    )


def _outline(picture: Tensor, edges: Sequence[float]) -> None:
    """Draw a frame 2 pixels wide around (left, top, right, bottom), in place; its sides are at least 5 pixels."""
    height, width = picture.shape[2:]
    left, top, right, bottom = (round(edge) for edge in edges)
    left, right = max(0, min(left, width - 5)), min(width, max(right, left + 5))
    top, bottom = max(0, min(top, height - 5)), min(height, max(bottom, top + 5))
    colour = (torch.tensor(canvas.ACCENT) / 255).reshape(1, 3, 1, 1)
    inner = picture[..., top + 2 : bottom - 2, left + 2 : right - 2].clone()
    picture[..., top:bottom, left:right] = colour
    picture[..., top + 2 : bottom - 2, left + 2 : right - 2] = inner


def _mark(
    page: canvas.Canvas, found: Inspection, at: tuple[float, float], corner: tuple[int, int], panel: tuple[int, int]
) -> None:
    """A ring around the pixel `at`."""
    x, y = (corner[axis] + (at[axis] + 0.5) * panel[1 - axis] / found.size[axis] for axis in (0, 1))
    for radius, colour in ((7, canvas.BACKGROUND), (6, canvas.ACCENT), (5, canvas.ACCENT), (4, canvas.BACKGROUND)):
        page.draw.ellipse([x - radius, y - radius, x + radius, y + radius], outline=colour)


def _paint_channels(page: canvas.Canvas, features: Tensor, shown: Sequence[int], row: Row, scale: Scale) -> None:
    flat = features[0].flatten(1)
    peaks = flat.gather(1, flat.abs().argmax(1, keepdim=True))[:, 0]  # with their signs
    for number, (channel, picture) in enumerate(
        zip(shown, view.channel_maps(features, shown, scale=scale), strict=True)
    ):
        x, y = row.corner(number)
        page.put(x, y, canvas.scaled(picture[None], *row.tile))
        y += row.tile[0] + 2
        page.write(x + 1, y, str(channel), size=13)
        page.write(x + row.tile[1] - 1, y, f"{float(peaks[channel]):.3g}", size=13, fill=canvas.DIM, anchor="ra")
