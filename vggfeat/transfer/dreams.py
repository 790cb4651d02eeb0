"""Dreams: a picture changed so that a layer, or one of its channels, responds more strongly to it."""

from collections.abc import Mapping
from typing import Unpack

import torch
from torch import Tensor

from vggfeat.errors import InputError, LayerError, check_number
from vggfeat.features import tensors
from vggfeat.features.device import Precision, choose_device, settings
from vggfeat.features.extractor import FeatureExtractor
from vggfeat.losses.base import FeatureLoss, Features
from vggfeat.networks import arch
from vggfeat.networks.weights import Preprocessing
from vggfeat.pictures import images, sources
from vggfeat.pictures.sources import Source
from vggfeat.transfer import memory
from vggfeat.transfer.evaluator import extractor
from vggfeat.transfer.loop import Run
from vggfeat.transfer.objective import Term
from vggfeat.transfer.optimise import BoundedDescent, LossAndGradient, Optimiser
from vggfeat.transfer.recipe import Recipe
from vggfeat.transfer.stages import plan

# The guide's long side in pixels, and the most positions of its features that count; and how many positions of the
# picture are compared with them at a time.
_GUIDE_SIZE = 224
_GUIDE_POSITIONS = 1024
_POSITIONS = 16384


class Activation(FeatureLoss):
    """Minus the mean square activation of a layer, or of one of its channels: the loss that a dream minimises."""

    aligned = False
    local = True

    def __init__(self, layer: str, channel: int | None) -> None:
        super().__init__([layer])
        self.channel = channel

    def summary(self, x: Tensor) -> Tensor:
        """The activations that are measured: all channels, or one of them."""
        return tensors.at_least_float32(x if self.channel is None else x[:, self.channel : self.channel + 1])

    def distance(self, x: Tensor, target: Tensor) -> Tensor:  # noqa: ARG002 (there is no target)
        """Minus their mean square: (N,)."""
        return -x.square().flatten(1).mean(1)

    def target(self, features: Features, *, graph: bool = False) -> dict[str, Tensor]:  # noqa: ARG002 (the base's)
        """Placeholders, since the loss has no target."""
        return {name: torch.zeros(1, 1) for name in self.layers}


class Guided(FeatureLoss):
    """Minus the mean product of each position's features with those of the guide that suit it best.

    The target is the guide's features, (1, C, 1, G).
    """

    aligned = False
    local = True

    def summary(self, x: Tensor) -> Tensor:
        """The features in float32."""
        return tensors.at_least_float32(x)

    def distance(self, x: Tensor, target: Tensor) -> Tensor:
        """Minus the mean product: (N,)."""
        positions, guide = x.flatten(2).mT, target[0, :, 0].T
        with torch.no_grad():
            best = torch.cat([(part @ guide.T).argmax(2) for part in positions.split(_POSITIONS, 1)], 1)
        # No gradient reaches the guide: adding by index would differ from run to run on CUDA.
        return -(positions * guide[best]).sum(2).mean(1)


def parse_target(network: str, text: str) -> tuple[str, int | None]:
    """Read `relu4_3` or `relu4_3:12`: a layer and one of its channels, counted from 0, or None for all.

    Raises `LayerError` for an unknown layer or channel.
    """
    name, colon, number = text.partition(":")
    found = arch.find_layers(network, name)
    if len(found) != 1:
        raise LayerError(f"a dream is of one layer, and '{name}' names {len(found)}")
    layer = found[0]
    if not colon:
        return layer.name, None
    if not number.strip().isdecimal() or int(number) >= layer.channels:
        raise LayerError(f"{layer.name} of {network} has the channels 0 to {layer.channels - 1}, not '{number}'")
    return layer.name, int(number)


class Dream(Run):
    """A dream in progress, as `dream` returns it.

    Iterate over it for `Progress`, or call `result()` for the finished picture. `image` is the picture so far.

    Args:
        image: (1, 3, H, W) in [0, 1].
        recipe: network, schedule, margin and seed.
        target: a layer, and one of its channels or None.
        guide: a picture, (1, 3, H, W) in [0, 1], whose features the picture is to have; None raises the activation.
        size: long side of the result in pixels; a smaller picture is enlarged only if the recipe says so.
        rate, jitter, seconds, memory_limit: as in `dream`.
        device: where to compute.
        precision: of the network.

    Example:
        >>> import torch
        >>> from vggfeat import dream
        >>> run = dream(torch.rand(1, 3, 32, 32), "relu1_1", octaves=2, steps=1)
        >>> [(progress.stage, tuple(progress.image.shape)) for progress in run]
        [(1, (1, 3, 23, 23)), (2, (1, 3, 32, 32))]
    """

    def __init__(
        self,
        image: Tensor,
        recipe: Recipe,
        target: tuple[str, int | None],
        *,
        guide: Tensor | None = None,
        size: int,
        rate: float,
        jitter: int,
        seconds: float | None,
        memory_limit: int | str | None,
        device: torch.device,
        precision: Precision,
    ) -> None:
        stages = plan(recipe, *images.fit(image.shape[2], image.shape[3], size, enlarge=recipe.enlarge))
        layer, channel = target
        extract = extractor(recipe, [layer], device, precision)
        if guide is None:
            loss, features = Activation(layer, channel), torch.zeros(1, 1, device=device)
        else:
            loss, features = Guided([layer]), _guide_features(extract, layer, guide.to(device))
        self._terms = [Term("dream", 1.0, loss, {layer: features})]
        self._content = image.to(device)
        self._rate, self._jitter = rate, jitter
        self._generator = torch.Generator().manual_seed(recipe.seed)
        blocks = memory.divide(extract, recipe, stages, memory.budget(memory_limit, device))
        super().__init__(recipe, stages, extract, self._content, blocks=blocks, seconds=seconds)

    def make_optimiser(self, number: int, state: Mapping[str, Tensor] | None) -> Optimiser:
        """The optimiser of stage `number`.

        It starts from the content at the stage's size plus the change so far, so that the content's details stay sharp.
        """
        stage, evaluator = self.stages[number - 1], self.evaluators[number - 1]
        image = images.resize(self._content, stage.height, stage.width)
        if number > 1:
            change = self._picture - images.resize(self._content, *self._picture.shape[2:])
            image = image + images.resize(change, stage.height, stage.width)

        def closure(image: Tensor) -> LossAndGradient:
            # A new random shift each time, so that the grid of the poolings leaves no trace.
            down, across = (self._shift() for _ in range(2))
            found = evaluator.evaluate(self._terms, image.roll((down, across), (2, 3)))
            return found._replace(gradient=found.gradient.roll((-down, -across), (2, 3)))

        return BoundedDescent(image, closure, rate=self._rate, state=state)

    def _shift(self) -> int:
        return int(torch.randint(-self._jitter, self._jitter + 1, (), generator=self._generator))


