"""Criterion: a network and a loss over its features, combined to compare two batches of images."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from os import PathLike
from typing import Any, Generic, Self, TypedDict, TypeVar, cast

import torch
from torch import Tensor, nn

from vggfeat.errors import InputError, WeightsError
from vggfeat.features import tensors
from vggfeat.features.device import Precision
from vggfeat.features.trunk import Check, Trunk
from vggfeat.losses.base import FeatureLoss, Features, keeps_values, outside_inference_mode, usable_in_training
from vggfeat.losses.signature import signature
from vggfeat.losses.weighted_sum import WeightedSum
from vggfeat.pictures import images
from vggfeat.pictures.ranges import RANGES, InputRange

Loss = TypeVar("Loss", FeatureLoss, WeightedSum)
Target = Mapping[str, Any]
"""A target prepared by `Criterion.target`: {layer: tensor}, or {term: {layer: tensor}}."""


class TrunkOptions(TypedDict, total=False):
    """Options of a criterion's network, as for `FeatureExtractor`."""

    weights: str | PathLike[str] | Mapping[str, Tensor] | None
    """`default`, the name of an entry of `weights.TABLE`, a file, a state dict, or None for random weights."""
    input_range: InputRange
    """Range of the images: `unit` [0, 1], the default, `signed` [-1, 1] or `byte` [0, 255]."""
    precision: Precision
    """Precision of the network's arithmetic: `float32`, the default, `bfloat16`, `float16` or `auto`."""
    check: Check
    """Whether to check the values of the first batches: `warn`, the default, `raise` or `off`."""
    device: str | torch.device | None
    """Device of the weights: torch's default device, unless given."""


def with_defaults(options: TrunkOptions) -> TrunkOptions:
    """`options`, completed by the defaults of criteria: bad images are reported by a warning, not by an error."""
    defaults: TrunkOptions = {
        "weights": "default",
        "input_range": "unit",
        "precision": "float32",
        "check": "warn",
        "device": None,
    }
    return {**defaults, **options}


# The gradient of a mean over more positions than this underflows in float16.
_FLOAT16_POSITIONS = 4096


