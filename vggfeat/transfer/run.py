"""Style transfer: `stylize`, and the run that it returns."""

import hashlib
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor

from vggfeat.errors import InputError, VggfeatError
from vggfeat.features.device import Precision, choose_device, resolve_precision
from vggfeat.features.extractor import FeatureExtractor
from vggfeat.losses.base import Features
from vggfeat.pictures import images
from vggfeat.pictures.sources import Source
from vggfeat.transfer import checkpoint, colours, memory
from vggfeat.transfer.evaluator import Evaluator, extractor
from vggfeat.transfer.inputs import Before, Inputs, Style
from vggfeat.transfer.loop import Position, Run
from vggfeat.transfer.named import recipe as named
from vggfeat.transfer.objective import Term, content_losses, style_losses
from vggfeat.transfer.optimise import OPTIMISERS, LossAndGradient, Optimiser
from vggfeat.transfer.recipe import LABELS, SCHEDULE, Recipe
from vggfeat.transfer.stages import Stage, plan
from vggfeat.transfer.tiles import Blocks
from vggfeat.transfer.windows import Plan, Windows

_StyleTargets = dict[tuple[str, int, int], list[Features]]
"""{(hash of the style, height, width): the target of each style loss}."""


# A style of up to this many times the picture's pixels is evaluated whole where the picture is, since it needs no
# gradient; a larger one in blocks of this side.
_MOST_WHOLE = 2
_STYLE_BLOCK = 256


class SharedOptions(TypedDict, total=False):
    """The options that `stylize`, `texture` and `invert` share; `stylize` describes them."""

    seconds: float | None
    memory_limit: int | str | None
    resume: str | PathLike[str] | None
    device: str
    precision: Precision


