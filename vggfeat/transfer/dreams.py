"""Dreams: a picture changed so that a layer, or one of its channels, sees more of what it looks for."""

import math
import time
from collections.abc import Iterator

import torch
from torch import Tensor

from vggfeat.errors import InputError, LayerError
from vggfeat.features import tensors
from vggfeat.features.device import Precision, choose_device
from vggfeat.features.extractor import FeatureExtractor
from vggfeat.losses.base import FeatureLoss, Features
from vggfeat.networks import arch
from vggfeat.pictures import images, sources
from vggfeat.pictures.sources import Source
from vggfeat.transfer import memory
from vggfeat.transfer.blocks import Blockwise, Whole
from vggfeat.transfer.objective import Term
from vggfeat.transfer.optimise import BoundedDescent, Evaluation
from vggfeat.transfer.recipe import Recipe
from vggfeat.transfer.run import Progress, Run, settings
from vggfeat.transfer.stages import Stage, plan


class Activation(FeatureLoss):
    """Minus the mean square activation of a layer, or of one of its channels: what a dream makes small."""

    aligned = False
    local = True

    def __init__(self, layer: str, channel: int | None) -> None:
        super().__init__([layer])
        self.channel = channel

    def summary(self, x: Tensor) -> Tensor:
        """The features that count."""
        return tensors.at_least_float32(x if self.channel is None else x[:, self.channel : self.channel + 1])

    def distance(self, x: Tensor, target: Tensor) -> Tensor:  # noqa: ARG002 (there is none)
        """Minus their mean square: (N,)."""
        return -x.square().flatten(1).mean(1)

    def target(self, features: Features, *, graph: bool = False) -> dict[str, Tensor]:  # noqa: ARG002 (the base's)
        """Nothing that counts: more is always better."""
        return {name: torch.zeros(1, 1) for name in self.layers}


def parse_target(network: str, text: str) -> tuple[str, int | None]:
    """Read `relu4_3` or `relu4_3:12`: a layer, and one of its channels from 0 on.

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
    """A dream as it is dreamt."""

    def __init__(
        self,
        image: Tensor,
        recipe: Recipe,
        target: tuple[str, int | None],
        *,
        size: int,
        rate: float,
        jitter: int,
        seconds: float | None,
        budget: int | None,
        device: torch.device,
        precision: Precision,
    ) -> None:
        height, width = images.fit(image.shape[2], image.shape[3], size)
        self.stages = plan(recipe, height, width)
        layer, channel = target
        loss = Activation(layer, channel)
        self._terms = [Term("dream", 1.0, loss, {layer: torch.zeros(1, 1, device=device)})]
        self._content = image.to(device)
        self._extract = FeatureExtractor(
            recipe.network,
            [layer],
            weights=recipe.weights,
            pooling=recipe.pooling,
            precision=precision,
            check="off",
            device=device,
        )
        itemsize = self._extract.dtype.itemsize
        self._looks: list[Whole] = []
        for stage in self.stages:
            blocks = memory.choose(recipe, stage.height, stage.width, itemsize, budget)
            whole = Whole(self._extract, recipe.margin)
            self._looks.append(whole if blocks is None else Blockwise(self._extract, recipe.margin, blocks))
        self._rate, self._jitter, self._seconds = rate, jitter, seconds
        self._generator = torch.Generator().manual_seed(recipe.seed)
        self._image = images.resize(self._content, self.stages[0].height, self.stages[0].width)
        self._progress = self._run()

    @property
    def image(self) -> Tensor:
        """The picture as it stands, (1, 3, H, W) in [0, 1]."""
        return self._image

    def _run(self) -> Iterator[Progress]:
        began, share, taken = time.monotonic(), 0.0, 0
        dreamt: Tensor | None = None
        for number, stage in enumerate(self.stages, 1):
            deadline = None if self._seconds is None else began + self._seconds * (share + stage.share)
            content = images.resize(self._content, stage.height, stage.width)
            with settings(stage, self._content.device):
                optimiser = self._prepare(number, stage, content, dreamt)
            step = 0
            while step == 0 or (step < stage.steps if deadline is None else time.monotonic() < deadline):
                with settings(stage, self._content.device):
                    optimiser.step()
                step, taken = step + 1, taken + 1
                self._image = optimiser.image
                seconds = time.monotonic() - began
                done = share + stage.share * min(1.0, step / stage.steps)
                yield Progress(
                    stage=number,
                    stages=len(self.stages),
                    step=step,
                    steps=stage.steps if deadline is None else step,
                    taken=taken,
                    seconds=seconds,
                    done=done if self._seconds is None else min(1.0, seconds / self._seconds),
                    image=self._image,
                    terms=optimiser.here.terms,
                )
            dreamt = self._image - content
            share += stage.share

    def _prepare(self, number: int, stage: Stage, content: Tensor, dreamt: Tensor | None) -> BoundedDescent:
        """Start from the content at the stage's size, with what was dreamt so far on top: its details stay sharp."""
        if dreamt is not None:
            content = content + images.resize(dreamt, stage.height, stage.width)
        look = self._looks[number - 1]

        def evaluate(image: Tensor) -> Evaluation:
            # Shifted by a few pixels each time, so that the grid of the poolings leaves no mark.
            down, across = (self._shift() for _ in range(2))
            found = look.evaluate(self._terms, image.roll((down, across), (2, 3)))
            return found._replace(gradient=found.gradient.roll((-down, -across), (2, 3)))

        return BoundedDescent(content, evaluate, rate=self._rate)

    def _shift(self) -> int:
        return int(torch.randint(-self._jitter, self._jitter + 1, (), generator=self._generator))


