"""Run a recipe: stage by stage, step by step, yielding progress."""

import math
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from os import PathLike

import torch
from torch import Tensor

from vggfeat import arch, functional, images
from vggfeat.errors import InputError, RecipeError, VggfeatError
from vggfeat.extract import FeatureExtractor, Precision, check_range, choose_device
from vggfeat.losses import ContentLoss, FeatureLoss, Features, GramLoss, TotalVariationLoss, WeightedSum
from vggfeat.transfer.optimise import BoundedAdam, BoundedLBFGS, Evaluation, Optimiser
from vggfeat.transfer.recipe import Recipe
from vggfeat.transfer.recipe import recipe as named
from vggfeat.transfer.stages import Stage, plan

Source = str | PathLike[str] | Tensor
"""A picture file, or an RGB tensor (1, 3, H, W) or (3, H, W) in [0, 1]."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands after a step. Stages and steps count from 1; `seconds` since the run began.

    `image` is the picture so far, (1, 3, height, width) in [0, 1] at the stage's size, and stays as it is. Reading
    `losses`, which are those of that picture, waits for the device; nothing else does.
    """

    stage: int
    stages: int
    step: int
    steps: int
    seconds: float
    done: float
    image: Tensor
    terms: Mapping[str, Tensor] = field(repr=False)

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
        if seconds is not None and not 0 < seconds < math.inf:
            raise RecipeError(f"seconds is {seconds:g}: it must be above 0 and finite")
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
            # A time budget decides when to go on, so the number of steps is then only a measure of progress.
            deadline = None if self._seconds is None else began + self._seconds * (share + stage.share)
            with _settings(stage, self._content.device):
                optimiser = self._prepare(stage)
            self.image = optimiser.image
            step = 0
            while step == 0 or (step < stage.steps if deadline is None else time.monotonic() < deadline):
                with _settings(stage, self._content.device):
                    optimiser.step()
                step += 1
                self.image = optimiser.image
                now = time.monotonic()
                done = share + stage.share * min(1.0, step / stage.steps)
                if self._seconds is not None:
                    done = min(1.0, (now - began) / self._seconds)
                yield Progress(
                    stage=number,
                    stages=len(self.stages),
                    step=step,
                    steps=stage.steps if deadline is None else step,
                    seconds=now - began,
                    done=done,
                    image=self.image,
                    terms=optimiser.here.terms,
                )
            if self.image.device.type != "meta" and not optimiser.here.loss.isfinite():
                raise RecipeError("the loss is not finite: the recipe's weights are too large")
            share += stage.share

    def _prepare(self, stage: Stage) -> Optimiser:
        """Targets at the stage's size, and an optimiser that starts from the picture so far."""
        height, width = stage.height, stage.width
        content = self._features(images.resize(self._content, height, width))
        style = self._features(self._style_for(height * width))
        targets = {
            name: loss.target(style if name == "style" else content) for name, loss in self.objective.losses.items()
        }

        def evaluate(image: Tensor) -> Evaluation:
            image = image.detach().requires_grad_()
            total, terms = self.objective(self._features(image), targets)
            (gradient,) = torch.autograd.grad(total, image)
            return Evaluation(total.detach(), gradient, {name: value.detach() for name, value in terms.items()})

        image = images.resize(self.image, height, width)
        if self.recipe.optimiser == "adam":
            return BoundedAdam(image, evaluate, learning_rate=self.recipe.learning_rate)
        return BoundedLBFGS(image, evaluate)

    def _style_for(self, area: int) -> Tensor:
        """The style at the scale of a picture of `area` pixels, no side less than the network needs."""
        height, width = self._style.shape[2:]
        scale = self.recipe.style_scale * (area / (height * width)) ** 0.5
        least = self._extract.minimum_size
        return images.resize(self._style, max(least, round(height * scale)), max(least, round(width * scale)))

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
        content: the picture to paint. Where a file is transparent, its mean visible colour is seen.
        style: the picture whose manner is taken, likewise.
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


@contextmanager
def _settings(stage: Stage, device: torch.device) -> Generator[None]:
    """What a step needs whatever the caller has set: gradients, its own precision, repeatable results.

    Running out of memory becomes a `VggfeatError` that says at which size.
    """
    # cuDNN is told to choose algorithms that give the same result each time.
    repeatable = (
        torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=torch.backends.cudnn.allow_tf32
        )
        if device.type == "cuda"
        else nullcontext()
    )
    try:
        with (
            torch.inference_mode(mode=False),
            torch.enable_grad(),
            functional.without_autocast(device.type),
            repeatable,
        ):
            yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error):
            raise VggfeatError(
                f"out of memory at {stage.width}x{stage.height} pixels: choose a smaller size"
            ) from error
        raise


def _read(source: Source, role: str) -> Tensor:
    if not isinstance(source, Tensor):
        return images.flatten(images.read_picture(source))
    rgb = source[None] if source.ndim == 3 else source
    if rgb.ndim != 4 or rgb.shape[:2] != (1, 3) or not rgb.is_floating_point():
        raise InputError(f"{role} is {source.dtype} {tuple(source.shape)}: pass one float RGB image, (1, 3, H, W)")
    check_range(rgb, "unit")
    return rgb.detach().float().clamp(0, 1)


def _start(recipe: Recipe, content: Tensor) -> Tensor:
    """The picture that the first stage starts from, at any size."""
    if recipe.start == "content":
        return content
    if recipe.start == "noise":
        noise = torch.rand(content.shape, generator=torch.Generator().manual_seed(recipe.seed))
        return noise.to(content.device)
    return images.flatten(images.read_picture(recipe.start)).to(content.device)


def _objective(recipe: Recipe) -> WeightedSum:
    terms: dict[str, tuple[float, FeatureLoss]] = {}
    if recipe.content_weight and recipe.content_layers:
        terms["content"] = recipe.content_weight, ContentLoss(recipe.content_layers)
    if recipe.style_weight and recipe.style_layers:
        terms["style"] = recipe.style_weight, GramLoss(recipe.style_layers, divide_by="chw")
    if recipe.tv_weight:
        terms["tv"] = recipe.tv_weight, TotalVariationLoss()
    return WeightedSum(**terms)
