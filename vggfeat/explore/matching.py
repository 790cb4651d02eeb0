"""Matching: which places of two pictures a layer finds alike. Public as `vggfeat.match`.

Points are (x, y) in pixels of the pictures as they came; the centre of the first pixel is (0, 0).
"""

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from math import ceil
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from kornia.feature import match_snn
from torch import Tensor
from torch.nn.functional import normalize

from vggfeat.errors import InputError, LayerError
from vggfeat.features.device import choose_device
from vggfeat.features.extractor import FeatureExtractor
from vggfeat.networks import arch
from vggfeat.pictures import images, padding, sources
from vggfeat.pictures.sources import Source

if TYPE_CHECKING:
    from vggfeat.features.device import Precision

# Distances held at once, and values of features gathered at once: 64 MB each.
_MOST_DISTANCES = _MOST_GATHERED = 2**24

# Less than any cosine: of a position that does not exist.
_ABSENT = -2.0


@dataclass(frozen=True, eq=False)
class Matches:
    """Pairs of points that a layer finds alike, the surest first.

    `points_a`, `points_b`: (M, 2), float32 on the CPU, (x, y) in pixels of either picture as it came, the centre of the
    first pixel at (0, 0). `score`: (M,), in [0, 1]. `metadata`: what they depend on.
    """

    points_a: Tensor
    points_b: Tensor
    score: Tensor
    metadata: Mapping[str, Any] = field(repr=False)

    def __len__(self) -> int:
        return len(self.score)

    def best(self, count: int) -> "Matches":
        """The `count` surest of them, or all if there are fewer."""
        if count < 1:
            raise InputError(f"the limit is {count}: it is at least 1")
        kept = self.points_a[:count], self.points_b[:count], self.score[:count]
        return replace(self, points_a=kept[0], points_b=kept[1], score=kept[2])

    def rows(self) -> Iterator[dict[str, float]]:
        """x_a, y_a, x_b, y_b and score of each, rounded to what is known of them."""
        for (x_a, y_a), (x_b, y_b), (score,) in zip(
            numbers(self.points_a), numbers(self.points_b), numbers(self.score[:, None]), strict=True
        ):
            yield {
                **{name: round(value, 3) for name, value in (("x_a", x_a), ("y_a", y_a), ("x_b", x_b), ("y_b", y_b))},
                "score": round(score, 5),
            }

    def as_json(self) -> str:
        """`metadata` and `matches` as JSON."""
        return json.dumps({"metadata": self.metadata, "matches": list(self.rows())}, indent=1, allow_nan=False) + "\n"

    def as_csv(self) -> str:
        """A row a match under a header."""
        text = io.StringIO()
        writer = csv.DictWriter(text, ["x_a", "y_a", "x_b", "y_b", "score"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows())
        return text.getvalue()


def match(
    a: Source,
    b: Source,
    layer: str = "relu4_2",
    network: str = "vgg16",
    *,
    weights: str | os.PathLike[str] | None = "default",
    ratio: float = 0.95,
    refine: bool = True,
    size: int = 1024,
    device: str = "auto",
    precision: "Precision" = "float32",
) -> Matches:
    """Find the places of two pictures that `layer` finds alike.

    Two positions match if each is the other's nearest neighbour, by the cosine between their features, and both pass
    Lowe's ratio test: the distance to the nearest is at most `ratio` of that to the second nearest (of unit vectors,
    in both directions; kornia's `match_snn`). A match is then refined through the last ReLU of every finer stride:
    each step looks among the positions within the two that matched, and one further in `b`. At the finest, parabolas
    through the cosines of neighbours find the place between pixels. Around the pictures the network sees their mirror
    image.

    Args:
        a: a file, or a (1, 3, H, W) or (3, H, W) tensor in [0, 1].
        b: likewise; they may differ in size.
        layer: one layer; the deeper it is, the more it goes by what is shown, and the fewer positions it has.
        network: as the `FeatureExtractor` takes it.
        weights: likewise.
        ratio: above 0; 1 keeps all mutual neighbours.
        refine: whether to go on to finer layers; without, points lie in the middle of what a position sees.
        size: the long side at which either picture is seen; a smaller one is not enlarged.
        device: `auto` (CUDA, else MPS, else the CPU) or a torch device.
        precision: of the network; distances are taken in float32.

    A score is the mean of the cosines at each layer that was looked at, times one minus the square of the ratio.

    Raises `ImageError`, `InputError`, `LayerError`, `WeightsError`.
    """
    if not 0 < ratio <= 1:
        raise InputError(f"the ratio is {ratio:g}: it lies above 0 and is at most 1")
    [coarse, *finer] = _ladder(network, layer, refine=refine)
    place = choose_device(device)
    extract = FeatureExtractor(
        network, [coarse.name, *(row.name for row in finer)], weights=weights, device=place, precision=precision
    )
    seen_a, seen_b = (_see(source, role, extract, size, place) for source, role in ((a, "a"), (b, "b")))
    with torch.inference_mode():
        pairs = _mutual(seen_a.levels[coarse.name], seen_b.levels[coarse.name], ratio)
        row = coarse
        for finest in finer:
            pairs = _refined(pairs, row, seen_a.levels[finest.name], seen_b.levels[finest.name])
            row = finest
        shift = _between(pairs, seen_a.levels[row.name], seen_b.levels[row.name]) if finer else 0
        score = pairs.cosine / (1 + len(finer)) * (1 - pairs.ratio**2)
        order = score.argsort(descending=True, stable=True)
        points_a = seen_a.original(pairs.a * row.stride + row.offset, order)
        points_b = seen_b.original((pairs.b + shift) * row.stride + row.offset, order)
    about = {
        "a": {"name": sources.name(a), "width": seen_a.size[0], "height": seen_a.size[1]},
        "b": {"name": sources.name(b), "width": seen_b.size[0], "height": seen_b.size[1]},
        "coordinates": "x, y in pixels of either picture as it came; the centre of the first pixel is 0, 0",
        "network": network,
        "weights": extract.weights_entry.name,
        "layer": coarse.name,
        "refined": [row.name for row in finer],
        "ratio": ratio,
        "size": size,
        "precision": str(extract.dtype).removeprefix("torch."),
        "vggfeat": version("vggfeat"),
    }
    return Matches(points_a, points_b, score[order].clamp(0, 1).cpu(), about)


def numbers(x: Tensor) -> list[list[float]]:
    """The rows of a (M, K) tensor."""
    return x.tolist()  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] (untyped upstream)


