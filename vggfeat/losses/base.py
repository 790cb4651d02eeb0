"""The base of every loss that compares features. A loss takes {layer: features}; it never runs the network itself.

A loss is configured once. `loss.target(features)` computes, without a graph, what the target's features are reduced to
(the features themselves, Gram matrices, moments), so that a target that stays is computed once.
`loss(features, target)` compares, and its gradient reaches `features` only.

    extract = FeatureExtractor("vgg19", objective.layers)
    targets = objective.target(extract(photograph))
    total, terms = objective(extract(prediction), targets)
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Self, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vggfeat.errors import InputError, one_of
from vggfeat.features import tensors

Features = Mapping[str, Tensor]
Layers = Mapping[str, float] | Sequence[str]
Reduction = Literal["mean", "none"]
Distance = Literal["l2", "l1", "charbonnier", "huber", "cosine"]


class FeatureLoss(nn.Module):
    """What losses share: a weighted sum over layers of a distance between summaries of their features.

    Args:
        layers: {layer: weight}, or layers of weight 1. The layer `image` is the image itself, where the mapping
            holds it.
        reduction: `mean` over the batch, a scalar, or `none`, (N,).
    """

    aligned = True
    """Whether features are compared position by position, so that two images must be of one size."""

    local = False
    """Whether the distance is a mean over positions that do not know of each other."""

    def __init__(self, layers: Layers, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        layers = [layers] if isinstance(layers, str) else layers
        self.weights: dict[str, float] = dict(layers) if isinstance(layers, Mapping) else dict.fromkeys(layers, 1.0)
        if not self.weights:
            raise InputError(f"{type(self).__name__} needs at least one layer")
        self.reduction: Reduction = one_of("reduction", reduction, get_args(Reduction))

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that this loss reads."""
        return tuple(self.weights)

    def summary(self, x: Tensor) -> Tensor:
        """What the features `x` (N, C, H, W) of one layer are compared by, in float32 at least."""
        raise NotImplementedError

    def distance(self, x: Tensor, target: Tensor) -> Tensor:
        """How far two summaries are apart: (N,). The mean square, unless a loss says otherwise."""
        return (x - target).square().flatten(1).mean(1)

    def target(self, features: Features, *, graph: bool = False) -> dict[str, Tensor]:
        """What `features` are to be compared with; a batch of one serves a batch of any size.

        With `graph` the gradient reaches these features too.
        """
        found = {name: read(features, name) for name in self.layers}
        with tensors.without_autocast(next(iter(found.values())).device.type):
            return {name: self.summary(x if graph else x.detach()) for name, x in found.items()}

    def forward(self, features: Features, target: Features) -> Tensor:
        """The loss of `features` against what `target()` returned for the target's features, in float32 at least."""
        some = read(features, next(iter(self.weights)))
        with tensors.without_autocast(some.device.type):
            values: list[Tensor] = []
            for name, weight in self.weights.items():
                summary = self.summary(read(features, name))
                values.append(weight * self.distance(summary, self.fitting(target, name, summary)))
            return self.reduce(torch.stack(values).sum(0))

    def fitting(self, target: Features, name: str, summary: Tensor) -> Tensor:
        """The target of one layer, where it can be compared with `summary`. Raises `InputError` where it cannot."""
        found = read(target, name)
        batch = found.shape[0] == 1 or found.shape[0] == summary.shape[0]
        if not batch or (self.aligned and found.shape[1:] != summary.shape[1:]):
            shapes = ["x".join(map(str, x.shape)) for x in (summary, found)]
            raise InputError(f"{name} is {shapes[0]} of the prediction and {shapes[1]} of the target: they do not fit")
        return found

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # What was published in float32 keeps its digits when a parent is turned to half precision.
        before = dict(self.named_buffers(recurse=False))
        super()._apply(fn, recurse)  # pyright: ignore[reportUnknownMemberType] (untyped upstream)
        for name, x in before.items():
            moved = self.get_buffer(name)
            if moved.dtype in (torch.float16, torch.bfloat16):
                self.register_buffer(name, x.to(moved.device), persistent=False)
        return self

    def reduce(self, values: Tensor) -> Tensor:
        """(N,) to what `reduction` asks for."""
        return values.mean() if self.reduction == "mean" else values


class PooledLoss(FeatureLoss):
    """A loss of sums over space: those of the parts of a picture add up to those of the whole."""

    aligned = False

    def moments(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """The sums over the positions of `x` (N, C, H, W), each weighed by `mask` (1, 1, H, W) in [0, 1]."""
        raise NotImplementedError

    def settle(self, moments: Tensor, positions: Tensor | float) -> Tensor:
        """The summary, from the sums over all positions and their number."""
        raise NotImplementedError

    def summary(self, x: Tensor) -> Tensor:
        """What the features of one layer are compared by, in float32 at least."""
        return self.settle(self.moments(x), x.shape[2] * x.shape[3])


def _charbonnier(x: Tensor, y: Tensor) -> Tensor:
    return ((x - y).square() + 1e-6).sqrt()


ELEMENTWISE: Mapping[Distance, Callable[[Tensor, Tensor], Tensor]] = {
    "l2": lambda x, y: (x - y).square(),
    "l1": lambda x, y: (x - y).abs(),
    "charbonnier": _charbonnier,
    "huber": lambda x, y: F.huber_loss(x, y, reduction="none"),
}


def read(features: Features, name: str) -> Tensor:
    """The features of one layer. Raises `InputError` where the mapping does not hold them."""
    try:
        return features[name]
    except KeyError:
        raise InputError(f"the features hold no {name}, only {', '.join(features)}") from None


def ordered_sum(values: Mapping[str, Tensor]) -> Tensor:
    """Add one after the other, from the first on, as the `lpips` package does: the same to the last bit."""
    total, *rest = values.values()
    for value in rest:
        total = total + value
    return total
