"""Feature visualisation: pictures, painted from noise, that a channel, a neuron or a direction responds to most."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vggfeat.errors import InputError, LayerError, check_number
from vggfeat.features import tensors
from vggfeat.features.device import Precision, choose_device, settings
from vggfeat.features.extractor import FeatureExtractor
from vggfeat.losses import formulas
from vggfeat.networks import arch
from vggfeat.transfer.loop import Progress
from vggfeat.transfer.spectrum import Spectrum

# Pictures are padded with grey by this many pixels, then shifted, scaled and turned at random in each step.
_PADDING = 12

# The learning rate of Adam.
_RATE = 0.05

# The share of a negative activation that counts, so that a channel that is still off has a gradient.
_LEAK = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class Aim:
    """The target of a visualisation: a layer, and a direction (C,) of length 1 in its channels.

    `neuron` asks for the position in the middle only. `cosine` weights the response by its cosine with the direction,
    which keeps other channels quiet.
    """

    layer: arch.Layer
    direction: Tensor
    neuron: bool = False
    cosine: bool = False

    def response(self, x: Tensor) -> Tensor:
        """The response along the direction at each position: (N, C, h, w) to (N, h, w)."""
        return torch.einsum("nchw,c->nhw", x, self.direction)

    def score(self, x: Tensor) -> Tensor:
        """The score that the ascent raises: (N,)."""
        along = F.leaky_relu(self.response(x), _LEAK)
        if self.cosine:
            along = along * (along / x.norm(dim=1).clamp_min(1e-6)).clamp_min(_LEAK)
        if self.neuron:
            return along[:, along.shape[1] // 2, along.shape[2] // 2]
        return along.mean((1, 2))


def parse_aim(
    network: str,
    layer: str,
    *,
    channel: int | None = None,
    direction: Sequence[float] | Tensor | None = None,
    neuron: bool = False,
) -> Aim:
    """The aim of `visualize`. Raises `LayerError` for an unknown layer or channel, `InputError` for a direction."""
    found = arch.find_layers(network, layer)
    if len(found) != 1:
        raise LayerError(f"a visualisation is of one layer, and '{layer}' names {len(found)}")
    [place] = found
    if (channel is None) == (direction is None):
        raise InputError("name a channel or a direction, one of them")
    if direction is None:
        assert channel is not None  # noqa: S101 (one of the two is)
        if not 0 <= channel < place.channels:
            raise LayerError(f"{place.name} of {network} has the channels 0 to {place.channels - 1}, not {channel}")
        return Aim(place, F.one_hot(torch.tensor(channel), place.channels).float(), neuron)
    vector = torch.as_tensor(direction).detach().float().cpu()
    if vector.shape != (place.channels,) or not vector.isfinite().all() or not vector.norm() > 0:
        raise InputError(
            f"the direction is {tuple(vector.shape)}: {place.name} needs {place.channels} finite numbers, not all 0"
        )
    return Aim(place, vector / vector.norm(), neuron, cosine=True)


class Visualization:
    """A visualisation in progress, as `visualize` returns it.

    Iterate over it for `Progress`, whose `image` is (count, 3, size, size), or call `result()`. `image` holds the
    pictures so far, and `responses()` how strongly they activate the aim.

    Args:
        extract: the network, with the aim's layer and the one before its ReLU.
        raised: the layer whose response is raised: the aim's, or the one before its ReLU.
        aim: what to activate.
        count, size, steps, diversity, seed: as in `visualize`.

    Example:
        >>> from vggfeat.transfer.visualize import visualize
        >>> run = visualize("relu1_1", channel=3, size=32, steps=2)
        >>> [(progress.step, progress.steps, tuple(progress.image.shape)) for progress in run]
        [(1, 2, (1, 3, 32, 32)), (2, 2, (1, 3, 32, 32))]
    """

    def __init__(
        self,
        extract: FeatureExtractor,
        raised: str,
        aim: Aim,
        *,
        count: int,
        size: int,
        steps: int,
        diversity: float,
        seed: int,
        device: torch.device,
    ) -> None:
        self.aim = Aim(aim.layer, aim.direction.to(device), aim.neuron, aim.cosine)
        self._extract, self._raised = extract, raised
        self._count, self._steps, self._diversity = count, steps, diversity
        self._spectrum = Spectrum(count, size, size, seed=seed).to(device)
        self._generator = torch.Generator().manual_seed(seed)
        self._device = device
        self._progress = self._run()

    @property
    def image(self) -> Tensor:
        """The pictures so far: (count, 3, size, size) in [0, 1], on the run's device."""
        with torch.no_grad():
            return self._spectrum()

    def __iter__(self) -> Iterator[Progress]:
        return self._progress

    def result(self) -> Tensor:
        """Run to the end and return the pictures."""
        for _ in self._progress:
            pass
        return self.image

    def responses(self) -> list[float]:
        """The largest response of the aim's layer in each picture as it is, over all positions."""
        with torch.no_grad(), settings(self._device, "float32"):
            found = self._extract(self.image)[self.aim.layer.name].float()
        return self.aim.response(found).amax((1, 2)).tolist()

    def _run(self) -> Iterator[Progress]:
        began = time.monotonic()
        optimiser = torch.optim.Adam(self._spectrum.parameters(), lr=_RATE)
        for step in range(1, self._steps + 1):
            with torch.inference_mode(False), torch.enable_grad(), settings(self._device, "float32"):
                images = self._spectrum()
                x = tensors.at_least_float32(self._extract(_moved(images, self._generator))[self._raised])
                terms = {"activation": -self.aim.score(x).sum()}
                if self._diversity and self._count > 1:
                    terms["diversity"] = self._diversity * _likeness(x)
                optimiser.zero_grad()
                torch.stack(list(terms.values())).sum().backward()
                optimiser.step()
            yield Progress(
                stage=1,
                stages=1,
                step=step,
                steps=self._steps,
                taken=step,
                seconds=time.monotonic() - began,
                done=step / self._steps,
                image=self.image,
                terms={name: term.detach() for name, term in terms.items()},
            )