class Stylization(Run):
    """A style transfer in progress, as `stylize`, `texture` and `invert` return it.

    Iterate over it for `Progress`, or call `result()` for the finished picture. `image` is the picture so far.

    Args:
        inputs: the pictures.
        recipe: how to optimise.
        size: long side of the result in pixels; a smaller content is enlarged only if the recipe says so.
        requested: the recipe as the user gave it, which a checkpoint records; `recipe` if None.
    The other arguments are those of `stylize`.

    Example:
        >>> import torch
        >>> from vggfeat import recipe, stylize
        >>> content, style = torch.rand(1, 3, 24, 32), torch.rand(1, 3, 32, 32)
        >>> layers = {"content_layers": {"relu2_1": 1}, "style_layers": {"relu1_1": 1}}
        >>> small = recipe("default", network="vgg16", **layers, steps=1)
        >>> run = stylize(content, style, small)
        >>> [(stage.height, stage.width, stage.steps) for stage in run.stages]
        [(24, 32, 1)]
        >>> run.result().shape
        torch.Size([1, 3, 24, 32])
    """

    def __init__(
        self,
        inputs: Inputs,
        recipe: Recipe,
        *,
        size: int,
        requested: Recipe | None = None,
        after: "Stylization | None" = None,
        compiled: bool = False,
        seconds: float | None = None,
        memory_limit: int | str | None = None,
        resume: str | PathLike[str] | None = None,
        device: str = "auto",
        precision: Precision = "auto",
    ) -> None:
        place = choose_device(device)
        height, width = images.fit(inputs.content.shape[2], inputs.content.shape[3], size, enlarge=recipe.enlarge)
        stages = plan(recipe, height, width)
        self._requested = requested or recipe
        self._facts = {
            "recipe": recipe.as_dict(),
            "height": height,
            "width": width,
            "precision": str(resolve_precision(precision, place)).removeprefix("torch."),
        }
        found = None if resume is None else checkpoint.load(resume)
        if found is not None:
            _check_resumable(found, {**self._facts, "inputs": inputs.fingerprint()})
        self._inputs = inputs.to(place)
        self._recoloured = self._inputs.recoloured(recipe.color)
        # With the luminance only, the colours are the content's in any case.
        self._grey = recipe.color != "luminance" and self._recoloured.grey
        start = _grey(self._recoloured.start(recipe)) if self._grey else self._recoloured.start(recipe)
        self._content_losses, self._style_losses = content_losses(recipe), style_losses(recipe)
        self._style_targets: _StyleTargets = {}
        reused = None if after is None else after.reusable(recipe, place, precision)
        if reused is not None:
            self._extract, known = reused
            # Targets of sizes that this run has no use for are freed.
            sizes = [
                _style_size(style, stage.height * stage.width, recipe, self._extract.minimum_size)
                for style in self._recoloured.styles
                for stage in stages
            ]
            self._style_targets = {key: known[key] for key in known if key[1:] in sizes}
        else:
            layers = [name for name, weight in recipe.layer_weights().items() if weight]
            self._extract = extractor(recipe, layers, place, precision)
            if compiled:
                # One graph for each size: there are few sizes.
                self._extract.compile(dynamic=False)
        if found is None:
            budget = memory.budget(memory_limit, place)
            blocks = memory.divide(self._extract, recipe, stages, budget, styles=len(inputs.styles))
            self._windows = self._plans(recipe, stages, budget)
        else:
            # Keep the first run's blocks and windows: others would change the last digits.
            blocks = [each and Blocks(*each) for each in found.facts["blocks"]]
            self._windows = {Plan(*each) for each in found.facts.get("windows", ())}
        position = None if found is None else _position(found, place, recipe, stages)
        super().__init__(recipe, stages, self._extract, start, blocks=blocks, seconds=seconds, position=position)

    @property
    def image(self) -> Tensor:
        """The picture so far, (1, 3, H, W) in [0, 1]: with its final colours, and with `keep` applied."""
        picture = _grey(self._picture) if self._grey else self._picture
        image = colours.finish(picture, self._inputs.content, self.recipe.color)
        if self._inputs.keep is None:
            return image
        height, width = image.shape[2:]
        content, keep = (images.resize(x, height, width) for x in (self._inputs.content, self._inputs.keep))
        return torch.lerp(image, content, keep)

    def save(self, path: str | PathLike[str]) -> None:
        """Write a checkpoint for `resume`. If that fails, the old file stays.

        Raises `VggfeatError` before the first step.
        """
        if self._position is None:
            raise VggfeatError("there is nothing to save before the first step")
        stage, step, taken, seconds, tensors, recent = self._position
        facts = {
            **self._facts,
            "asked": self._requested.as_dict(),
            "inputs": self._inputs.fingerprint(),
            "stage": stage,
            "step": step,
            "taken": taken,
            "seconds": seconds,
            "blocks": list(self.blocks),
            "windows": sorted(self._windows),
        }
        checkpoint.save(path, facts, {**tensors, **({"recent": torch.stack(recent)} if recent else {})})

    def reusable(
        self, recipe: Recipe, device: torch.device, precision: Precision
    ) -> tuple[FeatureExtractor, _StyleTargets] | None:
        """The network and the style targets of this run, if a run of `recipe` can use them; else None."""
        same = (
            "network",
            "weights",
            *("mean", "std", "input_order"),
            "pooling",
            "margin",
            "objective",
            "content_layers",
            "style_layers",
        )
        fits = (
            all(getattr(recipe, name) == getattr(self.recipe, name) for name in same)
            and self.recipe.layer_weights().keys() == recipe.layer_weights().keys()
            and resolve_precision(precision, device) == self._extract.dtype
            and self._inputs.content.device == device
        )
        return (self._extract, self._style_targets) if fits else None

    def make_optimiser(self, number: int, state: Mapping[str, Tensor] | None) -> Optimiser:
        """The optimiser of stage `number`, which starts from the picture so far, or resumes from `state`."""
        stage, evaluator = self.stages[number - 1], self.evaluators[number - 1]
        height, width = stage.height, stage.width
        content = images.resize(self._recoloured.content, height, width)
        terms = self._terms(evaluator, content)
        keep = None if self._inputs.keep is None else images.resize(self._inputs.keep, height, width)

        def painted(image: Tensor) -> LossAndGradient:
            # The network sees the content where it is kept, and no gradient reaches it there.
            found = evaluator.evaluate(terms, image if keep is None else torch.lerp(image, content, keep))
            gradient = found.gradient if keep is None else found.gradient * (1 - keep)
            return found._replace(gradient=_grey(gradient) if self._grey else gradient)

        before = self._inputs.before
        closure = painted if before is None else before.held(painted, height, width, self.recipe.color)
        image = images.resize(self._picture, height, width, wrap=self.recipe.edges == "wrap")
        return OPTIMISERS[self.recipe.optimiser](image, closure, self.recipe, state)

    def _terms(self, evaluator: Evaluator, content: Tensor) -> list[Term]:
        """The objective of a stage whose content is `content`."""
        targets = evaluator.targets(content, self._content_losses)
        terms = [loss.term(target) for loss, target in zip(self._content_losses, targets, strict=True)]
        for style in self._recoloured.styles if self._style_losses else ():
            targets = self._targets(style, evaluator.blocks, content.shape[2] * content.shape[3])
            masks = None if style.mask is None else self._masks(style.mask, content, evaluator)
            share = style.weight if style.mask is None else style.weight * float(style.mask.mean())
            if share:
                pairs = zip(self._style_losses, targets, strict=True)
                terms += [loss.term(target, share=share, masks=masks) for loss, target in pairs]
        return terms

    def _plans(self, recipe: Recipe, stages: Sequence[Stage], budget: int | None) -> set[Plan]:
        """The windows of the styles that are too large for the memory. Raises `RecipeError` if they do not help."""
        if budget is None or not self._style_losses:
            return set()
        areas = {stage.height * stage.width for stage in stages}
        sizes = {
            (area, _style_size(style, area, recipe, self._extract.minimum_size))
            for style in self._recoloured.styles
            for area in areas
        }
        windows = Windows(self._extract, recipe.margin)
        large = (size for area, size in sizes if size[0] * size[1] > _MOST_WHOLE * area)
        plans = (windows.choose(*size, self._style_losses, budget) for size in large)
        return {plan for plan in plans if plan is not None}

    def _targets(self, style: Style, blocks: Blocks | None, area: int) -> list[Features]:
        """The targets of the style losses, with the style at the scale of a picture of `area` pixels."""
        height, width = _style_size(style, area, self.recipe, self._extract.minimum_size)
        if blocks is None and height * width > _MOST_WHOLE * area:
            blocks = Blocks(_STYLE_BLOCK)
        key = (_hash(style.picture) + ("" if style.area is None else _hash(style.area)), height, width)
        plan = next((each for each in self._windows if each[:2] == (height, width)), None)
        if key not in self._style_targets and plan is not None:
            windows = Windows(self._extract, self.recipe.margin)
            self._style_targets[key] = windows.windowed(style.picture, plan, self._style_losses, style.area)
        elif key not in self._style_targets:
            # A style need not tile: its margin is always mirrored.
            evaluator = Evaluator(self._extract, self.recipe.margin, blocks=blocks)
            resized = images.resize(style.picture, height, width)
            masks = None if style.area is None else self._masks(style.area, resized, evaluator)
            self._style_targets[key] = evaluator.targets(resized, self._style_losses, masks)
        return self._style_targets[key]

    def _masks(self, mask: Tensor, picture: Tensor, evaluator: Evaluator) -> Features:
        """The mask at the size of the features of `picture` in each style layer."""
        fine = images.resize(mask, picture.shape[2], picture.shape[3])
        sizes = evaluator.sizes(picture)
        return {
            name: F.adaptive_avg_pool2d(fine, sizes[name]) for _, _, loss in self._style_losses for name in loss.layers
        }


