"""Tap: the named activations of a live module, also while it trains."""

import re
from collections.abc import Iterable
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vggfeat.features.info import FeatureInfo
from vggfeat.features.trunk import Check, Trunk
from vggfeat.networks import arch
from vggfeat.networks.describe import describe, describe_head, stack_of, unwrapped
from vggfeat.networks.network import VGG
from vggfeat.networks.weights import IMAGENET_MEAN, IMAGENET_STD, Triple
from vggfeat.pictures.ranges import InputRange

_IN_HEAD = re.compile(r"avgpool|classifier\.\d+")


class Tap(Trunk):
    """The named activations of an existing VGG module. `FeatureExtractor.of` makes one.

    With `frozen`, each call uses the model's current weights in evaluation mode, whatever mode the model is in.
    Gradients flow only to the images, and the tap adds neither parameters nor keys of a `state_dict()`. Without
    `frozen`, the model is a submodule: gradients reach its weights, and batch normalisation follows `train()`.
    """

    holds_weights = False

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
        model = unwrapped(model)
        stack = stack_of(model)
        known = model.network if isinstance(model, VGG) else describe(stack)
        head, classes, hidden = describe_head(model)
        taps = arch.find_layers(known, layers, head=head, classes=classes, hidden=hidden)
        channels = known.in_channels
        super().__init__(
            [tap.name for tap in taps],
            mean=(mean or getattr(model, "mean", IMAGENET_MEAN))[:channels],
            std=(std or getattr(model, "std", IMAGENET_STD))[:channels],
            input_range=input_range,
            check=check,
            minimum=taps[-1].minimum_size,
        )
        self.network = known.name
        self.feature_info = FeatureInfo(taps)
        self.frozen = frozen
        after = arch.head_layers(known, head, classes, hidden=hidden)
        names = {layer.module: layer.name for layer in (*arch.layers(known), *after)}
        modules = {f"features.{index}": module for index, module in enumerate(stack)}
        modules |= {key: module for key, module in model.named_modules() if after and _IN_HEAD.fullmatch(key)}
        taken = list(modules)[: list(modules).index(taps[-1].module) + 1]
        # In a tuple, so that torch does not register them.
        self._held = tuple((names.get(key, ""), modules[key]) for key in taken)
        if not frozen:
            self.model = model
            self.train(model.training)
        self._set_normalisation(next(stack.parameters()).device)

    @property
    def name(self) -> str:
        """The network's name, for messages."""
        return self.network

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Compute features as `Trunk.forward` does. Without `frozen`, autocast applies."""
        if self.frozen:
            return super().forward(images)
        self._check_shape(images)
        if self.check != "off" and not torch.compiler.is_compiling():
            self._check_values(images)
        return self.run(self.normalised(images))

    def run(self, x: Tensor) -> dict[str, Tensor]:
        """The features of normalised images, in the precision of the model's weights."""
        x = x.to(next(self._held[0][1].parameters()).dtype)
        features: dict[str, Tensor] = {}
        returned = False
        for name, module in self._held:
            if isinstance(module, nn.Dropout) and self.frozen:
                continue
            if returned and getattr(module, "inplace", False):
                x = x.clone()  # x belongs to the caller
            if isinstance(module, nn.Linear):
                x = x.flatten(1)
            x = _frozen(module, x) if self.frozen else module(x)
            returned = name in self.layers
            if returned:
                features[name] = x
        return features

    def train(self, mode: bool = True) -> Self:
        """Set the model's mode; a frozen tap stays in evaluation mode."""
        if not self.frozen:
            nn.Module.train(self, mode)
        return self

    def extra_repr(self) -> str:
        """The description in `print`."""
        return f"{self.network}, layers={','.join(self.layers)}, frozen={self.frozen}"


def _frozen(module: nn.Module, x: Tensor) -> Tensor:
    """Apply one module in evaluation mode, without gradients for its weights."""
    if isinstance(module, nn.BatchNorm2d | nn.SyncBatchNorm):
        state = (module.running_mean, module.running_var, module.weight.detach(), module.bias.detach())
        return F.batch_norm(x, *state, training=False, eps=module.eps)
    return torch.func.functional_call(module, {key: value.detach() for key, value in module.named_parameters()}, (x,))
