"""The pictures of a run: the content, the styles with weights and masks, and the picture that it starts from."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

from vggfeat.errors import InputError
from vggfeat.pictures import images, sources
from vggfeat.pictures.ranges import check_range
from vggfeat.pictures.sources import Source
from vggfeat.transfer import colours
from vggfeat.transfer.optimise import Closure, LossAndGradient
from vggfeat.transfer.recipe import Color, Recipe

# A mask whose white is below this, half a step of 8 bits, is black.
_LEAST_COUNT = 0.5 / 255
# Channels of a grey picture differ by up to this: profiles and JPEG round each on its own.
_LEAST_CHROMA = 2.5 / 255


@dataclass(frozen=True, slots=True)
class Style:
    """A style picture.

    Args:
        picture: (1, 3, H, W) in [0, 1].
        weight: its share of the style term, 0 to 1.
        mask: where it applies, (1, 1, H, W) in [0, 1] on the CPU; None is everywhere.
        area: how much each position of the picture counts, (1, 1, H, W) in [0, 1] on the CPU, of the picture's size;
            None counts all positions.
    """

    picture: Tensor
    weight: float = 1.0
    mask: Tensor | None = None
    area: Tensor | None = None

    @classmethod
    def read(cls, source: Source, weight: float, mask: Source | None = None, area: Source | None = None) -> Self:
        """Read a style, whose transparent part does not count. Raises `ImageError`, `InputError`."""
        picture, alpha = sources.read_visible(source, "style")
        counts = None if area is None else images.resize(read_mask(area), picture.shape[2], picture.shape[3])
        if alpha is not None:
            counts = alpha if counts is None else counts * alpha
        if counts is not None and float(counts.max()) < _LEAST_COUNT:
            why = "its mask is black" if alpha is None else "it is transparent"
            raise InputError(f"no part of the style {sources.name(source)!r} counts: {why}")
        return cls(picture, weight, None if mask is None else read_mask(mask), counts)

    def to(self, device: torch.device) -> Self:
        """The style with its picture on `device`; the masks stay where they are, since they are read once a stage."""
        return replace(self, picture=self.picture.to(device))


@dataclass(frozen=True, slots=True)
class Before:
    """The temporal loss of a frame of a clip: it should match earlier paintings where their pixels are visible.

    Args:
        picture: earlier paintings, warped onto the frame, (1, 3, H, W) in [0, 1]. The frame starts from it.
        mask: where the frame should look like that, (1, 1, H, W) in [0, 1].
        weight: of the mean squared difference there, as a multiple of the objective at `picture`.
    """

    picture: Tensor
    mask: Tensor
    weight: float

    def to(self, device: torch.device) -> Self:
        """The same on `device`."""
        return replace(self, picture=self.picture.to(device), mask=self.mask.to(device))

    def blended(self, painting: Tensor) -> Tensor:
        """The picture that differs least from `painting` and, `weight` times as much, from the earlier paintings.

        `painting` is (1, 3, H, W), of the size and on the device of `picture`.
        """
        return torch.lerp(painting, self.picture, self.mask * (self.weight / (1 + self.weight)))

    def held(self, closure: Closure, height: int, width: int, mode: Color) -> Closure:
        """An objective with the weighted difference added, as the term `temporal`, at `height` x `width` pixels.

        The unit of the weight is the objective at the first call, since objectives differ by orders of magnitude. If
        the content gives the colours (`mode`), the difference is one of luminance.
        """
        target = colours.compared(images.resize(self.picture, height, width), mode)
        mask = images.resize(self.mask, height, width) * (self.weight / target.numel())
        unit: Tensor | None = None

        def evaluate(image: Tensor) -> LossAndGradient:
            nonlocal unit
            found = closure(image)
            unit = found.loss if unit is None else unit
            difference = colours.compared(image, mode) - target
            pull = unit * mask * difference
            loss = (pull * difference).sum()
            gradient = found.gradient + 2 * colours.gradient_of_compared(pull, mode)
            return LossAndGradient(found.loss + loss, gradient, {**found.terms, "temporal": loss})

        return evaluate


@dataclass(frozen=True, slots=True)
class Inputs:
    """The pictures of a run.

    Args:
        content: (1, 3, H, W) in [0, 1].
        styles: at least one.
        keep: where the content stays as it is, (1, 1, H, W) in [0, 1]; None is nowhere.
        before: the temporal loss, if the content is a frame of a clip.
    """

    content: Tensor
    styles: tuple[Style, ...]
    keep: Tensor | None = None
    before: Before | None = None

    @classmethod
    def read(
        cls,
        content: Source,
        style: Source | Sequence[Source],
        *,
        weights: Sequence[float] | None = None,
        masks: Sequence[Source | None] | None = None,
        style_masks: Sequence[Source | None] | None = None,
        keep: Source | None = None,
        before: Before | None = None,
    ) -> Self:
        """Read the arguments of `stylize`. Raises `ImageError`, `InputError`."""
        styles = [style] if sources.is_source(style) else list(style)
        if not styles:
            raise InputError("there is no style: pass one picture or several")
        shares = _shares(len(styles), weights)
        regions, areas = _one_for_each(masks, styles, "masks"), _one_for_each(style_masks, styles, "style masks")
        pictures = (Style.read(*each) for each in zip(styles, shares, regions, areas, strict=True))
        kept = None if keep is None else read_mask(keep)
        inputs = cls(sources.read(content, "content"), tuple(pictures), kept, before)
        _check_masks(inputs)
        return inputs

    @property
    def grey(self) -> bool:
        """Whether content and styles have no colour."""
        return all(_is_grey(picture) for picture in (self.content, *(style.picture for style in self.styles)))

    def to(self, device: torch.device) -> Self:
        """The inputs on `device`."""
        keep = None if self.keep is None else self.keep.to(device)
        before = None if self.before is None else self.before.to(device)
        styles = tuple(style.to(device) for style in self.styles)
        return replace(self, content=self.content.to(device), styles=styles, keep=keep, before=before)

    def recoloured(self, mode: Color) -> Self:
        """The inputs as the network sees them in a recipe's colour mode."""
        pairs = [colours.prepare(self.content, _representative(style), mode) for style in self.styles]
        styles = (
            replace(style, picture=images.flatten(images.Picture(picture, _on(picture, style.area))))
            for style, (_, picture) in zip(self.styles, pairs, strict=True)
        )
        return replace(self, content=pairs[0][0], styles=tuple(styles))

    def start(self, recipe: Recipe) -> Tensor:
        """The picture that the first stage starts from, (1, 3, H, W) in [0, 1], of any size."""
        if self.before is not None:
            picture = self.before.picture
            return (
                colours.compared(picture, recipe.color).expand_as(picture) if recipe.color == "luminance" else picture
            )
        if recipe.start == "content":
            return self.content
        if recipe.start == "noise":
            picture = torch.rand(self.content.shape, generator=torch.Generator().manual_seed(recipe.seed))
        else:
            picture = sources.read(recipe.start, "start")
        return picture.to(self.content.device)

    def fingerprint(self) -> str:
        """A SHA-256 over all values."""
        found = hashlib.sha256()
        for style in self.styles:
            found.update(repr(style.weight).encode())
        earlier = () if self.before is None else (self.before.picture, self.before.mask)
        pictures = (x for style in self.styles for x in (style.picture, style.mask, style.area))
        for tensor in (self.content, self.keep, *pictures, *earlier):
            found.update(b"none" if tensor is None else tensor.cpu().contiguous().numpy().tobytes())
        return found.hexdigest()


