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
from vggfeat.pictures import sources
from vggfeat.pictures.ranges import check_range
from vggfeat.pictures.sources import Source
from vggfeat.transfer import colours
from vggfeat.transfer.recipe import Color, Recipe


@dataclass(frozen=True, slots=True)
class Style:
    """A style picture.

    Args:
        picture: (1, 3, H, W) in [0, 1].
        weight: its share of the style term, 0 to 1.
        mask: where it applies, (1, 1, H, W) in [0, 1] on the CPU; None is everywhere.
    """

    picture: Tensor
    weight: float = 1.0
    mask: Tensor | None = None

    def to(self, device: torch.device) -> Self:
        """The style with its picture on `device`; the mask stays where it is, since it is read once a stage."""
        return replace(self, picture=self.picture.to(device))


@dataclass(frozen=True, slots=True)
class Inputs:
    """The pictures of a run.

    Args:
        content: (1, 3, H, W) in [0, 1].
        styles: at least one.
        keep: where the content stays as it is, (1, 1, H, W) in [0, 1]; None is nowhere.
    """

    content: Tensor
    styles: tuple[Style, ...]
    keep: Tensor | None = None

    @classmethod
    def read(
        cls,
        content: Source,
        style: Source | Sequence[Source],
        *,
        weights: Sequence[float] | None = None,
        masks: Sequence[Source | None] | None = None,
        keep: Source | None = None,
    ) -> Self:
        """Read the arguments of `stylize`. Raises `ImageError`, `InputError`."""
        styles = [style] if sources.is_source(style) else list(style)
        if not styles:
            raise InputError("there is no style: pass one picture or several")
        shares = _shares(len(styles), weights)
        regions = [None] * len(styles) if masks is None else list(masks)
        if len(regions) != len(styles):
            raise InputError(f"there are {len(regions)} masks for {len(styles)} styles: pass one for each, or None")
        return cls(
            sources.read(content, "content"),
            tuple(
                Style(sources.read(each, "style"), share, None if mask is None else read_mask(mask))
                for each, share, mask in zip(styles, shares, regions, strict=True)
            ),
            None if keep is None else read_mask(keep),
        )

    def to(self, device: torch.device) -> Self:
        """The inputs on `device`."""
        keep = None if self.keep is None else self.keep.to(device)
        return replace(
            self, content=self.content.to(device), styles=tuple(s.to(device) for s in self.styles), keep=keep
        )

    def recoloured(self, mode: Color) -> Self:
        """The inputs as the network sees them in a recipe's colour mode."""
        pairs = [colours.prepare(self.content, style.picture, mode) for style in self.styles]
        styles = (replace(style, picture=picture) for style, (_, picture) in zip(self.styles, pairs, strict=True))
        return replace(self, content=pairs[0][0], styles=tuple(styles))

    def start(self, recipe: Recipe) -> Tensor:
        """The picture that the first stage starts from, (1, 3, H, W) in [0, 1], of any size."""
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
        for tensor in (self.content, self.keep, *(x for style in self.styles for x in (style.picture, style.mask))):
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


def _shares(count: int, weights: Sequence[float] | None) -> list[float]:
    """The weights of `count` styles, scaled to sum to 1."""
    weights = [1.0] * count if weights is None else list(weights)
    if len(weights) != count:
        raise InputError(f"there are {len(weights)} weights for {count} styles")
    if not all(0 <= weight < math.inf for weight in weights) or not sum(weights):
        raise InputError(f"the styles' weights are {weights}: they must be at least 0, and one above it")
    return [weight / sum(weights) for weight in weights]
