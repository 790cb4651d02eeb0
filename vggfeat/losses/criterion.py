"""A trunk and what is made of its features, as one criterion of two batches of images."""

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from vggfeat.errors import InputError
from vggfeat.features import tensors
from vggfeat.features.trunk import Trunk
from vggfeat.losses.base import FeatureLoss, Features
from vggfeat.losses.weighted_sum import WeightedSum
from vggfeat.pictures import images
from vggfeat.pictures.ranges import RANGES

Loss = TypeVar("Loss", FeatureLoss, WeightedSum)
Target = Mapping[str, Any]
"""What a loss keeps of a target: {layer: tensor}, or that by term."""


# Over so many positions a mean still has a gradient that float16 holds.
_POSITIONS_FLOAT16_BEARS = 4096


class Criterion(nn.Module, Generic[Loss]):
    """Compare images by their features: `criterion(prediction, target)`.

    One pass over the prediction serves every term. The target's pass keeps no graph, and can be done once:
    `criterion(prediction, criterion.target(images))`. With `both` the gradient reaches the target too.

    Frozen as its trunk is: no parameters, no keys in a parent's `state_dict()`, always in evaluation mode. Within a
    model wrapped by DDP it works, but DDP sends its buffers at every step: keep it beside the model, or pass
    `broadcast_buffers=False`.
    """

    def __init__(self, trunk: Trunk, loss: Loss, *, resize: int | None = None, both: bool = False) -> None:
        super().__init__()
        self.trunk = trunk
        self.loss: Loss = loss
        self.resize = resize
        self.both = both
        super().train(mode=False)

    def features(self, batch: Tensor) -> Features:
        """The trunk's features of `batch` (N, 3, H, W), and as `image` the batch itself in [0, 1]."""
        if self.resize is not None and batch.ndim == 4 and min(batch.shape[2:]) > self.resize:
            short = min(batch.shape[2:])
            # Cut, not rounded, as torchvision's Resize has it.
            batch = images.resize(batch, *(side * self.resize // short for side in batch.shape[2:]))
        low, high = RANGES[self.trunk.input_range]
        return {**self.trunk(batch), "image": (tensors.at_least_float32(batch) - low) / (high - low)}

    def target(self, batch: Tensor) -> Target:
        """What predictions are compared with, without a graph: computed once, used as often as you like."""
        with torch.no_grad():
            return self.loss.target(self.features(batch))

    def forward(self, prediction: Tensor, target: Tensor | Target) -> Tensor:
        """The loss of `prediction` (N, 3, H, W) against `target`: such a batch, or what `target()` returned.

        Raises `InputError` for batches that do not fit each other, and what the trunk raises.
        """
        with tensors.without_autocast(prediction.device.type):
            scale = self._gradient_scale(prediction)
            loss: Tensor = self.loss(*self.compared(scale_gradient(prediction, 1 / scale), target))
            return scale_gradient(loss, scale)

    def _gradient_scale(self, prediction: Tensor) -> float:
        """What gradients are multiplied by inside the trunk: a mean over many positions leaves float16 none."""
        if self.trunk.dtype != torch.float16:
            return 1.0
        positions = prediction.shape[0] * prediction.shape[-2] * prediction.shape[-1]
        return max(1.0, float(positions) / _POSITIONS_FLOAT16_BEARS)

    def compared(self, prediction: Tensor, target: Tensor | Target) -> tuple[Features, Target]:
        """The features of `prediction` and what they are compared with: the arguments of `loss`."""
        if isinstance(target, Tensor):
            self._check_pair(prediction, target)
            if self.both and torch.is_grad_enabled():
                return self.features(prediction), self.loss.target(self.features(target), graph=True)
            target = self.target(target)
        return self.features(prediction), target

    def _check_pair(self, prediction: Tensor, target: Tensor) -> None:
        fits = prediction.shape[1:] == target.shape[1:] if self.loss.aligned else prediction.ndim == target.ndim
        if not fits or not (target.shape[0] == 1 or target.shape[0] == prediction.shape[0]):
            shapes = ["x".join(map(str, batch.shape)) for batch in (prediction, target)]
            raise InputError(f"the prediction is {shapes[0]} and the target {shapes[1]}: they must be of one shape")

    def train(self, mode: bool = True) -> "Criterion[Loss]":  # noqa: ARG002 (the base class's signature)
        """Stay in evaluation mode."""
        return self


def scale_gradient(x: Tensor, scale: float) -> Tensor:
    """`x` itself, whose gradient is multiplied by `scale`."""
    if scale == 1.0 or not x.requires_grad:
        return x
    return _ScaleGradient.apply(x, scale)  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]


class _ScaleGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float) -> Tensor:  # noqa: ANN401 (torch's own)
        ctx.scale = scale
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401 (torch's own)
        return grad_outputs[0] * ctx.scale, None
