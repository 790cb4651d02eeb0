"""Tap: the named activations of a module that lives, trained or still training."""

from collections.abc import Iterable
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vggfeat.features.trunk import Check, Trunk
from vggfeat.networks import arch
from vggfeat.networks.describe import describe, stack_of
from vggfeat.networks.network import VGG
from vggfeat.networks.weights import IMAGENET_MEAN, IMAGENET_STD, Triple
from vggfeat.pictures.ranges import InputRange


class Tap(Trunk):
    """The named activations of a VGG that somebody else holds. `FeatureExtractor.of` makes one.

    Frozen, it reads the model's weights as they are at each call and in evaluation mode, whatever mode the model is
    in; gradients flow to the images alone, and neither parameters nor keys of a `state_dict()` are added. Otherwise
    the model is a part of it: gradients reach its weights, and batch normalisation follows `train()`.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: str | Iterable[str],
        *,
        frozen: bool = True,
        mean: Triple | None = None,
        std: Triple | None = None,
        input_range: InputRange = "unit",
        check: Check = "raise",
    ) -> None:
        stack = stack_of(model)
        row = model.network if isinstance(model, VGG) else describe(stack)
        taps = arch.find_layers(row, layers)
        channels = row.in_channels
        super().__init__(
            [tap.name for tap in taps],
            mean=(mean or getattr(model, "mean", IMAGENET_MEAN))[:channels],
            std=(std or getattr(model, "std", IMAGENET_STD))[:channels],
            input_range=input_range,
            check=check,
            minimum=taps[-1].minimum_size,
        )
        self.network = row.name
        self.frozen = frozen
        self._last = taps[-1].index
        self._held = (stack,)  # in a tuple, torch does not see it
        if not frozen:
            self.model = model
            self.train(model.training)
        self._set_normalisation(next(stack.parameters()).device)

    @property
    def name(self) -> str:
        """The network, for messages."""
        return self.network

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """As `Trunk.forward`; a tap that is not frozen takes part in autocast, as training does."""
        if self.frozen:
            return super().forward(images)
        self._check_shape(images)
        if self.check != "off" and not torch.compiler.is_compiling():
            self._check_values(images)
        return self.run(self.normalised(images))

    def run(self, x: Tensor) -> dict[str, Tensor]:
        """The features of images that are checked and normalised, in the precision of the model's weights."""
        [stack] = self._held
        x = x.to(next(stack.parameters()).dtype)
        features: dict[str, Tensor] = {}
        handed_out = False
        for layer, module in zip(arch.layers(self.network)[: self._last + 1], stack, strict=False):
            if handed_out and getattr(module, "inplace", False):
                x = x.clone()  # what was handed out is the caller's
            x = _still(module, x) if self.frozen else module(x)
            handed_out = layer.name in self.layers
            if handed_out:
                features[layer.name] = x
        return features

    def train(self, mode: bool = True) -> Self:
        """Not frozen, the model's mode; else evaluation mode for ever."""
        if not self.frozen:
            nn.Module.train(self, mode)
        return self

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"{self.network}, layers={','.join(self.layers)}, frozen={self.frozen}"


def _still(module: nn.Module, x: Tensor) -> Tensor:
    """One layer in evaluation mode, whose weights take no gradient."""
    if isinstance(module, nn.BatchNorm2d | nn.SyncBatchNorm):
        state = (module.running_mean, module.running_var, module.weight.detach(), module.bias.detach())
        return F.batch_norm(x, *state, training=False, eps=module.eps)
    return torch.func.functional_call(module, {key: value.detach() for key, value in module.named_parameters()}, (x,))