def stylize(
    content: Source,
    style: Source | Sequence[Source],
    recipe: Recipe | str = "default",
    *,
    size: int | None = None,
    weights: Sequence[float] | None = None,
    masks: Sequence[Source | None] | None = None,
    style_masks: Sequence[Source | None] | None = None,
    keep: Source | None = None,
    before: Before | None = None,
    seconds: float | None = None,
    memory_limit: int | str | None = None,
    resume: str | PathLike[str] | None = None,
    after: Stylization | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    compiled: bool = False,
) -> Stylization:
    """Paint `content` in the style of `style`.

    The picture is optimised so that its features match those of the content and the statistics of the style's
    (Gatys, Ecker & Bethge, 2016), from a small size to the full one. Nothing runs before the first iteration. The same
    seed gives the same picture on the same device, unless `seconds` is given.

    Args:
        content: the picture to paint: a file, its bytes, a binary file object, a PIL image, an array (H, W, 3), or a
            float RGB tensor (1, 3, H, W) or (3, H, W) in [0, 1]. Transparent parts get the mean visible colour. If
            content and styles are grey, so is the result.
        style: the picture whose style is taken, in the same form; or several of them. Transparent parts do not count.
        recipe: a `Recipe`, or the name of one.
        size: long side of the result in pixels, the recipe's if None; a smaller content is not enlarged, unless the
            recipe has `enlarge`.
        weights: one for each style, at least 0: the proportions in which they mix. None weighs them equally.
        masks: one for each style: where it applies. A picture of any size whose white is inside, or a tensor
            (1, 1, H, W) in [0, 1]; None applies the style everywhere.
        style_masks: one for each style, in the form of a mask: the part of the style picture that counts; None counts
            all of it.
        keep: where the content stays as it is, in the form of a mask.
        before: the temporal loss, if the content is a frame of a clip; see `stylize_frames`.
        seconds: time for the optimisation in seconds, above 0, divided among the stages; None runs the recipe's steps.
        memory_limit: memory for a step, in bytes or as text such as `4GB`; None allows 0.6 of what is free. A picture
            that needs more is computed in blocks, with the same gradient.
        resume: a checkpoint of a run with the same inputs and recipe, written by `Stylization.save`. A finished run
            continues if the recipe now has more `steps`.
        after: an earlier run whose network and style targets are reused if styles, sizes and recipe allow it.
        device: `auto` (CUDA, else MPS, else the CPU) or the name of a torch device.
        precision: of the network; `auto` takes bfloat16 if the device is fast at it, else float32.
        compiled: compile the network with torch, once for each size that is not divided. Meant for CUDA, where it has
            not been timed; on a CPU it is slower.

    Raises `ImageError`, `InputError`, `RecipeError`, `LayerError`, `WeightsError`.

    Example:
        >>> import torch
        >>> from vggfeat import recipe, stylize
        >>> content, style = torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32)
        >>> layers = {"content_layers": {"relu2_1": 1}, "style_layers": {"relu1_1": 1}}
        >>> small = recipe("default", network="vgg16", **layers, steps=1)
        >>> image = stylize(content, style, small).result()
        >>> image.shape, bool(image.min() >= 0), bool(image.max() <= 1)
        (torch.Size([1, 3, 32, 32]), True, True)
    """
    chosen = named(recipe) if isinstance(recipe, str) else recipe
    if before is not None and resume is not None:
        raise InputError("a frame that follows others cannot be resumed: paint it again")
    return Stylization(
        Inputs.read(content, style, weights=weights, masks=masks, style_masks=style_masks, keep=keep, before=before),
        chosen,
        size=chosen.size if size is None else size,
        after=after,
        compiled=compiled,
        seconds=seconds,
        memory_limit=memory_limit,
        resume=resume,
        device=device,
        precision=precision,
    )


