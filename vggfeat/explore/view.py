"""Pictures of features: channels, heat maps, principal components, receptive fields, and a sheet of them all.

`look` runs the network once; what follows paints from its result. Every picture is (N, 3, H, W) in [0, 1].
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from vggfeat.errors import InputError, near
from vggfeat.explore import colours
from vggfeat.features.device import choose_device
from vggfeat.features.extractor import FeatureExtractor
from vggfeat.networks import arch
from vggfeat.pictures import images, sources
from vggfeat.pictures.sources import Source

if TYPE_CHECKING:
    from vggfeat.features.device import Precision

Scale = Literal["channel", "layer"]

# The share of positions that heat maps and principal components leave out at either end of their colours: a few
# positions, above all at the border, would leave the rest dark.
_OUTLIERS = 0.005

# The share of a channel's activations that is white: from the largest alone, most channels would be all but black.
_BRIGHTEST = 0.01


@dataclass(frozen=True, eq=False)
class Seen:
    """What a network made of a picture.

    `picture`: (1, 3, H, W), as the network saw it. `features`: {layer: (1, C, h, w)} in float32, on the CPU. `layers`:
    their rows of the layer table. `size`: (width, height) of the picture as it came. `title` names it, `weights` the
    network and its weights.
    """

    picture: Tensor
    features: Mapping[str, Tensor] = field(repr=False)
    layers: tuple[arch.Layer, ...]
    size: tuple[int, int]
    title: str
    weights: str

    def pixel(self, x: float, y: float) -> tuple[float, float]:
        """A pixel of the picture as it came, in those of the picture as it was seen. (0, 0) is the first's centre.

        Raises `InputError` for one outside the picture.
        """
        width, height = self.size
        if not (0 <= x < width and 0 <= y < height):
            raise InputError(
                f"position {x:g},{y:g} lies outside the picture: x is 0 to {width - 1}, y 0 to {height - 1}"
            )
        seen_height, seen_width = self.picture.shape[2:]
        return (x + 0.5) * seen_width / width - 0.5, (y + 0.5) * seen_height / height - 0.5


def look(
    source: Source,
    layers: str | Iterable[str],
    network: str = "vgg16",
    *,
    weights: str | os.PathLike[str] | None = "default",
    size: int = 512,
    device: str = "auto",
    precision: "Precision" = "float32",
) -> Seen:
    """Run `network` over a picture, and keep what `layers` made of it.

    `source`: a file, or a (1, 3, H, W) or (3, H, W) tensor in [0, 1]. `layers`: names or globs, as the
    `FeatureExtractor` takes them, and likewise `weights` and `precision`. `size`: the long side at which the picture is
    seen; a smaller one is not enlarged.

    Raises `ImageError`, `InputError`, `LayerError`, `WeightsError`.
    """
    place = choose_device(device)
    extract = FeatureExtractor(network, layers, weights=weights, device=place, precision=precision)
    rgb = sources.read(source)
    height, width = rgb.shape[2:]
    picture = images.resize(rgb, *images.fit(height, width, size))
    with torch.inference_mode():
        features = {name: x.float().cpu() for name, x in extract(picture.to(place)).items()}
    rows = arch.find_layers(extract.network, list(features))
    return Seen(picture, features, rows, (width, height), sources.name(source), str(extract.weights_entry))


def most_active(features: Tensor, count: int) -> tuple[int, ...]:
    """The `count` channels of (1, C, h, w) with the greatest mean magnitude, the greatest first; at most all."""
    if count < 1:
        raise InputError(f"top is {count}: it is at least 1")
    activity = features[0].abs().mean((1, 2))
    return tuple(int(channel) for channel in activity.argsort(descending=True, stable=True)[:count])


def channel_maps(features: Tensor, channels: Sequence[int], *, scale: Scale = "channel") -> Tensor:
    """Paint channels of (1, C, h, w): (n, 3, h, w).

    From black at 0 to white at the value that one in a hundred of the channel's activations exceeds, or of the
    layer's if `scale` says so; those that are 0 do not count. Where the layer has values below 0 these are blue, and
    those above it orange.

    Raises `InputError` for a channel that does not exist.
    """
    if scale not in get_args(Scale):
        raise InputError(f"unknown scale '{scale}': {near(scale, get_args(Scale))}")
    count = features.shape[1]
    if missing := [channel for channel in channels if not 0 <= channel < count]:
        raise InputError(f"there is no channel {missing[0]}: there are 0 to {count - 1}")
    chosen = features[0, list(channels)][:, None]
    tops = [_top(features)] * len(channels) if scale == "layer" else [_top(channel) for channel in chosen]
    shares = (chosen / torch.tensor(tops).reshape(-1, 1, 1, 1)).clamp(-1, 1)
    paint = colours.signed if features.min() < 0 else colours.heat
    return paint(shares)


def mean_heat(features: Tensor) -> Tensor:
    """The mean magnitude of all channels, stretched to [0, 1]: (1, 1, h, w). Zero where it is the same everywhere."""
    return _stretched(features.abs().mean(1, keepdim=True))


class Components(NamedTuple):
    """The first three principal components of a layer's channels, over its positions.

    `rgb`: (1, 3, h, w), each component stretched to [0, 1]. `variance`: the share of the layer's variance in each.
    """

    rgb: Tensor
    variance: tuple[float, float, float]


def components(features: Tensor) -> Components:
    """The principal components of (1, C, h, w) as colours: what looks alike to the layer has the same colour.

    The sign of a component, which the definition leaves open, makes its weight of largest magnitude positive. A
    component that does not exist, as in a picture of one colour, is grey.
    """
    _, channels, height, width = features.shape
    points = features[0].flatten(1).double()
    points = points - points.mean(1, keepdim=True)
    values, vectors = _eigen(points @ points.mT)
    axes = vectors[:, -3:].flip(1)
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    scores = (axes * largest.sign()).mT @ points
    found = values[-3:].flip(0).clamp_min(0)
    total = values.clamp_min(0).sum()
    shares = found / total if total > 0 else found
    # What rounding leaves where there is no variance is not a component.
    exists = (found > 1e-12 * total) & (total > 1e-12 * channels * height * width)
    rgb = torch.where(exists[:, None, None], _stretched(scores.reshape(1, 3, height, width)), 0.5)
    return Components(rgb.float(), (float(shares[0]), float(shares[1]), float(shares[2])))


def at_pixels(x: Tensor, layer: arch.Layer, height: int, width: int) -> Tensor:
    """A layer's (1, C, h, w) laid over the (height, width) picture it was made of: (1, C, height, width).

    Each position's value stands at the middle of what it sees, with bilinear steps between them.
    """
    sides: list[Tensor] = []
    for pixels, positions in ((width, x.shape[3]), (height, x.shape[2])):
        place = (torch.arange(pixels) - layer.offset) / layer.stride
        sides.append((2 * place + 1) / positions - 1)
    grid = torch.stack(torch.meshgrid(*sides, indexing="xy"), dim=-1)[None]
    return grid_sample(x, grid, padding_mode="border", align_corners=False)


class Field(NamedTuple):
    """The pixels that one position of a layer sees: those from (left, top) to before (right, bottom).

    Those outside the picture are padding. `x` and `y` are the position.
    """

    x: int
    y: int
    left: int
    top: int
    right: int
    bottom: int


def receptive_field(seen: Seen, layer: arch.Layer, at: tuple[float, float]) -> Field:
    """What the position of `layer` nearest to a pixel sees. `at`: (x, y) of the picture as it came."""
    height, width = seen.features[layer.name].shape[2:]
    x, y = (
        min(max(layer.position(pixel), 0), positions - 1)
        for pixel, positions in zip(seen.pixel(*at), (width, height), strict=True)
    )
    across, down = layer.span(x), layer.span(y)
    return Field(x, y, across.start, down.start, across.stop, down.stop)


def _top(x: Tensor) -> float:
    """The magnitude that a share of the values other than 0 exceeds; 1 where there are none."""
    active = x[x != 0].abs()
    if not len(active):
        return 1.0
    return float(active.kthvalue(max(1, round((1 - _BRIGHTEST) * len(active)))).values)


def _stretched(x: Tensor) -> Tensor:
    """Each channel of (1, C, h, w) from [0, 1], its outliers cut off."""
    flat = x.flatten(2)
    last = flat.shape[2] - 1
    ordered = flat.sort(dim=2).values
    cut = round(_OUTLIERS * last)
    low, high = ordered[..., cut, None, None], ordered[..., last - cut, None, None]
    return ((x - low) / (high - low).clamp_min(torch.finfo(x.dtype).tiny)).clamp(0, 1)


def _eigen(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """The eigenvalues of a symmetric matrix, the least first, and its eigenvectors in columns."""
    return torch.linalg.eigh(matrix)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] (untyped)
