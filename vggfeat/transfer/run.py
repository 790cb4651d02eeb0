"""Run a recipe: stage by stage, step by step, yielding progress."""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from os import PathLike

import torch
from torch import Tensor

from vggfeat import arch, functional, images
from vggfeat.errors import InputError
from vggfeat.extract import FeatureExtractor, Precision, check_range
from vggfeat.losses import ContentLoss, FeatureLoss, Features, GramLoss, TotalVariationLoss, WeightedSum
from vggfeat.transfer.optimise import BoundedAdam, BoundedLBFGS, Optimiser
from vggfeat.transfer.recipe import Recipe
from vggfeat.transfer.recipe import recipe as named
from vggfeat.transfer.stages import Stage, plan

Source = str | PathLike[str] | Tensor
"""A picture file, or an RGB tensor (1, 3, H, W) or (3, H, W) in [0, 1]."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands after a step. Stages and steps count from 1; `seconds` since the run began.

    `image` is the picture so far, (1, 3, height, width) in [0, 1] at the stage's size. Reading `losses` waits for
    the device; nothing else does.
    """

    stage: int
    stages: int
    step: int
    steps: int
    seconds: float
    done: float
    image: Tensor
    terms: dict[str, Tensor] = field(repr=False)

    @property
    def losses(self) -> dict[str, float]:
        """The weighted value of each term, and their `total`."""
        values = {name: float(value) for name, value in self.terms.items()}
        return values | {"total": sum(values.values())}


