"""Find corresponding points of two pictures by the features of a layer. Public as `vggfeat.match`.

Points are (x, y) in pixels of the original pictures; the centre of the first pixel is (0, 0).
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from math import ceil
from typing import TYPE_CHECKING, Any, NamedTuple, Unpack

import torch
from kornia.feature import match_snn
from torch import Tensor
from torch.nn.functional import normalize

from vggfeat.errors import InputError, LayerError, check_number
from vggfeat.features.device import choose_device
from vggfeat.features.extractor import FeatureExtractor
from vggfeat.features.tensors import values
from vggfeat.files import csv_text
from vggfeat.networks import arch
from vggfeat.networks.weights import Preprocessing
from vggfeat.pictures import images, padding, sources
from vggfeat.pictures.sources import Source

if TYPE_CHECKING:
    from vggfeat.features.device import Precision

# Limits on the distances and on the gathered feature values in memory at a time: 64 MB each.
MOST_DISTANCES = MOST_GATHERED = 2**24

# Stands for the cosine of a position outside the layer: less than any cosine.
_ABSENT = -2.0


@dataclass(frozen=True, eq=False)
class Matches:
    """Corresponding points of two pictures, by descending score.

    Attributes:
        points_a: (M, 2), float32 on the CPU, (x, y) in pixels of the first original picture; (0, 0) is the centre of
            its first pixel.
        points_b: (M, 2), as `points_a`, of the second picture.
        score: (M,), in [0, 1].
        metadata: the pictures, the network and the options that gave these matches, as JSON types.

    >>> points = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> found = Matches(points, points, torch.tensor([0.9, 0.4]), {})
    >>> len(found), next(found.best(1).rows())
    (2, {'x_a': 1.0, 'y_a': 2.0, 'x_b': 1.0, 'y_b': 2.0, 'score': 0.9})
    """

    points_a: Tensor
    points_b: Tensor
    score: Tensor
    metadata: Mapping[str, Any] = field(repr=False)

    def __len__(self) -> int:
        return len(self.score)

    def best(self, count: int) -> "Matches":
        """The `count` matches of highest score, or all if there are fewer."""
        check_number("the limit", count, 1)
        kept = self.points_a[:count], self.points_b[:count], self.score[:count]
        return replace(self, points_a=kept[0], points_b=kept[1], score=kept[2])

    def rows(self) -> Iterator[dict[str, float]]:
        """x_a, y_a, x_b, y_b and score of each match, rounded to their precision."""
        for (x_a, y_a), (x_b, y_b), score in zip(
            values(self.points_a), values(self.points_b), values(self.score), strict=True
        ):
            yield {
                **{name: round(value, 3) for name, value in (("x_a", x_a), ("y_a", y_a), ("x_b", x_b), ("y_b", y_b))},
                "score": round(score, 5),
            }

    def as_json(self) -> str:
        """The metadata and the matches as JSON."""
        return json.dumps({"metadata": self.metadata, "matches": list(self.rows())}, indent=1, allow_nan=False) + "\n"

    def as_csv(self) -> str:
        """The matches as CSV: a header, then one line for each."""
        return csv_text(["x_a", "y_a", "x_b", "y_b", "score"], [row.values() for row in self.rows()])


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
    **preprocessing: Unpack[Preprocessing],
) -> Matches:
    """Find corresponding points of two pictures by the features of `layer`.

    Two positions match if they are mutual nearest neighbours by cosine similarity and pass Lowe's ratio test in both
    directions: the distance of their unit vectors is at most `ratio` times that to the second nearest (kornia's
    `match_snn`). Matches are then refined through the last ReLU of each finer stride. Each refinement compares the
    finer positions that a matched pair covers, extended in `b` by one position on every side. At the finest layer,
    parabolas through the cosines of neighbours give subpixel positions. The pictures are padded by reflection.

    A score is the mean cosine over the layers used, times one minus the square of the ratio of distances.

    Args:
        a: a file, a (1, 3, H, W) or (3, H, W) tensor in [0, 1], or another `sources.Source`.
        b: as `a`; the sizes may differ.
        layer: one layer. Deeper layers match content rather than texture, with fewer positions.
        network: as for `FeatureExtractor`.
        weights: as for `FeatureExtractor`.
        ratio: above 0, at most 1; 1 keeps all mutual neighbours.
        refine: whether to refine through finer layers; if False, points are centres of receptive fields.
        size: the long side to which a larger picture is shrunk.
        device: `auto` (CUDA, else MPS, else CPU) or a torch device.
        precision: of the network; distances are float32.
        preprocessing: `mean`, `std` and `input_order` of the weights, see `weights.Preprocessing`.

    Raises:
        ImageError: a file cannot be read.
        InputError: a tensor or an option is not allowed.
        LayerError: `layer` does not exist, or names several layers.
        WeightsError: the weights cannot be loaded.

    >>> picture = torch.rand(1, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    >>> found = match(picture, picture, "relu2_1", weights=None, device="cpu")
    >>> torch.allclose(found.points_a, found.points_b)
    True
    """
    if not 0 < ratio <= 1:
        raise InputError(f"the ratio is {ratio:g}: it must be above 0 and at most 1")
    [coarse, *finer] = _coarse_to_fine(network, layer, refine=refine)
    place = choose_device(device)
    names = [layer.name for layer in (coarse, *finer)]
    extract = FeatureExtractor(network, names, weights=weights, device=place, precision=precision, **preprocessing)
    described_a, described_b = (_describe(source, role, extract, size, place) for source, role in ((a, "a"), (b, "b")))
    with torch.inference_mode():
        pairs = _mutual(described_a.levels[coarse.name], described_b.levels[coarse.name], ratio)
        finest = coarse
        for step in finer:
            pairs = _refined(pairs, finest, described_a.levels[step.name], described_b.levels[step.name])
            finest = step
        shift = _subpixel_shift(pairs, described_a.levels[finest.name], described_b.levels[finest.name]) if finer else 0
        score = pairs.cosine / (1 + len(finer)) * (1 - pairs.ratio**2)
        order = score.argsort(descending=True, stable=True)
        points_a = described_a.original(pairs.a * finest.stride + finest.offset, order)
        points_b = described_b.original((pairs.b + shift) * finest.stride + finest.offset, order)
    about = {
        "a": {"name": sources.name(a), "width": described_a.size[0], "height": described_a.size[1]},
        "b": {"name": sources.name(b), "width": described_b.size[0], "height": described_b.size[1]},
        "coordinates": "x, y in pixels of the original pictures; the centre of the first pixel is 0, 0",
        "network": network,
        "weights": extract.weights_entry.name,
        "mean": list(extract.weights_entry.mean),
        "std": list(extract.weights_entry.std),
        "input_order": extract.weights_entry.input_order,
        "layer": coarse.name,
        "refined": names[1:],
        "ratio": ratio,
        "size": size,
        "precision": extract.precision,
        "vggfeat": version("vggfeat"),
    }
    return Matches(points_a, points_b, score[order].clamp(0, 1).cpu(), about)


class _Level(NamedTuple):
    """One layer's features of a picture as unit vectors, (h * w, C)."""

    vectors: Tensor
    height: int
    width: int
    layer: arch.Layer

    def at(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """The vectors at (..., 2) positions (x, y), and whether each position exists."""
        x, y = positions.unbind(-1)
        exists = (x >= 0) & (x < self.width) & (y >= 0) & (y < self.height)
        return self.vectors[y.clamp(0, self.height - 1) * self.width + x.clamp(0, self.width - 1)], exists


class _Described(NamedTuple):
    """A picture's features. `size` is (width, height) of the original, `shape` that of the network's input."""

    levels: Mapping[str, _Level]
    size: tuple[int, int]
    shape: tuple[int, int]

    def original(self, places: Tensor, order: Tensor) -> Tensor:
        """Convert positions in the network's input to pixels of the original picture, reordered by `order`."""
        scale = torch.tensor(self.size, dtype=torch.float64) / torch.tensor(self.shape)
        return ((places[order].double().cpu() + 0.5) * scale - 0.5).float()


class _Pairs(NamedTuple):
    """Matched positions (M, 2) of one layer, their cosines summed over the layers so far, their distance ratios."""

    a: Tensor
    b: Tensor
    cosine: Tensor
    ratio: Tensor


def _coarse_to_fine(network: str, layer: str, *, refine: bool) -> list[arch.Layer]:
    """The layer to match by, then the last ReLU of each finer stride, coarse to fine."""
    coarse, *others = arch.find_layers(network, layer)
    if others:
        raise LayerError(f"'{layer}' names {1 + len(others)} layers of {network}: match by one, such as {coarse.name}")
    finer: dict[int, arch.Layer] = {}
    if refine:
        for entry in arch.layers(network)[: coarse.index]:
            if entry.kind == "relu" and entry.stride < coarse.stride:
                finer[entry.stride] = entry
    return [coarse, *reversed(finer.values())]


def _describe(source: Source, role: str, extract: FeatureExtractor, size: int, place: torch.device) -> _Described:
    """The features of a picture. It is padded by reflection, and the features are cropped to the picture.

    Zero padding is the same around every picture, so positions near the border would match each other.
    """
    rgb = sources.read(source, role)
    height, width = rgb.shape[2:]
    picture = images.resize(rgb, *images.fit(height, width, size))
    layers = {layer.name: layer for layer in arch.find_layers(extract.network, extract.layers)}
    deepest = layers[extract.layers[-1]]
    margin = deepest.stride * min(ceil(-deepest.start / deepest.stride), (min(picture.shape[2:]) - 1) // deepest.stride)
    levels: dict[str, _Level] = {}
    with torch.inference_mode():
        for name, padded in extract(padding.mirror_pad(picture.to(place), margin)).items():
            x = padding.crop(padded, margin // layers[name].stride)
            vectors = normalize(x[0].permute(1, 2, 0).flatten(0, 1).float(), dim=1)
            levels[name] = _Level(vectors, x.shape[2], x.shape[3], layers[name])
    return _Described(levels, (width, height), (picture.shape[3], picture.shape[2]))


def _mutual(a: _Level, b: _Level, ratio: float) -> _Pairs:
    """Mutual nearest neighbours that pass the ratio test in both directions."""
    to_b, ratio_ab = _nearest(a.vectors, b.vectors, ratio)
    to_a, ratio_ba = _nearest(b.vectors, a.vectors, ratio)
    index = torch.arange(len(to_b), device=to_b.device)
    found = index[(to_b >= 0) & (to_a[to_b] == index)]
    partner = to_b[found]
    cosines = (a.vectors[found] * b.vectors[partner]).sum(1)
    places = [torch.stack([i % level.width, i // level.width], 1) for i, level in ((found, a), (partner, b))]
    return _Pairs(places[0], places[1], cosines, torch.maximum(ratio_ab[found], ratio_ba[partner]))


def _nearest(vectors: Tensor, others: Tensor, ratio: float) -> tuple[Tensor, Tensor]:
    """The index of each vector's nearest among `others`, or -1 if it fails the ratio test, and its ratio."""
    nearest = torch.full((len(vectors),), -1, device=vectors.device)
    ratios = torch.ones(len(vectors), device=vectors.device)
    start = 0
    for part in vectors.split(max(1, MOST_DISTANCES // len(others))):
        found, pairs = match_snn(part, others, ratio)
        nearest[start + pairs[:, 0]] = pairs[:, 1]
        ratios[start + pairs[:, 0]] = found[:, 0]
        start += len(part)
    return nearest, ratios


def _refined(pairs: _Pairs, coarse: arch.Layer, a: _Level, b: _Level) -> _Pairs:
    """Refine pairs in a finer layer: choose the most similar two positions inside each coarse pair.

    Four positions of `a` around the centre of the coarse one are each compared with nine of `b`: the position at the
    pair's shift and its neighbours.
    """
    layer = a.layer
    inside, around = _square(0, 1, pairs.a), _square(-1, 1, pairs.a)
    first = ((pairs.a * coarse.stride + (coarse.offset - layer.offset)) / layer.stride).floor().long()
    shift = (pairs.b - pairs.a) * (coarse.stride // layer.stride)
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    size = max(1, MOST_GATHERED // (len(inside) * len(around) * a.vectors.shape[1]))
    for corner, moved in zip(first.split(size), shift.split(size), strict=True):
        ours = corner[:, None] + inside
        theirs = (ours + moved[:, None])[:, :, None] + around
        best, which = _cosines(a, ours, b, theirs).flatten(1).max(1)
        pick = torch.arange(len(which), device=which.device)
        found.append((ours[pick, which // len(around)], theirs.flatten(1, 2)[pick, which], best))
    better = [torch.cat(part) for part in zip(*found, strict=True)]
    return _Pairs(better[0], better[1], pairs.cosine + better[2], pairs.ratio)


def _subpixel_shift(pairs: _Pairs, a: _Level, b: _Level) -> Tensor:
    """The subpixel offset in `b` where the similarity to `a` is largest: (M, 2), at most half a position each.

    The vertex of a parabola through the cosines at a position and its two neighbours is biased to the side where the
    picture changes less, even between identical pictures. The vertex that `a` gives with itself is therefore
    subtracted. The offset is 0 for a position without two neighbours.
    """
    shifts: list[Tensor] = []
    for axis in (0, 1):
        step = torch.zeros(3, 2, dtype=torch.long, device=pairs.a.device)
        step[:, axis] = torch.arange(-1, 2)
        (there, exists), (own, known) = (
            _vertex(_along(a, pairs.a, level, positions, step)) for level, positions in ((b, pairs.b), (a, pairs.a))
        )
        shifts.append(torch.where(exists & known, there - own, 0.0).clamp(-0.5, 0.5))
    return torch.stack(shifts, 1)


def _along(a: _Level, ours: Tensor, b: _Level, theirs: Tensor, step: Tensor) -> Tensor:
    """The cosines between (M, 2) positions of `a` and those of `b` plus each of (K, 2) steps: (M, K)."""
    size = max(1, MOST_GATHERED // (len(step) * a.vectors.shape[1]))
    parts = zip(ours.split(size), theirs.split(size), strict=True)
    return torch.cat([_cosines(a, one[:, None], b, other[:, None, None] + step)[:, 0] for one, other in parts])


def _vertex(cosines: Tensor) -> tuple[Tensor, Tensor]:
    """The maxima of parabolas through (M, 3) values at -1, 0, 1, and whether they have one."""
    before, here, after = cosines.double().unbind(1)
    curve = before - 2 * here + after
    return (before - after) / (2 * curve), (curve < 0) & (torch.minimum(before, after) > _ABSENT)


def _cosines(a: _Level, ours: Tensor, b: _Level, theirs: Tensor) -> Tensor:
    """Cosines (M, J, K) between (M, J, 2) positions of `a` and (M, J, K, 2) of `b`, `_ABSENT` if one does not exist."""
    (left, here), (right, there) = a.at(ours), b.at(theirs)
    cosines = torch.einsum("mjc,mjkc->mjk", left, right)
    return cosines.masked_fill(~(here[..., None] & there), _ABSENT)


def _square(first: int, last: int, like: Tensor) -> Tensor:
    """The offsets in a square: ((last - first + 1)^2, 2)."""
    side = torch.arange(first, last + 1, device=like.device)
    return torch.cartesian_prod(side, side)
