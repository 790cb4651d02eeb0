"""The base class of the losses that compare features. A loss takes {layer: features} and never runs a network.

`loss.target(features)` reduces the target's features to what the loss compares (the features themselves, Gram
matrices, moments) without a graph, so a fixed target is computed once. `loss(features, target)` compares. Its gradient
reaches `features` only.

    extract = FeatureExtractor("vgg19", objective.layers)
    targets = objective.target(extract(photograph))
    total, terms = objective(extract(prediction), targets)
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, Self, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vggfeat.errors import InputError, one_of
from vggfeat.features import tensors

Features = Mapping[str, Tensor]
Layers = Mapping[str, float] | Sequence[str]
Reduction = Literal["mean", "sum", "none"]
Distance = Literal["l2", "l1", "charbonnier", "huber", "cosine"]


class FeatureLoss(nn.Module):
    """Base class: reduces the features of each layer to a summary and adds up the weighted distances of summaries.

    A subclass defines `summary` and, unless it is the mean square, `distance`.

    Args:
        layers: {layer: weight}, or layer names, each of weight 1. The layer `image` is the image itself in [0, 1].
        reduction: `mean` or `sum` over the batch gives a scalar, `none` gives (N,).

    Raises `InputError` if there is no layer, or for an unknown reduction.
    """

    aligned = True
    """Whether features are compared position by position, so that both images must have the same size."""

    local = False
    """Whether the distance is a mean over positions, each of which depends on its own features only."""

    def __init__(self, layers: Layers, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        self.weights = layer_weights(layers)
        if not self.weights:
            raise InputError(f"{type(self).__name__} needs at least one layer")
        self.reduction: Reduction = one_of("reduction", reduction, get_args(Reduction))

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the layers that this loss reads."""
        return tuple(self.weights)

    def summary(self, x: Tensor) -> Tensor:
        """Reduce the features (N, C, H, W) of one layer to what is compared, in float32 or float64."""
        raise NotImplementedError

    def distance(self, x: Tensor, target: Tensor) -> Tensor:
        """The distance (N,) between two summaries: the mean square difference, unless a subclass overrides it."""
        return (x - target).square().flatten(1).mean(1)

    def compare(self, x: Tensor, target: Tensor, name: str) -> Tensor:
        """The distance (N,) of the features `x` (N, C, H, W) of layer `name` to a fixed target's summary.

        A subclass may save memory here, at the price of second derivatives and of the gradient of the target.
        """
        summary = self.summary(x)
        return self.distance(summary, self.matching({name: target}, name, summary))

    def prepared(self, summary: Tensor) -> Tensor:
        """A fixed target's summary, with what every `distance` to it would compute again."""
        return summary

    def target(self, features: Features, *, graph: bool = False) -> dict[str, Tensor]:
        """The summaries of a target's features, {layer: summary}, to pass to `forward`.

        A target of batch size 1 is compared with every image of a batch. The summaries are detached, unless `graph` is
        true: then the gradient reaches these features too.
        """
        read = {name: layer_features(features, name) for name in self.layers}
        with outside_inference_mode(), tensors.without_autocast(next(iter(read.values())).device.type):
            if graph:
                return {name: self.summary(x) for name, x in read.items()}
            return {name: self.prepared(self.summary(usable_in_training(x.detach()))) for name, x in read.items()}

    def forward(self, features: Features, target: Features) -> Tensor:
        """The loss of `features` against `target`, the result of `target()`: a scalar or (N,), at least float32.

        Raises `InputError` if a layer is missing or if the shapes do not match.
        """
        first = layer_features(features, next(iter(self.weights)))
        with tensors.without_autocast(first.device.type):
            values: list[Tensor] = []
            for name, weight in self.weights.items():
                summary = self.summary(layer_features(features, name))
                values.append(weight * self.distance(summary, self.matching(target, name, summary)))
            return self.reduce(torch.stack(values).sum(0))

    def matching(self, target: Features, name: str, summary: Tensor) -> Tensor:
        """The target's summary of layer `name`. Raises `InputError` if its shape does not match `summary`."""
        expected = layer_features(target, name)
        batch = expected.shape[0] == 1 or expected.shape[0] == summary.shape[0]
        if not batch or (self.aligned and expected.shape[1:] != summary.shape[1:]):
            shapes = ["x".join(map(str, x.shape)) for x in (summary, expected)]
            raise InputError(
                f"{name} of the prediction is {shapes[0]} and of the target {shapes[1]}: the shapes must match"
            )
        return expected

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        before = dict(self.named_buffers(recurse=False))
        with outside_inference_mode():  # tensors made in inference mode could not take part in training
            super()._apply(fn, recurse)
            lost = bool(before) and not tensors.keeps_values(fn, next(iter(before.values())))
            for name, x in (self.published() if lost else before).items():
                moved = self.get_buffer(name)
                half = moved.dtype in (torch.float16, torch.bfloat16)
                if lost or half:  # published weights keep their float32 digits in half precision
                    self.register_buffer(name, x.to(moved.device, None if half else moved.dtype), persistent=False)
        return self

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        with outside_inference_mode():
            super()._apply(usable_in_training)

    def register_published(self) -> None:
        """Register `published()` as buffers that stay out of the state dict, on torch's default device."""
        with outside_inference_mode(), torch.device("cpu"):
            published = self.published()
        with outside_inference_mode():
            for name, x in published.items():
                self.register_buffer(name, x.to(torch.get_default_device()), persistent=False)

    def published(self) -> Mapping[str, Tensor]:
        """The published weights that the loss needs, on CPU in float32: {buffer name: (C,)}. Most losses have none."""
        return {}

    def reduce(self, values: Tensor) -> Tensor:
        """Apply `reduction` to the values (N,) of a batch."""
        match self.reduction:
            case "mean":
                return values.mean()
            case "sum":
                return values.sum()
            case "none":
                return values