def dream(
    image: Source,
    layer: str = "relu4_3",
    *,
    size: int = 512,
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
) -> Dream:
    """Change `image` so that a layer sees more of what it looks for.

    The mean square activation is raised in steps up its gradient, from a small picture to a large one, and what is
    dreamt at one size is laid on the picture at the next (Mordvintsev et al., 2015).

    Args:
        image: the picture.
        layer: what is to see more: a layer, `relu4_3`, or one of its channels, `relu4_3:12`.
        size: pixels of the result's long side; a smaller picture is not enlarged.
        octaves: how many sizes.
        octave_scale: factor from one size to the next.
        steps: at each size.
        rate: how far a step goes: the mean change of a value.
        jitter: pixels by which the picture is shifted at most in each step, so that no grid shows.
        network: the network, with `weights`: a name or a file.
        weights: as in `Recipe`.
        seed: of the shifts.
        seconds: time for all steps, shared out over the sizes; None takes `steps`.
        memory_limit: what a step may take, as in `stylize`.
        device: as in `stylize`.
        precision: as in `stylize`.

    Raises `ImageError`, `InputError`, `LayerError`, `RecipeError`, `WeightsError`.
    """
    place = choose_device(device)
    for name, value, least, most in (
        ("octaves", octaves, 1, 20),
        ("octave_scale", octave_scale, 1.1, 16),
        ("rate", rate, 1e-6, 1),
        ("jitter", jitter, 0, 1024),
        ("seconds", 1 if seconds is None else seconds, 1e-9, 1e9),
    ):
        if not least <= value <= most or not math.isfinite(value):
            raise InputError(f"{name.replace('_', ' ')} is {value:g}: it must be between {least:g} and {most:g}")
    target = parse_target(network, layer)
    stride = arch.find_layers(network, target[0])[0].stride
    seen = sources.read(image, "image")
    long_side = min(size, max(seen.shape[2:]))
    recipe = Recipe(
        network=network,
        weights=weights,
        content_layers={target[0]: 1.0},
        style_layers={},
        size=size,
        first_size=max(16, round(long_side / octave_scale ** (octaves - 1))),
        growth=octave_scale,
        steps=steps,
        margin=max(stride, 16),
        optimiser="adam",
        seed=seed,
    )
    return Dream(
        seen,
        recipe,
        target,
        size=size,
        rate=rate,
        jitter=jitter,
        seconds=seconds,
        budget=memory.available(place) if memory_limit is None else memory.parse_size(str(memory_limit)),
        device=place,
        precision=precision,
    )