def read_mask(source: Source) -> Tensor:
    """A mask, (1, 1, H, W) in [0, 1]: the mean of a picture's channels, times its opacity.

    Raises `ImageError`, and `InputError` for a tensor that is not floating point, (1, 1, H, W) or fewer axes.
    """
    if isinstance(source, Tensor):
        mask = source if source.ndim == 4 else source.reshape((1,) * (4 - source.ndim) + tuple(source.shape))
        if mask.ndim != 4 or mask.shape[:2] != (1, 1) or not mask.is_floating_point():
            raise InputError(f"a mask is {source.dtype} {tuple(source.shape)}: pass floating point, (1, 1, H, W)")
        check_range(mask, "unit")
        return mask.detach().float().clamp(0, 1).cpu()
    if isinstance(source, np.ndarray):
        values: Tensor = torch.tensor(source)
        return read_mask(values / 255 if values.dtype == torch.uint8 else values)
    picture = sources.picture(source, "a mask")
    mask = picture.rgb.mean(1, keepdim=True)
    return mask if picture.alpha is None else mask * picture.alpha


def _check_masks(inputs: Inputs) -> None:
    """Refuse masks that leave nothing to paint."""
    regions = [style.mask for style in inputs.styles if style.weight]
    if all(mask is not None and float(mask.max()) < _LEAST_COUNT for mask in regions):
        raise InputError("no style applies anywhere, since its mask is black: white is inside")
    if inputs.keep is not None and float(inputs.keep.min()) > 1 - _LEAST_COUNT:
        raise InputError("the whole content is kept, since the mask of what to keep is white: paint where it is black")


def _one_for_each(given: Sequence[Source | None] | None, styles: Sequence[Source], name: str) -> list[Source | None]:
    found: list[Source | None] = list([None] * len(styles) if given is None else given)
    if len(found) != len(styles):
        raise InputError(f"there are {len(found)} {name} for {len(styles)} styles: pass one for each, or None")
    return found


def _representative(style: Style) -> Tensor:
    """The style's picture, with the positions that do not count replaced by those that do, for colour statistics."""
    area = _on(style.picture, style.area)
    if area is None:
        return style.picture
    counts = (area >= area.max() / 2).flatten()
    pixels = style.picture.flatten(2)
    inside, outside = pixels[..., counts], int((~counts).sum())
    pixels = pixels.clone()
    pixels[..., ~counts] = inside[..., torch.arange(outside, device=pixels.device) % inside.shape[2]]
    return pixels.view_as(style.picture)


def _on(picture: Tensor, area: Tensor | None) -> Tensor | None:
    return None if area is None else area.to(picture.device)


def _is_grey(picture: Tensor) -> bool:
    return not picture.is_meta and float((picture.amax(1) - picture.amin(1)).max()) <= _LEAST_CHROMA


def _shares(count: int, weights: Sequence[float] | None) -> list[float]:
    """The weights of `count` styles, scaled to sum to 1."""
    weights = [1.0] * count if weights is None else list(weights)
    if len(weights) != count:
        raise InputError(f"there are {len(weights)} weights for {count} styles")
    if not all(0 <= weight < math.inf for weight in weights) or not sum(weights):
        raise InputError(f"the styles' weights are {weights}: they must be at least 0, and one above it")
    return [weight / sum(weights) for weight in weights]