class PooledLoss(FeatureLoss):
    """Base class of the losses whose summary follows from sums over positions.

    The sums of an image's tiles add up to those of the whole image, so such a loss can be computed tile by tile.
    """

    aligned = False

    def moments(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Sums over the positions of `x` (N, C, H, W), each position weighted by `mask` (1, 1, H, W) in [0, 1]."""
        raise NotImplementedError

    def from_moments(self, moments: Tensor, positions: Tensor | float) -> Tensor:
        """The summary, given the sums over all positions and the number of positions (or the sum of the mask)."""
        raise NotImplementedError

    def summary(self, x: Tensor) -> Tensor:
        """Reduce the features (N, C, H, W) of one layer to what is compared, in float32 or float64."""
        return self.from_moments(self.moments(x), x.shape[2] * x.shape[3])


class LayerSumLoss(FeatureLoss):
    """Base class of published metrics: sums over layers, whose features are compared as they are.

    A subclass defines `per_layer`.
    """

    def summary(self, x: Tensor) -> Tensor:
        """The features, unchanged: `per_layer` reduces them together with the target's."""
        return x

    def per_layer(self, features: Features, target: Features) -> dict[str, Tensor]:
        """The contribution of each layer, {layer: (N,)}. They add up to the distance."""
        raise NotImplementedError

    def forward(self, features: Features, target: Features) -> Tensor:
        """The distance: a scalar or (N,)."""
        return self.reduce(ordered_sum(self.per_layer(features, target)))


def _charbonnier(x: Tensor, y: Tensor) -> Tensor:
    return ((x - y).square() + 1e-6).sqrt()


ELEMENTWISE: Mapping[Distance, Callable[[Tensor, Tensor], Tensor]] = {
    "l2": lambda x, y: (x - y).square(),
    "l1": lambda x, y: (x - y).abs(),
    "charbonnier": _charbonnier,
    "huber": lambda x, y: F.huber_loss(x, y, reduction="none"),
}


def outside_inference_mode() -> AbstractContextManager[object]:
    """A context whose tensors can be used in training. In inference mode it also enables gradients."""
    if torch.compiler.is_compiling() or not torch.is_inference_mode_enabled():
        return nullcontext()
    return torch.inference_mode(mode=False)


def usable_in_training(x: Tensor) -> Tensor:
    """`x`, or a copy if it was made in inference mode. To be called within `outside_inference_mode()`."""
    return x.clone() if not torch.compiler.is_compiling() and x.is_inference() else x


def layer_weights(layers: Layers) -> dict[str, float]:
    """{layer: weight} from such a mapping, from names, or from one name. Names without a weight get 1."""
    layers = [layers] if isinstance(layers, str) else layers
    return dict(layers) if isinstance(layers, Mapping) else dict.fromkeys(layers, 1.0)


def layer_features(features: Features, name: str) -> Tensor:
    """The features of layer `name`. Raises `InputError` if the mapping does not contain it."""
    try:
        return features[name]
    except KeyError:
        raise InputError(f"the features contain no {name}, only {', '.join(features)}") from None


def ordered_sum(values: Mapping[str, Tensor]) -> Tensor:
    """The sum of the values, added in order as the `lpips` package does, so that it equals that package to the bit."""
    total, *rest = values.values()
    for value in rest:
        total = total + value
    return total
