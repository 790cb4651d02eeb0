"""Run a recipe: stage by stage, step by step, yielding progress."""

import hashlib
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from os import PathLike
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vggfeat.errors import InputError, RecipeError, VggfeatError
from vggfeat.features import allocation, tensors
from vggfeat.features.device import Precision, choose_device, resolve_precision
from vggfeat.features.extractor import FeatureExtractor
from vggfeat.losses.base import Features
from vggfeat.networks import arch
from vggfeat.pictures import images, sources
from vggfeat.pictures.ranges import check_range
from vggfeat.pictures.sources import Source
from vggfeat.transfer import checkpoint, colours, memory
from vggfeat.transfer.blocks import Blocks, Blockwise, Whole
from vggfeat.transfer.named import recipe as named
from vggfeat.transfer.objective import Place, Term, content_losses, style_losses
from vggfeat.transfer.optimise import BoundedAdam, BoundedLBFGS, Evaluation, Optimiser
from vggfeat.transfer.recipe import Edges, Recipe
from vggfeat.transfer.stages import Stage, plan

# Steps over which a stage's progress is judged, where a recipe ends it at a plateau.
_WINDOW = 10
_LEAST_SIDE = 64


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands after a step. Stages and steps count from 1; `seconds` since the run began.

    `taken` is the number of steps in all stages so far. A run that is resumed goes on counting.

    `image` is the picture so far, (1, 3, height, width) in [0, 1] at the stage's size, and stays as it is. Reading
    `losses`, which are those of that picture, waits for the device; nothing else does. `note` says what the run had to
    change on its way, if anything.
    """

    stage: int
    stages: int
    step: int
    steps: int
    taken: int
    seconds: float
    done: float
    image: Tensor
    terms: Mapping[str, Tensor] = field(repr=False)
    note: str | None = None

    @property
    def losses(self) -> dict[str, float]:
        """The weighted value of each term, and their `total`."""
        values = {name: float(value) for name, value in self.terms.items()}
        return values | {"total": sum(values.values())}


@dataclass(frozen=True, slots=True)
class _Inputs:
    """What a run is given: the content, the styles with weights and masks, and the mask of what stays as it is."""

    content: Tensor
    places: tuple[Place, ...]
    keep: Tensor | None

    def to(self, device: torch.device) -> "_Inputs":
        places = tuple(
            Place(place.style.to(device), place.share, None if place.mask is None else place.mask.to(device))
            for place in self.places
        )
        return _Inputs(self.content.to(device), places, None if self.keep is None else self.keep.to(device))

    def fingerprint(self) -> str:
        """A hash of every value."""
        found = hashlib.sha256()
        for place in self.places:
            found.update(repr(place.share).encode())
        tensors = [self.content, self.keep, *(x for place in self.places for x in (place.style, place.mask))]
        for tensor in tensors:
            found.update(b"none" if tensor is None else tensor.cpu().contiguous().numpy().tobytes())
        return found.hexdigest()


class _Reached(NamedTuple):
    """Where a run stood after its last whole step, whatever broke the next: all that the steps to come depend on."""

    stage: int
    step: int
    taken: int
    seconds: float
    tensors: Mapping[str, Tensor]
    recent: list[Tensor]


class Run(ABC):
    """Painting under way. Iterate over it for `Progress`; `result()` runs what is left and returns the picture."""

    _looks: list[Whole]
    _progress: Iterator[Progress]

    @property
    @abstractmethod
    def image(self) -> Tensor:
        """The picture as it stands, at any time: (1, 3, H, W) in [0, 1]."""

    @property
    def blocks(self) -> tuple[Blocks | None, ...]:
        """The blocks that each stage is computed in; None where it is looked at whole."""
        return tuple(look.blocks if isinstance(look, Blockwise) else None for look in self._looks)

    def __iter__(self) -> Iterator[Progress]:
        return self._progress

    def result(self) -> Tensor:
        """Run to the end; return the picture, (1, 3, H, W) in [0, 1], on the run's device."""
        for _ in self._progress:
            pass
        return self.image


