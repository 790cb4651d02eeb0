"""A page of two pictures side by side, with lines between matches."""

from math import atan2, ceil, cos, hypot, pi

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from vggfeat.errors import InputError
from vggfeat.explore.matching import Matches
from vggfeat.explore.pages import canvas
from vggfeat.features.tensors import values
from vggfeat.pictures import images

_WIDTH, _MARGIN, _GAP, _HEADER, _TALLEST = 1680, 36, 24, 120, 1000

# Draw lines at this many times the size, then shrink them: this smooths their edges.
_FINER = 3
_STRENGTH = 0.75  # opacity of dots and lines


def side_by_side(matches: Matches, a: Tensor, b: Tensor, *, lines: int = 120) -> Tensor:
    """Lay out `a` and `b`, the original pictures (1, 3, H, W) in [0, 1], with a dot for each match: (1, 3, H, W).

    Both dots of a match have a colour that encodes its position in `a`. Lines join the dots of at most `lines` matches:
    the best of each cell of a grid over `a`. Raises `InputError` if a picture is not of the matched size.
    """
    if lines < 0:
        raise InputError(f"lines is {lines}: it must be at least 0")
    for role, picture in (("a", a), ("b", b)):
        came = f"{picture.shape[3]}x{picture.shape[2]}"
        matched = f"{matches.metadata[role]['width']}x{matches.metadata[role]['height']}"
        if came != matched:
            raise InputError(f"picture {role} is {came} pixels, and was {matched} when it was matched")
    sizes, corners, height = _plan(a, b)
    page = canvas.Canvas(_WIDTH, height)
    for picture, size, corner in zip((a, b), sizes, corners, strict=True):
        page.put(*corner, images.resize(0.8 * picture.cpu(), *size))
    joined = spread(matches, lines, a.shape[3], a.shape[2])
    _write_header(page, matches, len(joined), corners)
    points = [
        (points.double() + 0.5) * torch.tensor([size[1] / picture.shape[3], size[0] / picture.shape[2]])
        + torch.tensor(corner)
        for points, size, picture, corner in zip(
            (matches.points_a, matches.points_b), sizes, (a, b), corners, strict=True
        )
    ]
    _draw(page, points[0], points[1], _colours(matches.points_a, a.shape[3], a.shape[2]), joined)
    return page.tensor()


def spread(matches: Matches, count: int, width: int, height: int) -> list[int]:
    """At most `count` matches spread over `a`: the best of each cell of a grid, in the order of matches."""
    if not count:
        return []
    side = (width * height / count) ** 0.5
    columns, rows = max(1, round(width / side)), max(1, round(height / side))
    kept: dict[tuple[int, int], int] = {}
    for number, (x, y) in enumerate(values(matches.points_a)):
        kept.setdefault((int((x + 0.5) * columns / width), int((y + 0.5) * rows / height)), number)
    return sorted(kept.values())[:count]


def _plan(a: Tensor, b: Tensor) -> tuple[list[tuple[int, int]], list[tuple[int, int]], int]:
    """The (height, width) and the (x, y) of both pictures, equally tall, and the page's height."""
    shapes = [picture.shape[3] / picture.shape[2] for picture in (a, b)]
    tall = min(_TALLEST, (_WIDTH - 2 * _MARGIN - _GAP) / sum(shapes))
    sizes = [(max(1, round(tall)), max(1, int(tall * shape))) for shape in shapes]
    left = (_WIDTH - _GAP - sizes[0][1] - sizes[1][1]) // 2
    corners = [(left, _HEADER), (left + sizes[0][1] + _GAP, _HEADER)]
    return sizes, corners, _HEADER + ceil(tall) + 30 + _MARGIN


def _write_header(page: canvas.Canvas, matches: Matches, lines: int, corners: list[tuple[int, int]]) -> None:
    about = matches.metadata
    title = "1 match" if len(matches) == 1 else f"{len(matches)} matches"
    used = page.write(_MARGIN, _MARGIN - 6, title, size=34)
    through = f", refined through {', '.join(about['refined'])}" if about["refined"] else ""
    facts = f"{about['layer']}{through} · {about['network']} {about['weights']} · ratio {about['ratio']:g}"
    page.write(
        _MARGIN + used + 20, _MARGIN + 9, facts, size=17, fill=canvas.DIM, width=_WIDTH - 2 * _MARGIN - used - 20
    )
    line = f"A dot is a match, of one colour in both pictures, by its place in the first. {lines} of them are joined."
    page.write(_MARGIN, _MARGIN + 44, line, size=17, fill=canvas.DIM)
    for role, (x, _) in zip(("a", "b"), corners, strict=True):
        named = f"{about[role]['name']}, {about[role]['width']} x {about[role]['height']} pixels"
        page.write(x, page.image.height - _MARGIN - 22, named, fill=canvas.DIM, width=_WIDTH // 2 - _MARGIN)


def _colours(points: Tensor, width: int, height: int) -> list[tuple[int, int, int]]:
    """A colour for each point: the hue from its angle around the picture's centre, paler near the centre."""
    found: list[tuple[int, int, int]] = []
    for x, y in values(points):
        across, down = 2 * (x + 0.5) / width - 1, 2 * (y + 0.5) / height - 1
        strength = min(1.0, 0.25 + hypot(across, down))
        angle = atan2(down, across)
        red, green, blue = (
            round(255 * (1 - strength * 0.5 * (1 - cos(angle - turn)))) for turn in (0, 2 * pi / 3, 4 * pi / 3)
        )
        found.append((red, green, blue))
    return found


def _draw(page: canvas.Canvas, a: Tensor, b: Tensor, colours: list[tuple[int, int, int]], joined: list[int]) -> None:
    """Draw dots at points of the page, and lines between those in `joined`."""
    size = page.image.width * _FINER, page.image.height * _FINER
    layer = page.image.resize(size, Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(layer)
    pairs = [
        ((x * _FINER, y * _FINER), (u * _FINER, v * _FINER))
        for (x, y), (u, v) in zip(values(a), values(b), strict=True)
    ]
    for number in joined:
        draw.line(pairs[number], fill=colours[number], width=_FINER + 1)
    chosen = set(joined)
    for number in reversed(range(len(pairs))):
        radius = (3.5 if number in chosen else 1.6) * _FINER
        for x, y in pairs[number]:
            draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=colours[number])
    page.image.paste(Image.blend(page.image, layer.resize(page.image.size, Image.Resampling.BOX), _STRENGTH))
