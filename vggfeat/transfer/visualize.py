"""Feature visualisation: pictures, painted from noise, that a channel, a neuron or a direction responds to most."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor

from vggfeat.errors import InputError, LayerError, check_number
from vggfeat.features import tensors
from vggfeat.features.device import Precision, choose_device
from vggfeat.features.extractor import FeatureExtractor
from vggfeat.losses.base import FeatureLoss
from vggfeat.losses.gram import GramLoss
from vggfeat.networks import arch
from vggfeat.networks.weights import Preprocessing
from vggfeat.transfer import memory
from vggfeat.transfer.loop import Run, conditions
from vggfeat.transfer.objective import Term, WeightedLoss
from vggfeat.transfer.optimise import Closure, LossAndGradient, Optimiser
from vggfeat.transfer.recipe import Recipe
from vggfeat.transfer.spectrum import Spectrum
from vggfeat.transfer.stages import plan

# Pictures are padded with grey by this many pixels, then shifted, scaled and turned at random in each step.
_PADDING = 12

# The learning rate of Adam.
_RATE = 0.05

# Number of float32 copies of each further picture: of its spectrum, its gradient and Adam's moments among others.
_PICTURES = 12

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


class _Score(FeatureLoss):
    """Minus the score of an aim."""

    aligned = False

    def __init__(self, layer: str, aim: Aim) -> None:
        super().__init__([layer])
        self.local = not aim.neuron
        self._aim = aim

    def summary(self, x: Tensor) -> Tensor:
        """The features in float32."""
        return tensors.at_least_float32(x)

    def distance(self, x: Tensor, target: Tensor) -> Tensor:  # noqa: ARG002 (there is no target)
        """Minus the score: (N,)."""
        return -self._aim.score(x)


class _Response(FeatureLoss):
    """Its target is the response of an aim at each position, (N, 1, h, w)."""

    def __init__(self, aim: Aim) -> None:
        super().__init__([aim.layer.name])
        self._aim = aim

    def summary(self, x: Tensor) -> Tensor:
        """The response."""
        return self._aim.response(tensors.at_least_float32(x))[:, None]


class _Likeness(GramLoss):
    """The sum of the cosines of a Gram matrix with others. The target is the sum of those, each of length 1."""

    def distance(self, x: Tensor, target: Tensor) -> Tensor:
        """The sum: (N,)."""
        return (_unit(x) * target).flatten(1).sum(1)


class SpectralAdam(Optimiser):
    """Adam on the coefficients of a spectrum, whose pictures are the `image`, (count, 3, H, W)."""

    def __init__(self, spectrum: Spectrum, closure: Closure) -> None:
        self._spectrum = spectrum
        self._adam = torch.optim.Adam(spectrum.parameters(), lr=_RATE)
        super().__init__(spectrum().detach(), closure)

    def step(self) -> None:
        """Take one step, and evaluate the objective at the new pictures."""
        self._adam.zero_grad()
        self._spectrum().backward(self.evaluation.gradient)
        self._adam.step()
        self.image = self._spectrum().detach()
        self.evaluation = self._closure(self.image)


class Visualization(Run):
    """A visualisation in progress, as `visualize` returns it.

    Iterate over it for `Progress`, or call `result()`. `image` holds the pictures so far, (count, 3, size, size), and
    `responses()` tells how strongly they activate the aim.

    Args:
        extract: the network, with the aim's layer and the one before its ReLU.
        raised: the layer whose response is raised: the aim's, or the one before its ReLU.
        aim: what to activate.
        recipe: size, steps and seed.
        count, diversity, seconds, memory_limit: as in `visualize`.

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
        recipe: Recipe,
        *,
        count: int,
        diversity: float,
        seconds: float | None,
        memory_limit: int | str | None,
        device: torch.device,
    ) -> None:
        self.aim = Aim(aim.layer, aim.direction.to(device), aim.neuron, aim.cosine)
        size, padded = recipe.size, recipe.size + 2 * _PADDING
        self._raised = raised
        self._diversity = diversity / (count - 1) if count > 1 else 0.0
        self._spectrum = Spectrum(count, size, size, seed=recipe.seed).to(device)
        self._generator = torch.Generator().manual_seed(recipe.seed)
        self._score = Term("activation", 1.0, _Score(raised, self.aim), {raised: torch.zeros(1, 1, device=device)})
        budget = memory.budget(memory_limit, device)
        if budget is not None:
            budget = max(1, budget - (count - 1) * _PICTURES * 3 * 4 * size**2)
        blocks = memory.choose(extract, recipe, padded, padded, budget)
        with torch.no_grad():
            start = self._spectrum()
        super().__init__(recipe, plan(recipe, size, size), extract, start, blocks=[blocks], seconds=seconds)

    def make_optimiser(self, number: int, state: Mapping[str, Tensor] | None) -> Optimiser:  # noqa: ARG002 (one stage)
        """Adam on the spectrum."""
        return SpectralAdam(self._spectrum, self._evaluate)

    def responses(self) -> list[float]:
        """The largest response of the aim's layer in each picture as it is, over all positions."""
        loss = WeightedLoss("response", 1.0, _Response(self.aim))
        with conditions(self.stages[0], self.image.device):
            found = [self.evaluators[0].targets(image, [loss])[0] for image in self.image.split(1)]
        return [float(each[self.aim.layer.name].amax()) for each in found]

    def _evaluate(self, images: Tensor) -> LossAndGradient:
        """The objective of all pictures, each moved at random, and its gradient."""
        [evaluator] = self.evaluators
        leaf = images.detach().requires_grad_()
        moved = [_moved(image, self._generator) for image in leaf.split(1)]
        likeness: list[Term] = []
        if self._diversity:
            loss = WeightedLoss("diversity", self._diversity, _Likeness([self._raised]))
            grams = [_unit(evaluator.targets(each.detach(), [loss])[0][self._raised]) for each in moved]
            everyone = torch.stack(grams).sum(0)
            # Both pictures of a pair move apart, so that each has the whole of their likeness.
            likeness = [loss.term({self._raised: 2 * (everyone - gram)}) for gram in grams]
        found = [
            evaluator.evaluate([self._score, *likeness[number : number + 1]], each.detach())
            for number, each in enumerate(moved)
        ]
        (gradient,) = torch.autograd.grad(moved, leaf, [each.gradient for each in found])
        terms = {name: torch.stack([each.terms[name] for each in found]).sum() for name in found[0].terms}
        return LossAndGradient(torch.stack([each.loss for each in found]).sum(), gradient, terms)


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
    seconds: float | None = None,
    memory_limit: int | str | None = None,
    device: str = "auto",
    precision: Precision = "float32",
    **preprocessing: Unpack[Preprocessing],
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
        seconds: time for all steps in seconds; None takes `steps`.
        memory_limit: memory for a step, as in `stylize`.
        device: `auto` (CUDA, else MPS, else CPU) or a torch device.
        precision: of the network.
        preprocessing: `mean`, `std` and `input_order` of the weights, see `weights.Preprocessing`.

    Raises `LayerError`, `InputError`, `RecipeError`, `WeightsError`.

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
    extract = FeatureExtractor(
        network, layers, weights=weights, check="off", device=place, precision=precision, **preprocessing
    )
    recipe = Recipe(
        network=network,
        content_layers={raised: 1.0},
        style_layers={},
        size=size,
        first_size=size,
        steps=steps,
        optimiser="adam",
        seed=seed,
    )
    return Visualization(
        extract,
        raised,
        aim,
        recipe,
        count=count,
        diversity=diversity,
        seconds=seconds,
        memory_limit=memory_limit,
        device=place,
    )