def _guide_features(extract: FeatureExtractor, layer: str, guide: Tensor) -> Tensor:
    """Features of a guide, evenly chosen: (1, C, 1, G)."""
    height, width = images.fit(guide.shape[2], guide.shape[3], _GUIDE_SIZE)
    least = extract.minimum_size
    with torch.no_grad(), settings(guide.device):
        found = extract(images.resize(guide, max(least, height), max(least, width)))[layer].flatten(2)
    step = -(-found.shape[2] // _GUIDE_POSITIONS)
    return tensors.at_least_float32(found[:, :, None, ::step])


def dream(
    image: Source,
    layer: str = "relu4_3",
    *,
    guide: Source | None = None,
    size: int = 512,
    enlarge: bool = False,
    octaves: int = 4,
    octave_scale: float = 1.4,
    steps: int = 20,
    rate: float = 0.007,
    jitter: int = 16,
    network: str = "vgg16",
    weights: str = "default",
    seed: int = 0,
    seconds: float | None = None,
    memory_limit: int | str | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    **preprocessing: Unpack[Preprocessing],
) -> Dream:
    """Change `image` so that a layer responds more strongly to it.

    Gradient ascent raises the mean square activation, first in a small picture, then in larger ones. The change made
    at one size is enlarged and added to the picture at the next (Mordvintsev et al., 2015).

    Args:
        image: the picture: a file, or a float RGB tensor (1, 3, H, W) or (3, H, W) in [0, 1].
        layer: a layer such as `relu4_3`, or one of its channels, counted from 0, such as `relu4_3:12`.
        guide: draw the layer towards the features of this picture instead: each position towards the features of
            the guide that suit it best. Sources as for `image`.
        size: long side of the result in pixels.
        enlarge: enlarge a picture that is smaller than that.
        octaves: number of sizes, 1 to 20.
        octave_scale: factor from one size to the next, 1.1 to 16.
        steps: at each size.
        rate: mean absolute change of a value in one step, up to 1.
        jitter: largest random shift of the picture in each step, in pixels, which avoids a visible grid.
        network: the name of the network.
        weights: the name of a weights entry, or a file.
        seed: of the shifts.
        seconds: time for all steps in seconds, divided among the sizes; None takes `steps`.
        memory_limit: memory for a step, as in `stylize`.
        device: as in `stylize`.
        precision: as in `stylize`.
        preprocessing: `mean`, `std` and `input_order` of the weights, see `weights.Preprocessing`.

    Raises `ImageError`, `InputError`, `LayerError`, `RecipeError`, `WeightsError`.

    Example:
        >>> import torch
        >>> from vggfeat import dream
        >>> image = torch.rand(1, 3, 32, 32)
        >>> run = dream(image, "relu2_1", octaves=1, steps=4, jitter=0)
        >>> first, *_, last = (progress.losses["dream"] for progress in run)
        >>> last < first < 0
        True
    """
    place = choose_device(device)
    for name, value, least, most in (
        ("octaves", octaves, 1, 20),
        ("octave_scale", octave_scale, 1.1, 16),
        ("rate", rate, 1e-6, 1),
        ("jitter", jitter, 0, 1024),
        ("seconds", 1 if seconds is None else seconds, 1e-9, 1e9),
    ):
        check_number(name, value, least, most)
    target = parse_target(network, layer)
    if guide is not None and target[1] is not None:
        raise InputError(f"a guide needs a whole layer, not one channel as in '{layer}'")
    picture = sources.read(image, "image")
    long_side = max(images.fit(picture.shape[2], picture.shape[3], size, enlarge=enlarge))
    recipe = Recipe(
        network=network,
        weights=weights,
        mean=preprocessing.get("mean") or (),
        std=preprocessing.get("std") or (),
        input_order=preprocessing.get("input_order") or "auto",
        content_layers={target[0]: 1.0},
        style_layers={},
        size=size,
        enlarge=enlarge,
        first_size=max(16, round(long_side / octave_scale ** (octaves - 1))),
        growth=octave_scale,
        steps=steps,
        margin=max(arch.find_layers(network, target[0])[0].stride, 16),
        optimiser="adam",  # memory is then predicted without the history of L-BFGS
        seed=seed,
    )
    return Dream(
        picture,
        recipe,
        target,
        guide=None if guide is None else sources.read(guide, "guide"),
        size=size,
        rate=rate,
        jitter=jitter,
        seconds=seconds,
        memory_limit=memory_limit,
        device=place,
        precision=precision,
    )