class Criterion(nn.Module, Generic[Loss]):
    """Compares two batches of images by their features: `criterion(prediction, target)`.

    One pass over the prediction serves every term. The target's pass keeps no graph and can be done once:
    `criterion(prediction, criterion.target(images))`.

    A criterion is frozen: it has no parameters, adds no keys to a parent's `state_dict()` and stays in evaluation mode.
    It works inside a model wrapped by DDP, but DDP broadcasts its buffers at every step: keep it outside the model, or
    pass `broadcast_buffers=False`.

    Args:
        trunk: the network, such as a `FeatureExtractor`, with the layers that `loss` reads.
        loss: a loss over features, or a `WeightedSum` of several.
        resize: first reduce images whose shorter side is longer than this many pixels (bilinear, antialiased).
        both: let the gradient reach the target, too.

    Example:
        >>> import torch
        >>> from vggfeat import Criterion, FeatureExtractor, MeanStdLoss
        >>> loss = MeanStdLoss(["relu1_1", "relu2_1"])
        >>> criterion = Criterion(FeatureExtractor("vgg16", loss.layers), loss)
        >>> image = torch.rand(1, 3, 32, 32)
        >>> criterion(image, image).item()
        0.0
    """

    def __init__(self, trunk: Trunk, loss: Loss, *, resize: int | None = None, both: bool = False) -> None:
        super().__init__()
        self.trunk = trunk
        self.loss: Loss = loss.to(trunk.offset.device)
        self.resize = resize
        self.both = both
        self._weights_lost = False
        super().train(mode=False)

    @property
    def device(self) -> torch.device:
        """The device of the network and the loss, to which images must be moved. There are no parameters to ask."""
        return self.trunk.offset.device

    def signature(self) -> str:
        """One line to cite beside a value: loss, network, weights, input range, resizing, precision and version.

        Values whose lines differ are different metrics.

        >>> from vggfeat import LPIPS
        >>> LPIPS("alex").signature() == LPIPS("alex", convention="torchmetrics").signature()
        False
        """
        resize = "none" if self.resize is None else f"shorter side to {self.resize} if longer"
        return signature(self.trunk, self.loss, resize=resize)

    def features(self, batch: Tensor) -> Features:
        """The trunk's features of `batch` (N, 3, H, W), and as `image` the batch itself, mapped to [0, 1]."""
        if self.resize is not None and batch.ndim == 4 and min(batch.shape[2:]) > self.resize:
            short = min(batch.shape[2:])
            # Rounded down, as torchvision's Resize does.
            batch = images.resize(batch, *(side * self.resize // short for side in batch.shape[2:]))
        low, high = RANGES[self.trunk.input_range]
        return {**self.trunk(batch), "image": (tensors.at_least_float32(batch) - low) / (high - low)}

    def target(self, batch: Tensor) -> Target:
        """Prepare `batch` (N or 1, 3, H, W) as a target for any number of calls. It carries no graph."""
        self._check_weights()
        with outside_inference_mode(), torch.no_grad():
            return self.loss.target(self.features(usable_in_training(batch)))

    def forward(self, prediction: Tensor, target: Tensor | Target) -> Tensor:
        """The loss of `prediction` (N, 3, H, W): a scalar or (N,).

        `target` is a batch of images, or the result of `target()`. A single image is compared with every prediction.
        Raises `InputError` if the shapes do not match, if `target` requires grad although `both` is false, and whatever
        the trunk raises.
        """
        self._check_weights()
        check_tensor(prediction)
        with tensors.without_autocast(prediction.device.type):
            scale = self._gradient_scale(prediction)
            loss: Tensor = self.loss(*self.compared(scale_gradient(prediction, 1 / scale), target))
            return scale_gradient(loss, scale)

    def _gradient_scale(self, prediction: Tensor) -> float:
        """The factor by which gradients are multiplied inside a float16 trunk, where they would underflow."""
        if self.trunk.dtype != torch.float16:
            return 1.0
        positions = prediction.shape[0] * prediction.shape[-2] * prediction.shape[-1]
        return max(1.0, float(positions) / _FLOAT16_POSITIONS)

    def compared(self, prediction: Tensor, target: Tensor | Target) -> tuple[Features, Target]:
        """The arguments of `loss`: the features of `prediction`, and the prepared target."""
        if not isinstance(target, Mapping):
            check_tensor(target)
            self._check_pair(prediction, target)
            if torch.is_grad_enabled() and target.requires_grad and not self.both:
                raise InputError(
                    "the target requires grad, but no gradient reaches it: pass the generated images first, "
                    "criterion(generated, real), or target.detach(), or construct the criterion with both=True"
                )
            if self.both and torch.is_grad_enabled():
                return self.features(prediction), self.loss.target(self.features(target), graph=True)
            target = self.target(target)
        return self.features(prediction), target

    def _check_pair(self, prediction: Tensor, target: Tensor) -> None:
        fits = prediction.shape[1:] == target.shape[1:] if self.loss.aligned else prediction.ndim == target.ndim
        if not fits or not (target.shape[0] == 1 or target.shape[0] == prediction.shape[0]):
            shapes = ["x".join(map(str, batch.shape)) for batch in (prediction, target)]
            raise InputError(
                f"the prediction is {shapes[0]} and the target {shapes[1]}: they must have the same shape, or the "
                "target a batch size of 1"
            )

    def _check_weights(self) -> None:
        if (cast := self.trunk.offset.dtype) != torch.float32:
            raise WeightsError(
                f"the buffers of this {type(self).__name__} were cast to {cast} behind its back, as FSDP does with "
                "MixedPrecision(buffer_dtype=...): construct it again, and pass ignored_modules=[criterion] to FSDP"
            )
        if self._weights_lost:
            raise WeightsError(
                f"the weights of this {type(self).__name__} were lost, by to_empty() or on the meta device: "
                "construct it again on the device where it is used"
            )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._weights_lost |= not keeps_values(fn, self.trunk.offset)
        with outside_inference_mode():  # tensors made in inference mode could not take part in training
            return super()._apply(fn, recurse)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        with outside_inference_mode():
            copied = self.__class__.__new__(self.__class__)
            memo[id(self)] = copied
            copied.__dict__.update(deepcopy(self.__dict__, memo))
        return copied

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        with outside_inference_mode():
            super()._apply(usable_in_training)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride] (torch passes all by position)
        """Read nothing. Keys that another implementation saved here are passed over, also by strict loading."""

    def train(self, mode: bool = True) -> Self:  # noqa: ARG002 (the base class's signature)
        """Do nothing: a criterion stays in evaluation mode."""
        return self


def check_tensor(images: object) -> None:
    """Raise `InputError`, with the line that converts a NumPy array, if `images` is not a tensor."""
    if not isinstance(images, Tensor):
        kind = type(images)
        hint = ": pass torch.from_numpy(x).movedim(-1, -3)[None] / 255 for an (H, W, 3) array of bytes"
        raise InputError(
            f"images are of type {kind.__module__}.{kind.__qualname__}, not a torch.Tensor (N, 3, H, W)"
            + (hint if kind.__module__ == "numpy" else "")
        )


def scale_gradient(x: Tensor, scale: float) -> Tensor:
    """Return `x` and multiply its gradient by `scale` in the backward pass."""
    if scale == 1.0 or not x.requires_grad:
        return x
    return cast("Any", _ScaleGradient).apply(x, scale)


class _ScaleGradient(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, scale: float) -> Tensor:  # noqa: ARG004 (used by the backward pass)
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:  # noqa: ARG004 (torch's own)
        ctx.scale = inputs[1]

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            # A second backward pass would apply the scale once more.
            raise InputError("second derivatives need precision='float32' or 'bfloat16', not float16")
        return grad_outputs[0] * ctx.scale, None
