"""A trunk and what is made of its features, as one criterion of two batches of images."""

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from vggfeat import functional, images
from vggfeat.errors import InputError
from vggfeat.extract import RANGES, Trunk
from vggfeat.losses import FeatureLoss, Features, WeightedSum

Loss = TypeVar("Loss", FeatureLoss, WeightedSum)
Target = Mapping[str, Any]
"""What a loss keeps of a target: {layer: tensor}, or that by term."""


class Criterion(nn.Module, Generic[Loss]):
    """Compare images by their features: `criterion(prediction, target)`.

    One pass over the prediction serves every term. The target's pass keeps no graph, and can be done once:
    `criterion(prediction, criterion.target(images))`. With `both` the gradient reaches the target too.

    Frozen as its trunk is: no parameters, no keys in a parent's `state_dict()`, always in evaluation mode.
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
            scale = self.resize / min(batch.shape[2:])
            batch = images.resize(batch, *(round(side * scale) for side in batch.shape[2:]))
        low, high = RANGES[self.trunk.input_range]
        return {**self.trunk(batch), "image": (batch - low) / (high - low)}

    def target(self, batch: Tensor) -> Target:
        """What predictions are compared with, without a graph: computed once, used as often as you like."""
        with torch.no_grad():
            return self.loss.target(self.features(batch))

    def forward(self, prediction: Tensor, target: Tensor | Target) -> Tensor:
        """The loss of `prediction` (N, 3, H, W) against `target`: such a batch, or what `target()` returned.

        Raises `InputError` for batches that do not fit each other, and what the trunk raises.
        """
        with functional.without_autocast(prediction.device.type):
            return self.loss(*self.compared(prediction, target))

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
        if not fits or len(target) not in (1, len(prediction)):
            shapes = ["x".join(map(str, batch.shape)) for batch in (prediction, target)]
            raise InputError(f"the prediction is {shapes[0]} and the target {shapes[1]}: they must be of one shape")

    def train(self, mode: bool = True) -> "Criterion[Loss]":  # noqa: ARG002 (the base class's signature)
        """Stay in evaluation mode."""
        return self