class Stylization(Run):
    """A run of a recipe."""

    def __init__(
        self,
        inputs: _Inputs,
        recipe: Recipe,
        *,
        size: int,
        seconds: float | None,
        device: torch.device,
        precision: Precision,
        budget: int | None,
        resume: checkpoint.Checkpoint | None,
        after: "Stylization | None",
        compiled: bool,
    ) -> None:
        self.recipe = recipe
        # What the recipe was made from, for those that go on from a checkpoint.
        self.asked = recipe
        if seconds is not None and not 0 < seconds < math.inf:
            raise RecipeError(f"seconds is {seconds:g}: it must be above 0 and finite")
        height, width = images.fit(inputs.content.shape[2], inputs.content.shape[3], size)
        self.stages = plan(recipe, height, width)
        self._seconds = seconds
        self._facts = {
            "recipe": recipe.as_dict(),
            "height": height,
            "width": width,
            "precision": str(resolve_precision(precision, device)).removeprefix("torch."),
        }
        self._resume = resume
        if resume is not None:
            _check_resumable(resume, {**self._facts, "inputs": inputs.fingerprint()})
        self._inputs = inputs.to(device)
        self._seen, self._places = _recoloured(self._inputs, recipe)
        self._start = images.resize(_start(recipe, self._seen), self.stages[0].height, self.stages[0].width)
        self._content_losses, self._style_losses = content_losses(recipe), style_losses(recipe)
        alike = after is not None and after.alike(recipe, device, precision)
        self._extract = (
            after._extract if after is not None and alike else _extractor(recipe, device, precision, compiled=compiled)  # noqa: SLF001 (its own kind)
        )
        self._known: dict[tuple[str, int, int], list[Features]] = after._known if after is not None and alike else {}  # noqa: SLF001 (as above)
        if resume is None:
            itemsize = self._extract.dtype.itemsize
            divided = [memory.choose(recipe, stage.height, stage.width, itemsize, budget) for stage in self.stages]
        else:
            # A run goes on in the blocks that it began with: others would change the last digits.
            divided = [blocks and Blocks(*blocks) for blocks in resume.facts["blocks"]]
        self._looks = [self._look(blocks) for blocks in divided]
        self._reached: _Reached | None = None
        self._note: str | None = None
        self._raw = self._start
        self._progress = self._run()

    def alike(self, recipe: Recipe, device: torch.device, precision: Precision) -> bool:
        """Whether a run of `recipe` could look at styles through this one's network."""
        same = ("network", "weights", "pooling", "margin", "objective", "content_layers", "style_layers")
        return (
            all(getattr(recipe, name) == getattr(self.recipe, name) for name in same)
            and self.recipe.layer_weights().keys() == recipe.layer_weights().keys()
            and resolve_precision(precision, device) == self._extract.dtype
            and self._inputs.content.device == device
        )

    @property
    def image(self) -> Tensor:
        """The picture as it stands, (1, 3, H, W) in [0, 1]."""
        return self._finished(self._raw)

    def save(self, path: str | PathLike[str]) -> None:
        """Write a checkpoint to go on from: the file is the old one or the new one, whatever happens.

        Raises `VggfeatError` before the first step.
        """
        if self._reached is None:
            raise VggfeatError("there is nothing to save before the first step")
        number, step, taken, seconds, tensors, recent = self._reached
        facts = {
            **self._facts,
            "asked": self.asked.as_dict(),
            "inputs": self._inputs.fingerprint(),
            "stage": number,
            "step": step,
            "taken": taken,
            "seconds": seconds,
            "blocks": list(self.blocks),
        }
        checkpoint.save(path, facts, {**tensors, **({"recent": torch.stack(recent)} if recent else {})})

    def _look(self, blocks: Blocks | None, edges: Edges | None = None) -> Whole:
        edges = self.recipe.edges if edges is None else edges
        if blocks is None:
            return Whole(self._extract, self.recipe.margin, edges)
        return Blockwise(self._extract, self.recipe.margin, blocks, edges)

    def _run(self) -> Iterator[Progress]:
        began, share, taken, shown = time.monotonic(), 0.0, 0, False
        resume, self._resume = self._resume, None
        if resume is not None:
            began -= float(resume.facts["seconds"])
        for number, stage in enumerate(self.stages, 1):
            # A time budget decides when to go on, so the number of steps is then only a measure of progress.
            deadline = None if self._seconds is None else began + self._seconds * (share + stage.share)
            step, state, recent = 0, None, list[Tensor]()
            if resume is not None:
                if number < resume.facts["stage"]:
                    share += stage.share
                    continue
                step, taken = int(resume.facts["step"]), int(resume.facts["taken"])
                state = {name: x.to(self._inputs.content.device) for name, x in resume.tensors.items()}
                recent = list(state.pop("recent", ()))
                resume = None
            # The pieces that the stage before has left are too small for this one.
            allocation.release()
            with settings(stage, self._inputs.content.device):
                optimiser = self._prepare(number, state)
            self._raw = optimiser.image
            if state is not None:
                self._reached = _Reached(number, step, taken, time.monotonic() - began, optimiser.state(), recent)
            while (going := self._goes_on(stage, step, deadline, recent)) or (number == len(self.stages) and not shown):
                if going:
                    with settings(stage, self._inputs.content.device):
                        optimiser.step()
                    step, taken = step + 1, taken + 1
                    recent = [*recent, optimiser.here.loss][-_WINDOW - 1 :] if self.recipe.until_plateau else recent
                elapsed = time.monotonic() - began
                self._raw = optimiser.image
                self._reached = _Reached(number, step, taken, elapsed, optimiser.state(), recent)
                done = share + stage.share * min(1.0, step / stage.steps)
                if self._seconds is not None:
                    done = min(1.0, elapsed / self._seconds)
                note, self._note = self._note, None
                shown = True
                yield Progress(
                    stage=number,
                    stages=len(self.stages),
                    step=step,
                    steps=stage.steps if deadline is None else step,
                    taken=taken,
                    seconds=elapsed,
                    done=done,
                    image=self.image,
                    terms=optimiser.here.terms,
                    note=note,
                )
            if self._raw.device.type != "meta" and not optimiser.here.loss.isfinite():
                raise RecipeError("the loss is not finite: the recipe's weights are too large")
            share += stage.share

    def _goes_on(self, stage: Stage, step: int, deadline: float | None, recent: Sequence[Tensor]) -> bool:
        """Whether a stage takes another step: its steps or its time are not over, and its loss still falls."""
        if step == 0:
            return True
        if len(recent) > _WINDOW:
            before = float(recent[0])
            if before - float(recent[-1]) < self.recipe.until_plateau * abs(before):
                return False
        return step < stage.steps if deadline is None else time.monotonic() < deadline

    def _prepare(self, number: int, state: Mapping[str, Tensor] | None) -> Optimiser:
        """Targets at the stage's size, and an optimiser that starts from the picture so far or goes on from `state`."""
        stage = self.stages[number - 1]
        height, width = stage.height, stage.width
        content = images.resize(self._seen, height, width)
        terms = self._terms(number, content)
        fixed = None if self._inputs.keep is None else images.resize(self._inputs.keep, height, width)

        def evaluate(image: Tensor) -> Evaluation:
            if fixed is None:
                return self._evaluated(number, terms, image)
            # What is kept is seen as it is, and has no gradient.
            found = self._evaluated(number, terms, torch.lerp(image, content, fixed))
            return found._replace(gradient=found.gradient * (1 - fixed))

        image = images.resize(self._raw, height, width, wrap=self.recipe.edges == "wrap")
        if self.recipe.optimiser == "adam":
            return BoundedAdam(image, evaluate, learning_rate=self.recipe.learning_rate, state=state)
        return BoundedLBFGS(image, evaluate, wrap=self.recipe.edges == "wrap", state=state)

    def _evaluated(self, number: int, terms: Sequence[Term], image: Tensor) -> Evaluation:
        """The objective; where the memory does not suffice, in smaller and smaller blocks from then on."""
        while True:
            look = self._looks[number - 1]
            try:
                return look.evaluate(terms, image)
            except (MemoryError, RuntimeError) as error:
                blocks = _smaller(look, image)
                if not _is_out_of_memory(error) or blocks.side < _LEAST_SIDE:
                    raise
            # Outside the handler, whose traceback would keep the tensors alive.
            if image.is_cuda:
                torch.cuda.empty_cache()
            self._looks[number - 1] = self._look(blocks)
            self._note = f"out of memory: going on in blocks of {blocks.side} pixels"

    def _terms(self, number: int, content: Tensor) -> list[Term]:
        look = self._looks[number - 1]
        losses = [loss for _, _, loss in self._content_losses]
        terms = [
            Term(name, weight, loss, target)
            for (name, weight, loss), target in zip(self._content_losses, look.targets(content, losses), strict=True)
        ]
        if not self._style_losses:
            return terms
        losses = [loss for _, _, loss in self._style_losses]
        for place in self._places:
            style = self._style_for(place.style, content.shape[2] * content.shape[3])
            masks = None if place.mask is None else self._masks(place.mask, content)
            key = (_hash(place.style), style.shape[2], style.shape[3])
            if key not in self._known:
                self._known[key] = self._look(self.blocks[number - 1], "mirror").targets(
                    style, losses
                )  # no style need tile
            targets = self._known[key]
            share = place.share if place.mask is None else place.share * float(place.mask.mean())
            if not share:
                continue
            terms += [
                Term(name, weight * share, loss, target, masks)
                for (name, weight, loss), target in zip(self._style_losses, targets, strict=True)
            ]
        return terms

    def _masks(self, mask: Tensor, content: Tensor) -> Features:
        """The mask at the size of each style layer's features."""
        height, width = content.shape[2:]
        margin = self._looks[0].margin(content)
        down, across = height + 2 * margin, width + 2 * margin
        sizes: dict[str, tuple[int, int]] = {}
        for layer in arch.layers(self.recipe.network, pooling=self.recipe.pooling):
            down, across = layer.output_side(down), layer.output_side(across)
            cut = 2 * (margin // layer.stride)
            sizes[layer.name] = down - cut, across - cut
        fine = images.resize(mask, height, width)
        return {
            name: F.adaptive_avg_pool2d(fine, sizes[name]) for _, _, loss in self._style_losses for name in loss.layers
        }

    def _style_for(self, style: Tensor, area: int) -> Tensor:
        """A style at the scale of a picture of `area` pixels, no side less than the network needs."""
        height, width = style.shape[2:]
        scale = self.recipe.style_scale * (area / (height * width)) ** 0.5
        least = self._extract.minimum_size
        return images.resize(style, max(least, round(height * scale)), max(least, round(width * scale)))

    def _finished(self, image: Tensor) -> Tensor:
        """The picture that is shown: in its colours, with what is kept put back."""
        image = colours.finish(image, self._inputs.content, self.recipe.color)
        if self._inputs.keep is None:
            return image
        height, width = image.shape[2:]
        content, keep = (images.resize(x, height, width) for x in (self._inputs.content, self._inputs.keep))
        return torch.lerp(image, content, keep)


def stylize(
    content: Source,
    style: Source | Sequence[Source],
    recipe: Recipe | str = "default",
    *,
    size: int | None = None,
    weights: Sequence[float] | None = None,
    masks: Sequence[Source | None] | None = None,
    keep: Source | None = None,
    seconds: float | None = None,
    memory_limit: int | str | None = None,
    resume: str | PathLike[str] | None = None,
    after: Stylization | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    compiled: bool = False,
) -> Stylization:
    """Paint `content` in the manner of `style`.

    Args:
        content: the picture to paint. Where a file is transparent, its mean visible colour is seen.
        style: the picture whose manner is taken, likewise; or several.
        recipe: a `Recipe`, or the name of one.
        size: pixels of the result's long side, the recipe's if None; a smaller content is not enlarged.
        weights: of the styles, which mix in this proportion; equal where None.
        masks: for each style the place where it goes: a picture whose white is inside, of any size, or a tensor
            (1, 1, H, W) in [0, 1]; None for a style that goes everywhere.
        keep: likewise the place that stays as the content is.
        seconds: time for the optimisation, shared out over the stages; None runs the recipe's steps.
        memory_limit: what a step may take, as bytes or `4GB`; None allows six tenths of what is free. Above it the
            picture is computed in blocks, whose gradient is the same.
        resume: a checkpoint that `Stylization.save` wrote during a run of the same inputs and recipe.
        after: an earlier run: where styles, sizes and recipe are the same, what it found in the styles is used again.
        device: `auto` (CUDA, else MPS, else the CPU) or a torch device.
        precision: of the network; `auto` takes bfloat16 where the device is fast at it.
        compiled: compile the network by torch first, for each size that is looked at whole. Meant for CUDA, where it
            has not been timed; a CPU is faster without.

    Nothing is computed before the first iteration. The same seed gives the same picture on the same device, as long
    as `seconds` is None.

    Raises `ImageError`, `InputError`, `RecipeError`, `LayerError`, `WeightsError`.
    """
    place = choose_device(device)
    styles = [style] if isinstance(style, str | PathLike | Tensor) else list(style)
    if not styles:
        raise InputError("there is no style: pass one picture or several")
    shares = _shares(len(styles), weights)
    where = [None] * len(styles) if masks is None else list(masks)
    if len(where) != len(styles):
        raise InputError(f"there are {len(where)} masks for {len(styles)} styles: pass one for each, or None")
    if isinstance(memory_limit, str):
        memory_limit = memory.parse_size(memory_limit)
    inputs = _Inputs(
        sources.read(content, "content"),
        tuple(
            Place(sources.read(each, "style"), share, None if mask is None else _read_mask(mask))
            for each, share, mask in zip(styles, shares, where, strict=True)
        ),
        None if keep is None else _read_mask(keep),
    )
    chosen = named(recipe) if isinstance(recipe, str) else recipe
    return Stylization(
        inputs,
        chosen,
        size=chosen.size if size is None else size,
        seconds=seconds,
        device=place,
        precision=precision,
        budget=memory.available(place) if memory_limit is None else memory_limit,
        resume=None if resume is None else checkpoint.load(resume),
        after=after,
        compiled=compiled,
    )


def _extractor(recipe: Recipe, device: torch.device, precision: Precision, *, compiled: bool) -> FeatureExtractor:
    extract = FeatureExtractor(
        recipe.network,
        [name for name, weight in recipe.layer_weights().items() if weight],
        weights=recipe.weights,
        pooling=recipe.pooling,
        precision=precision,
        check="off",
        device=device,
    )
    if compiled:
        # A graph for each size: there are few of them.
        extract.compile(dynamic=False)  # pyright: ignore[reportUnknownMemberType] (torch leaves it untyped)
    return extract


def _hash(tensor: Tensor) -> str:
    if tensor.is_meta:
        return "meta"
    return hashlib.sha256(tensor.cpu().contiguous().numpy().tobytes()).hexdigest()


def _recoloured(inputs: _Inputs, recipe: Recipe) -> tuple[Tensor, tuple[Place, ...]]:
    """The content and the styles as the network sees them."""
    seen = [colours.prepare(inputs.content, place.style, recipe.color) for place in inputs.places]
    places = [Place(style, place.share, place.mask) for place, (_, style) in zip(inputs.places, seen, strict=True)]
    return seen[0][0], tuple(places)


def _check_resumable(found: checkpoint.Checkpoint, facts: Mapping[str, Any]) -> None:
    differing = [name for name, value in facts.items() if found.facts.get(name) != value]
    if "recipe" in differing:
        theirs, ours = found.facts.get("recipe", {}), facts["recipe"]
        fields = ", ".join(name for name in ours if theirs.get(name) != ours[name])
        differing[differing.index("recipe")] = f"recipe ({fields})"
    if differing:
        raise InputError(f"the checkpoint is of another run: it differs in {', '.join(differing)}")


def _shares(count: int, weights: Sequence[float] | None) -> list[float]:
    """The weights of so many styles, that add up to 1."""
    weights = [1.0] * count if weights is None else list(weights)
    if len(weights) != count:
        raise InputError(f"there are {len(weights)} weights for {count} styles")
    if not all(0 <= weight < math.inf for weight in weights) or not sum(weights):
        raise InputError(f"the styles' weights are {weights}: they must be at least 0, and one above it")
    return [weight / sum(weights) for weight in weights]


def _smaller(look: Whole, image: Tensor) -> Blocks:
    """What to try where the memory did not suffice: every part in tiles, at first of half the long side."""
    if not isinstance(look, Blockwise):
        return Blocks(max(image.shape[2:]) // 2)
    return Blocks(look.blocks.side // 2 if look.blocks.tiled is None else look.blocks.side)


def _is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


@contextmanager
def settings(stage: Stage, device: torch.device) -> Generator[None]:
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
            tensors.without_autocast(device.type),
            repeatable,
        ):
            yield
    except (MemoryError, RuntimeError) as error:
        if _is_out_of_memory(error):
            raise VggfeatError(
                f"out of memory at {stage.width}x{stage.height} pixels: choose a smaller size"
            ) from error
        raise


def _start(recipe: Recipe, content: Tensor) -> Tensor:
    """The picture that the first stage starts from, at any size."""
    if recipe.start == "content":
        return content
    if recipe.start == "noise":
        noise = torch.rand(content.shape, generator=torch.Generator().manual_seed(recipe.seed))
        return noise.to(content.device)
    return images.flatten(images.read_picture(recipe.start)).to(content.device)


def _read_mask(source: Source) -> Tensor:
    """(1, 1, H, W) in [0, 1]: the lightness of a picture, of which transparent parts are outside."""
    if isinstance(source, Tensor):
        mask = source if source.ndim == 4 else source.reshape((1,) * (4 - source.ndim) + tuple(source.shape))
        if mask.ndim != 4 or mask.shape[:2] != (1, 1) or not mask.is_floating_point():
            raise InputError(f"a mask is {source.dtype} {tuple(source.shape)}: pass floating point, (1, 1, H, W)")
        check_range(mask, "unit")
        return mask.detach().float().clamp(0, 1)
    picture = images.read_picture(source)
    mask = picture.rgb.mean(1, keepdim=True)
    return mask if picture.alpha is None else mask * picture.alpha