def _position(found: checkpoint.Checkpoint, device: torch.device, recipe: Recipe, stages: Sequence[Stage]) -> Position:
    """The position of a checkpoint's run. Raises `InputError` if it has taken more steps than the recipe now has."""
    # The optimiser moves its pairs one by one, so that they do not take the memory of the device twice.
    tensors = {name: x if name.startswith("pair.") else x.to(device) for name, x in found.tensors.items()}
    recent = list(tensors.pop("recent", ()))
    facts = found.facts
    stage, step = facts["stage"], facts["step"]
    changed = any(facts["recipe"].get(name) != getattr(recipe, name) for name in SCHEDULE)
    if changed and stage == len(stages) and step > stages[-1].steps:
        raise InputError(
            f"the checkpoint has taken {step} steps at {facts['width']}x{facts['height']} pixels, and "
            f"the recipe has only {stages[-1].steps}: more steps continue it"
        )
    return Position(stage, step, facts["taken"], facts["seconds"], tensors, recent)


def _style_size(style: Style, area: int, recipe: Recipe, least: int) -> tuple[int, int]:
    """Height and width, at least `least`, of a style at the scale of a picture of `area` pixels."""
    height, width = style.picture.shape[2:]
    scale = recipe.style_scale * (area / (height * width)) ** 0.5
    return max(least, round(height * scale)), max(least, round(width * scale))


def _grey(x: Tensor) -> Tensor:
    """The mean of the channels in each of them: the nearest grey picture, or the gradient among grey pictures."""
    return x.mean(1, keepdim=True).expand_as(x).contiguous()


def _hash(tensor: Tensor) -> str:
    return "meta" if tensor.is_meta else hashlib.sha256(tensor.cpu().contiguous().numpy().tobytes()).hexdigest()


def _check_resumable(found: checkpoint.Checkpoint, facts: Mapping[str, Any]) -> None:
    theirs, ours = found.facts["recipe"], facts["recipe"]
    free = (*LABELS, *SCHEDULE)
    fields = [name for name in ours if name not in free and theirs.get(name, ours[name]) != ours[name]]
    differing = [name for name, value in facts.items() if name != "recipe" and found.facts.get(name) != value]
    if fields:
        differing.insert(0, f"recipe ({', '.join(fields)})")
    if differing:
        raise InputError(f"the checkpoint belongs to another run, which differs in {', '.join(differing)}")