def _moved(image: Tensor, generator: torch.Generator) -> Tensor:
    """Pad (1, 3, H, W) with grey, shift by up to 8 pixels, turn by up to 8 degrees and scale by up to a tenth.

    Turns by three shears, each by the shift theorem: the gradient of resampling by index would differ from run to run
    on CUDA.
    """
    down, across, turn, zoom = (torch.rand(4, generator=generator) * 2 - 1).tolist()
    angle = math.radians(8) * turn
    slope = math.tan(angle / 2)
    x = F.pad(image, (_PADDING,) * 4, value=0.5)
    x = _sheared(x, slope, 8 * across)
    x = _sheared(x.mT, -math.sin(angle), 8 * down).mT
    x = _sheared(x, slope, 0.0)
    scale = _scaling(x.shape[2], 1 + 0.1 * zoom, x)
    return scale @ x @ scale.T


def _sheared(x: Tensor, slope: float, shift: float) -> Tensor:
    """Shift each row of (N, C, H, W), which wraps, by `shift` and by `slope` times its distance from the middle row."""
    height, width = x.shape[2:]
    rows = torch.arange(height, device=x.device) - (height - 1) / 2
    phase = (slope * rows + shift)[:, None] * (-2 * math.pi * torch.fft.rfftfreq(width, device=x.device))
    return torch.fft.irfft(torch.fft.rfft(x) * torch.polar(torch.ones_like(phase), phase), n=width)


def _scaling(side: int, factor: float, like: Tensor) -> Tensor:
    """The matrix (side, side) that scales a line of pixels about its middle by a factor, bilinearly."""
    pixels = torch.arange(side, device=like.device, dtype=like.dtype)
    middle = (side - 1) / 2
    source = (middle + (pixels - middle) / factor).clamp(0, side - 1)
    return (1 - (source[:, None] - pixels).abs()).clamp_min(0)


def _unit(grams: Tensor) -> Tensor:
    """Matrices (N, C, C), each divided by its length."""
    return grams / grams.flatten(1).norm(dim=1).clamp_min(1e-12)[:, None, None]