class Stylization:
    """A run of a recipe. Iterate over it for `Progress`; `result()` runs what is left and returns the picture.

    `image` is the picture as it stands, at any time: (1, 3, H, W) in [0, 1].
    """

    def __init__(
        self,
        content: Tensor,
        style: Tensor,
        recipe: Recipe,
        *,
        size: int,
        seconds: float | None,
        device: torch.device,
        precision: Precision,
    ) -> None:
        self.recipe = recipe
        self._content = content.to(device)
        self._style = style.to(device)
        height, width = images.fit(content.shape[2], content.shape[3], size)
        self.stages = plan(recipe, height, width)
        self._seconds = seconds
        self.image = images.resize(_start(recipe, self._content), self.stages[0].height, self.stages[0].width)
        self.objective = _objective(recipe)
        self._extract = FeatureExtractor(
            recipe.network,
            [name for name in self.objective.layers if name != "image"],
            weights=recipe.weights,
            pooling=recipe.pooling,
            precision=precision,
            check="off",
            device=device,
        )
        self._stride = {layer.name: layer.stride for layer in arch.find(recipe.network, self._extract.layers)}
        self._progress = self._run()

    def __iter__(self) -> Iterator[Progress]:
        return self._progress

    def result(self) -> Tensor:
        """Run to the end; return the picture, (1, 3, H, W) in [0, 1], on the run's device."""
        for _ in self._progress:
            pass
        return self.image

    def _run(self) -> Iterator[Progress]:
        began = time.monotonic()
        share = 0.0
        for number, stage in enumerate(self.stages, 1):
            deadline = None if self._seconds is None else began + self._seconds * (share + stage.share)
            optimiser, terms = self._prepare(stage)
            # A time budget decides when to go on, so the number of steps is then only a measure of progress.
            step = 0
            while step < stage.steps if deadline is None else time.monotonic() < deadline:
                step += 1
                optimiser.step()
                self.image = optimiser.image.detach()
                now = time.monotonic()
                done = share + stage.share * min(1.0, step / stage.steps)
                if self._seconds is not None:
                    done = min(1.0, (now - began) / self._seconds)
                yield Progress(
                    stage=number,
                    stages=len(self.stages),
                    step=step,
                    steps=max(step, stage.steps) if deadline is None else step,
                    seconds=now - began,
                    done=done,
                    image=self.image,
                    terms=dict(terms),
                )
            share += stage.share

    def _prepare(self, stage: Stage) -> tuple[Optimiser, dict[str, Tensor]]:
        """Targets at the stage's size, and an optimiser that starts from the picture so far."""
        height, width = stage.height, stage.width
        content = self._features(images.resize(self._content, height, width))
        style = self._features(_like_in_area(self._style, height * width * self.recipe.style_scale**2))
        targets = {
            name: loss.target(style if name == "style" else content) for name, loss in self.objective.losses.items()
        }
        terms: dict[str, Tensor] = {}

        def evaluate(image: Tensor) -> tuple[Tensor, Tensor]:
            image = image.detach().requires_grad_()
            with _repeatable(image.device):
                total, values = self.objective(self._features(image), targets)
                (gradient,) = torch.autograd.grad(total, image)
            terms.update({name: value.detach() for name, value in values.items()})
            return total.detach(), gradient

        image = images.resize(self.image, height, width)
        if self.recipe.optimiser == "adam":
            return BoundedAdam(image, evaluate, learning_rate=self.recipe.learning_rate), terms
        return BoundedLBFGS(image, evaluate), terms

    def _features(self, image: Tensor) -> Features:
        """The features of `image`, and the image itself.

        With a margin they are those of the picture within its mirror image: what the zeros around a network's input
        do to the features falls into the margin, and is cut off.
        """
        margin = self.recipe.margin if min(image.shape[2:]) > self.recipe.margin else 0
        features = self._extract(functional.mirror_pad(image, margin) if margin else image)
        inner = {name: functional.crop(x, margin // self._stride[name]) for name, x in features.items()}
        return {**inner, "image": image}


def stylize(
    content: Source,
    style: Source,
    recipe: Recipe | str = "default",
    *,
    size: int = 512,
    seconds: float | None = None,
    device: str = "auto",
    precision: Precision = "auto",
) -> Stylization:
    """Paint `content` in the manner of `style`.

    Args:
        content: the picture to paint; its colours and its alpha are not kept.
        style: the picture whose manner is taken.
        recipe: a `Recipe`, or the name of one.
        size: pixels of the result's long side; a smaller content is not enlarged.
        seconds: time for the optimisation, shared out over the stages; None runs the recipe's steps.
        device: `auto` (CUDA, else MPS, else the CPU) or a torch device.
        precision: of the network; `auto` takes bfloat16 where the device is fast at it.

    Nothing is computed before the first iteration. The same seed gives the same picture on the same device, as long
    as `seconds` is None.

    Raises `ImageError`, `InputError`, `RecipeError`, `LayerError`, `WeightsError`.
    """
    return Stylization(
        _read(content, "content"),
        _read(style, "style"),
        named(recipe) if isinstance(recipe, str) else recipe,
        size=size,
        seconds=seconds,
        device=choose_device(device),
        precision=precision,
    )


def choose_device(name: str) -> torch.device:
    """The torch device called `name`, or for `auto` the fastest kind there is. Raises `InputError`."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"unknown device '{name}': pass auto, cpu, cuda, cuda:1 or mps") from None
    count = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}.get(device.type, 1)
    if (device.index or 0) >= count:
        raise InputError(f"there is no device '{name}' here: torch sees {count} of its kind")
    return device


def _repeatable(device: torch.device) -> AbstractContextManager[None]:
    """Have cuDNN choose algorithms that give the same result each time."""
    if device.type != "cuda":
        return nullcontext()
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=True)


def _read(source: Source, role: str) -> Tensor:
    if not isinstance(source, Tensor):
        return images.read_picture(source).rgb
    rgb = source[None] if source.ndim == 3 else source
    if rgb.ndim != 4 or rgb.shape[:2] != (1, 3) or not rgb.is_floating_point():
        raise InputError(f"{role} is {source.dtype} {tuple(source.shape)}: pass one float RGB image, (1, 3, H, W)")
    if rgb.device.type != "meta":
        check_range(rgb, "unit")
    return rgb.detach().float().clamp(0, 1)


def _start(recipe: Recipe, content: Tensor) -> Tensor:
    """The picture that the first stage starts from, at any size."""
    if recipe.start == "content":
        return content
    if recipe.start == "noise":
        noise = torch.rand(content.shape, generator=torch.Generator().manual_seed(recipe.seed))
        return noise.to(content.device)
    return images.read_picture(recipe.start).rgb.to(content.device)


def _like_in_area(image: Tensor, area: float) -> Tensor:
    """Resize to about `area` pixels, the sides' ratio kept."""
    height, width = image.shape[2:]
    scale = (area / (height * width)) ** 0.5
    return images.resize(image, max(1, round(height * scale)), max(1, round(width * scale)))


def _objective(recipe: Recipe) -> WeightedSum:
    terms: dict[str, tuple[float, FeatureLoss]] = {
        "content": (recipe.content_weight, ContentLoss(recipe.content_layers)),
        "style": (recipe.style_weight, GramLoss(recipe.style_layers, divide_by="chw")),
        "tv": (recipe.tv_weight, TotalVariationLoss()),
    }
    return WeightedSum(**{name: (weight, loss) for name, (weight, loss) in terms.items() if weight and loss.layers})