def visualize(
    layer: str,
    *,
    channel: int | None = None,
    direction: Sequence[float] | Tensor | None = None,
    neuron: bool = False,
    count: int = 1,
    diversity: float = 1.0,
    size: int = 224,
    steps: int = 256,
    network: str = "vgg16",
    weights: Any = "default",
    seed: int = 0,
    device: str = "auto",
    precision: Precision = "float32",
) -> Visualization:
    """Paint pictures from noise that a channel of a layer responds to.

    Gradient ascent on the pictures' Fourier coefficients, in decorrelated colours, while they are shifted, scaled and
    turned at random (Olah, Mordvintsev & Schubert, 2017).

    Args:
        layer: such as `relu4_3`. Of a ReLU, the values before it are raised, which have a gradient everywhere.
        channel: the channel to activate, counted from 0.
        direction: instead of a channel: (C,), a direction among the channels.
        neuron: activate the position in the middle only, instead of all positions.
        count: the number of pictures, which start from different noise.
        diversity: how strongly several pictures are made to differ, by their Gram matrices; 0 is not at all.
        size: side of the pictures in pixels.
        steps: of the ascent.
        network: the name of the network.
        weights: the name of a weights entry, a file, a state dict, or None for random weights.
        seed: of the noise and the random changes.
        device: `auto` (CUDA, else MPS, else CPU) or a torch device.
        precision: of the network.

    Raises `LayerError`, `InputError`, `WeightsError`.

    >>> run = visualize("relu2_1", channel=5, size=32, steps=8, count=2)
    >>> before, after = run.responses(), (run.result(), run.responses())[1]
    >>> after > before
    True
    """
    aim = parse_aim(network, layer, channel=channel, direction=direction, neuron=neuron)
    least = max(16, aim.layer.minimum_size)
    for name, value, low, high in (
        ("count", count, 1, 64),
        ("diversity", diversity, 0.0, 1e6),
        ("size", size, least, 4096),
        ("steps", steps, 1, 100_000),
    ):
        check_number(name, value, low, high)
    place = choose_device(device)
    before = [each for each in arch.layers(arch.network(network)) if each.index == aim.layer.index - 1]
    raised = before[0].name if aim.layer.kind == "relu" and before else aim.layer.name
    layers = list(dict.fromkeys([raised, aim.layer.name]))
    extract = FeatureExtractor(network, layers, weights=weights, check="off", device=place, precision=precision)
    return Visualization(
        extract, raised, aim, count=count, size=size, steps=steps, diversity=diversity, seed=seed, device=place
    )


def _moved(images: Tensor, generator: torch.Generator) -> Tensor:
    """Pad pictures with grey, and shift by up to 8 pixels, scale by up to a tenth and turn by up to 8 degrees each."""
    padded = F.pad(images, (_PADDING,) * 4, value=0.5)
    count, _, height, width = padded.shape
    shift, scale, angle = (torch.rand(count, 2, generator=generator) * 2 - 1 for _ in range(3))
    turn, size = math.radians(8) * angle[:, 0], 1 + 0.1 * scale[:, 0]
    move = 16 * shift / torch.tensor([width, height])
    rows = [
        torch.stack([turn.cos() / size, -turn.sin() / size, move[:, 0]], 1),
        torch.stack([turn.sin() / size, turn.cos() / size, move[:, 1]], 1),
    ]
    grid = F.affine_grid(torch.stack(rows, 1).to(images.device), list(padded.shape), align_corners=False)
    return F.grid_sample(padded, grid.to(padded.dtype), padding_mode="reflection", align_corners=False)


def _likeness(x: Tensor) -> Tensor:
    """The mean cosine of the Gram matrices of different pictures, times their number."""
    grams = F.normalize(formulas.gram(x).flatten(1), dim=1)
    cosines = grams @ grams.mT
    return (cosines.sum() - cosines.diagonal().sum()) / max(1, len(x) - 1)