class _Level(NamedTuple):
    """One layer's features of a picture as unit vectors, (h * w, C)."""

    rows: Tensor
    height: int
    width: int
    layer: arch.Layer

    def at(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """The vectors at (..., 2) positions x, y, and whether these exist."""
        x, y = positions.unbind(-1)
        exists = (x >= 0) & (x < self.width) & (y >= 0) & (y < self.height)
        return self.rows[y.clamp(0, self.height - 1) * self.width + x.clamp(0, self.width - 1)], exists


class _Seen(NamedTuple):
    """What the network made of a picture. `width`, `height`: as it came; `shape`: (width, height) as it was seen."""

    levels: Mapping[str, _Level]
    size: tuple[int, int]
    shape: tuple[int, int]

    def original(self, places: Tensor, order: Tensor) -> Tensor:
        """Pixels of the picture as it was seen, in those of the picture as it came, in order."""
        scale = torch.tensor(self.size, dtype=torch.float64) / torch.tensor(self.shape)
        return ((places[order].double().cpu() + 0.5) * scale - 0.5).float()


class _Pairs(NamedTuple):
    """Positions (M, 2) of either picture in one layer's grid, and the evidence: sums of cosines, and ratios."""

    a: Tensor
    b: Tensor
    cosine: Tensor
    ratio: Tensor


def _ladder(network: str, layer: str, *, refine: bool) -> list[arch.Layer]:
    """The layer to match by, and the last ReLU of each finer stride, the finest last."""
    coarse, *others = arch.find_layers(network, layer)
    if others:
        raise LayerError(f"'{layer}' names {1 + len(others)} layers of {network}: match by one, such as {coarse.name}")
    finer: dict[int, arch.Layer] = {}
    if refine:
        for row in arch.layers(network)[: coarse.index]:
            if row.kind == "relu" and row.stride < coarse.stride:
                finer[row.stride] = row
    return [coarse, *reversed(finer.values())]


def _see(source: Source, role: str, extract: FeatureExtractor, size: int, place: torch.device) -> _Seen:
    """The features of a picture within its mirror image, without the part that lies outside the picture.

    The zeros around a network's input look alike in every picture, and would match each other.
    """
    rgb = sources.read(source, role)
    height, width = rgb.shape[2:]
    picture = images.resize(rgb, *images.fit(height, width, size))
    rows = {row.name: row for row in arch.find_layers(extract.network, extract.layers)}
    deepest = rows[extract.layers[-1]]
    margin = deepest.stride * min(ceil(-deepest.start / deepest.stride), (min(picture.shape[2:]) - 1) // deepest.stride)
    levels: dict[str, _Level] = {}
    with torch.inference_mode():
        for name, padded in extract(padding.mirror_pad(picture.to(place), margin)).items():
            x = padding.crop(padded, margin // rows[name].stride)
            vectors = normalize(x[0].permute(1, 2, 0).flatten(0, 1).float(), dim=1)
            levels[name] = _Level(vectors, x.shape[2], x.shape[3], rows[name])
    return _Seen(levels, (width, height), (picture.shape[3], picture.shape[2]))


def _mutual(a: _Level, b: _Level, ratio: float) -> _Pairs:
    """Mutual nearest neighbours that pass the ratio test in both directions."""
    to_b, ratio_ab = _nearest(a.rows, b.rows, ratio)
    to_a, ratio_ba = _nearest(b.rows, a.rows, ratio)
    index = torch.arange(len(to_b), device=to_b.device)
    found = index[(to_b >= 0) & (to_a[to_b] == index)]
    partner = to_b[found]
    cosines = (a.rows[found] * b.rows[partner]).sum(1)
    places = [torch.stack([i % level.width, i // level.width], 1) for i, level in ((found, a), (partner, b))]
    return _Pairs(places[0], places[1], cosines, torch.maximum(ratio_ab[found], ratio_ba[partner]))


def _nearest(rows: Tensor, others: Tensor, ratio: float) -> tuple[Tensor, Tensor]:
    """For each of `rows` its nearest of `others`, or -1 where that fails the ratio test, and its ratio."""
    nearest = torch.full((len(rows),), -1, device=rows.device)
    ratios = torch.ones(len(rows), device=rows.device)
    start = 0
    for part in _parts(rows, max(1, _MOST_DISTANCES // len(others))):
        found, pairs = match_snn(part, others, ratio)
        nearest[start + pairs[:, 0]] = pairs[:, 1]
        ratios[start + pairs[:, 0]] = found[:, 0]
        start += len(part)
    return nearest, ratios


def _refined(pairs: _Pairs, coarse: arch.Layer, a: _Level, b: _Level) -> _Pairs:
    """Go on to a finer layer: of the positions within those that matched, the two that are most alike.

    The four positions of `a` about the middle of the coarse one are each compared with nine of `b`, whose shifts
    differ from the pair's by at most one position.
    """
    layer = a.layer
    inside, around = _square(0, 1, pairs.a), _square(-1, 1, pairs.a)
    first = ((pairs.a * coarse.stride + (coarse.offset - layer.offset)) / layer.stride).floor().long()
    shift = (pairs.b - pairs.a) * (coarse.stride // layer.stride)
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    size = max(1, _MOST_GATHERED // (len(inside) * len(around) * a.rows.shape[1]))
    for corner, moved in zip(_parts(first, size), _parts(shift, size), strict=True):
        ours = corner[:, None] + inside
        theirs = (ours + moved[:, None])[:, :, None] + around
        best, which = _cosines(a, ours, b, theirs).flatten(1).max(1)
        pick = torch.arange(len(which), device=which.device)
        found.append((ours[pick, which // len(around)], theirs.flatten(1, 2)[pick, which], best))
    better = [torch.cat(part) for part in zip(*found, strict=True)]
    return _Pairs(better[0], better[1], pairs.cosine + better[2], pairs.ratio)


def _between(pairs: _Pairs, a: _Level, b: _Level) -> Tensor:
    """How far between positions of `b` the likeness to `a` is greatest: (M, 2), each at most half a position.

    A parabola through the cosines at a position and its two neighbours leans to the side where the picture changes
    less, also where two pictures are the same. So what counts is how far its top lies from that which the
    neighbours of the position in `a` itself give. 0 where a position has no two neighbours.
    """
    shifts: list[Tensor] = []
    for axis in (0, 1):
        step = torch.zeros(3, 2, dtype=torch.long, device=pairs.a.device)
        step[:, axis] = torch.arange(-1, 2)
        (there, seen), (own, known) = (
            _top(_along(a, pairs.a, level, positions, step)) for level, positions in ((b, pairs.b), (a, pairs.a))
        )
        shifts.append(torch.where(seen & known, there - own, 0.0).clamp(-0.5, 0.5))
    return torch.stack(shifts, 1)


def _along(a: _Level, ours: Tensor, b: _Level, theirs: Tensor, step: Tensor) -> Tensor:
    """The cosines between (M, 2) positions of `a` and those of `b` plus each of (K, 2) steps: (M, K)."""
    size = max(1, _MOST_GATHERED // (len(step) * a.rows.shape[1]))
    parts = zip(_parts(ours, size), _parts(theirs, size), strict=True)
    return torch.cat([_cosines(a, one[:, None], b, other[:, None, None] + step)[:, 0] for one, other in parts])


def _top(cosines: Tensor) -> tuple[Tensor, Tensor]:
    """Where the parabolas through (M, 3) values at -1, 0, 1 have their tops, and whether they have any."""
    before, here, after = cosines.double().unbind(1)
    curve = before - 2 * here + after
    return (before - after) / (2 * curve), (curve < 0) & (torch.minimum(before, after) > _ABSENT)


def _cosines(a: _Level, ours: Tensor, b: _Level, theirs: Tensor) -> Tensor:
    """Between (M, J, 2) positions of `a` and (M, J, K, 2) of `b`: (M, J, K), `_ABSENT` where one does not exist."""
    (left, here), (right, there) = a.at(ours), b.at(theirs)
    cosines = torch.einsum("mjc,mjkc->mjk", left, right)
    return cosines.masked_fill(~(here[..., None] & there), _ABSENT)


def _parts(x: Tensor, size: int) -> tuple[Tensor, ...]:
    return x.split(size)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] (untyped upstream)


def _square(first: int, last: int, like: Tensor) -> Tensor:
    """The steps of a square: ((last - first + 1)^2, 2)."""
    side = torch.arange(first, last + 1, device=like.device)
    return torch.cartesian_prod(side, side)
