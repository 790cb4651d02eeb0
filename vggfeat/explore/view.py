"""Pictures of features: channels, heat maps, principal components and receptive fields.

`inspect` runs the network once; the other functions paint from its result. Pictures are (N, 3, H, W) in [0, 1].

>>> found = inspect(torch.rand(1, 3, 32, 48), "relu2_1", weights=None, device="cpu")
>>> channel_maps(found.features["relu2_1"], [0, 5]).shape
torch.Size([2, 3, 16, 24])
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, Unpack, get_args

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from vggfeat.errors import InputError, check_number, one_of
from vggfeat.explore import colours
from vggfeat.features.device import choose_device
from vggfeat.features.extractor import FeatureExtractor
from vggfeat.networks import arch
from vggfeat.networks.weights import Preprocessing
from vggfeat.pictures import images, sources
from vggfeat.pictures.sources import Source

if TYPE_CHECKING:
    from vggfeat.features.device import Precision

Scale = Literal["channel", "layer"]

# Heat maps and principal components clip this share of positions at both ends of their colours. Otherwise a few
# positions, mostly at the border, leave the rest dark.
_OUTLIERS = 0.005

# This share of a channel's activations is clipped to white. With its maximum as white, most channels are nearly black.
_BRIGHTEST = 0.01


@dataclass(frozen=True, eq=False)
class Inspection:
    """A picture and its features.

    Attributes:
        picture: (1, 3, H, W), the input of the network.
        features: {layer: (1, C, h, w)} in float32, on the CPU.
        layers: the layers of `features`, as entries of the layer table.
        size: (width, height) of the original picture.
        title: the name of the picture.
        weights: the names of the network and its weights.
    """

    picture: Tensor
    features: Mapping[str, Tensor] = field(repr=False)
    layers: tuple[arch.Layer, ...]
    size: tuple[int, int]
    title: str
    weights: str

    def pixel(self, x: float, y: float) -> tuple[float, float]:
        """Convert a position (x, y) of the original picture to one of the network's input.

        (0, 0) is the centre of the first pixel of either. Raises `InputError` for a position outside the picture.
        """
        width, height = self.size
        if not (0 <= x < width and 0 <= y < height):
            raise InputError(
                f"position {x:g},{y:g} lies outside the picture: x is 0 to {width - 1}, y 0 to {height - 1}"
            )
        input_height, input_width = self.picture.shape[2:]
        return (x + 0.5) * input_width / width - 0.5, (y + 0.5) * input_height / height - 0.5


def inspect(
    source: Source,
    layers: str | Iterable[str],
    network: str = "vgg16",
    *,
    weights: str | os.PathLike[str] | None = "default",
    size: int = 512,
    device: str = "auto",
    precision: "Precision" = "float32",
    **preprocessing: Unpack[Preprocessing],
) -> Inspection:
    """Run a network over a picture and keep the features of `layers`.

    Args:
        source: a file, a (1, 3, H, W) or (3, H, W) tensor in [0, 1], or another `sources.Source`.
        layers: names or globs, as for `FeatureExtractor`.
        network: as for `FeatureExtractor`.
        weights: as for `FeatureExtractor`.
        size: the long side to which a larger picture is shrunk.
        device: `auto` (CUDA, else MPS, else CPU) or a torch device.
        precision: of the network.
        preprocessing: `mean`, `std` and `input_order` of the weights, see `weights.Preprocessing`.

    Raises `ImageError`, `InputError`, `LayerError`, `WeightsError`.

    >>> found = inspect(torch.rand(1, 3, 32, 48), "relu1_1,relu2_1", weights=None, device="cpu")
    >>> found.features["relu2_1"].shape
    torch.Size([1, 128, 16, 24])
    """
    place = choose_device(device)
    extract = FeatureExtractor(network, layers, weights=weights, device=place, precision=precision, **preprocessing)
    rgb = sources.read(source)
    height, width = rgb.shape[2:]
    picture = images.resize(rgb, *images.fit(height, width, size))
    with torch.inference_mode():
        features = {name: x.float().cpu() for name, x in extract(picture.to(place)).items()}
    # Linear layers have one position.
    features = {name: x if x.ndim == 4 else x[:, :, None, None] for name, x in features.items()}
    found = tuple(extract.feature_info)
    return Inspection(picture, features, found, (width, height), sources.name(source), str(extract.weights_entry))


look = inspect  # the name in 0.1


def most_active(features: Tensor, count: int) -> tuple[int, ...]:
    """The `count` channels of (1, C, h, w) with the largest mean magnitude, in descending order.

    >>> most_active(torch.tensor([1.0, -3.0, 2.0]).reshape(1, 3, 1, 1), 2)
    (1, 2)
    """
    check_number("top", count, 1)
    activity = features[0].abs().mean((1, 2))
    return tuple(int(channel) for channel in activity.argsort(descending=True, stable=True)[:count])


def channel_maps(features: Tensor, channels: Sequence[int], *, scale: Scale = "channel") -> Tensor:
    """Paint channels of (1, C, h, w) as (n, 3, h, w).

    Black is 0. White is the 99th percentile of the nonzero magnitudes, of each channel or, with `scale="layer"`, of the
    layer. If the layer has negative values, they are blue and positive values orange.

    Raises `InputError` for a channel that does not exist.

    >>> channel_maps(torch.rand(1, 8, 4, 6), [0, 5]).shape
    torch.Size([2, 3, 4, 6])
    """
    one_of("scale", scale, get_args(Scale))
    count = features.shape[1]
    if missing := [channel for channel in channels if not 0 <= channel < count]:
        raise InputError(f"there is no channel {missing[0]}: choose from 0 to {count - 1}")
    chosen = features[0, list(channels)][:, None]
    tops = [_top(features)] * len(channels) if scale == "layer" else [_top(channel) for channel in chosen]
    shares = (chosen / torch.tensor(tops).reshape(-1, 1, 1, 1)).clamp(-1, 1)
    paint = colours.signed if features.min() < 0 else colours.heat
    return paint(shares)


def mean_heat(features: Tensor) -> Tensor:
    """The mean magnitude of all channels, stretched to [0, 1]: (1, 1, h, w). All zero if it is constant.

    >>> mean_heat(torch.rand(1, 8, 4, 6)).shape
    torch.Size([1, 1, 4, 6])
    """
    return _stretched(features.abs().mean(1, keepdim=True))


class Components(NamedTuple):
    """The first three principal components of a layer's channels over its positions.

    `rgb` is (1, 3, h, w), each component stretched to [0, 1]; `variance` is the share of the layer's variance that each
    component explains.
    """

    rgb: Tensor
    variance: tuple[float, float, float]


def components(features: Tensor) -> Components:
    """The principal components of (1, C, h, w) as colours: positions with similar features have similar colours.

    The sign of a component is chosen so that its weight of largest magnitude is positive. A component without variance,
    as in a picture of one colour, is grey.

    >>> components(torch.rand(1, 8, 4, 6)).rgb.shape
    torch.Size([1, 3, 4, 6])
    """
    _, channels, height, width = features.shape
    points = features[0].flatten(1).double()
    points = points - points.mean(1, keepdim=True)
    values, vectors = torch.linalg.eigh(points @ points.mT)  # ascending
    axes = vectors[:, -3:].flip(1)
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    scores = (axes * largest.sign()).mT @ points
    found = values[-3:].flip(0).clamp_min(0)
    total = values.clamp_min(0).sum()
    shares = found / total if total > 0 else found
    # Rounding leaves a little variance where there is none.
    exists = (found > 1e-12 * total) & (total > 1e-12 * channels * height * width)
    rgb = torch.where(exists[:, None, None], _stretched(scores.reshape(1, 3, height, width)), 0.5)
    return Components(rgb.float(), (float(shares[0]), float(shares[1]), float(shares[2])))


def at_pixels(x: Tensor, layer: arch.Layer, height: int, width: int) -> Tensor:
    """Resample a layer's (1, C, h, w) to the pixels of its (height, width) input: (1, C, height, width).

    Each position's value is at the centre of its receptive field; values between are bilinear.

    >>> from vggfeat.networks import arch
    >>> at_pixels(torch.rand(1, 128, 4, 6), arch.find_layers("vgg16", "relu2_1")[0], 8, 12).shape
    torch.Size([1, 128, 8, 12])
    """
    sides: list[Tensor] = []
    for pixels, positions in ((width, x.shape[3]), (height, x.shape[2])):
        place = (torch.arange(pixels) - layer.offset) / layer.stride
        sides.append((2 * place + 1) / positions - 1)
    grid = torch.stack(torch.meshgrid(*sides, indexing="xy"), dim=-1)[None]
    return grid_sample(x, grid, padding_mode="border", align_corners=False)


class Field(NamedTuple):
    """The receptive field of position (x, y) of a layer: pixels from (left, top) up to, not including, (right, bottom).

    Pixels outside the picture are padding.
    """

    x: int
    y: int
    left: int
    top: int
    right: int
    bottom: int


def field_of(layer: arch.Layer, x: int, y: int) -> Field:
    """The receptive field of position (x, y) of a layer.

    >>> field_of(arch.find_layers("vgg16", "relu1_1")[0], 5, 0)
    Field(x=5, y=0, left=4, top=-1, right=7, bottom=2)
    """
    across, down = layer.span(x), layer.span(y)
    return Field(x, y, across.start, down.start, across.stop, down.stop)


def receptive_field(found: Inspection, layer: arch.Layer, at: tuple[float, float]) -> Field:
    """The receptive field of the position of `layer` nearest to pixel `at`, (x, y) of the original picture.

    Raises `InputError` for a pixel outside the picture.

    >>> found = inspect(torch.rand(1, 3, 32, 48), "relu2_1", weights=None, device="cpu")
    >>> receptive_field(found, found.layers[0], (20, 10))
    Field(x=10, y=5, left=16, top=6, right=26, bottom=16)
    """
    height, width = found.features[layer.name].shape[2:]
    x, y = (
        min(max(layer.position(pixel), 0), positions - 1)
        for pixel, positions in zip(found.pixel(*at), (width, height), strict=True)
    )
    return field_of(layer, x, y)


def _top(x: Tensor) -> float:
    """The magnitude that the largest `_BRIGHTEST` share of nonzero values exceeds; 1 if there are none."""
    active = x[x != 0].abs()
    if not len(active):
        return 1.0
    return float(active.kthvalue(max(1, round((1 - _BRIGHTEST) * len(active)))).values)


def _stretched(x: Tensor) -> Tensor:
    """Stretch each channel of (1, C, h, w) to [0, 1], its outliers clipped."""
    flat = x.flatten(2)
    last = flat.shape[2] - 1
    ordered = flat.sort(dim=2).values
    cut = round(_OUTLIERS * last)
    low, high = ordered[..., cut, None, None], ordered[..., last - cut, None, None]
    return ((x - low) / (high - low).clamp_min(torch.finfo(x.dtype).tiny)).clamp(0, 1)
