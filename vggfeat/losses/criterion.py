"""Criterion: a network and a loss over its features, combined to compare two batches of images."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from copy import deepcopy
from os import PathLike
from typing import Any, Generic, Literal, Self, TypedDict, TypeVar, Unpack, cast, get_args

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recompute

from vggfeat.errors import InputError, WeightsError, check_number, one_of
from vggfeat.features import tensors
from vggfeat.features.device import Precision
from vggfeat.features.trunk import Check, Trunk
from vggfeat.losses.base import FeatureLoss, Features, Reduction, outside_inference_mode, usable_in_training
from vggfeat.losses.signature import signature
from vggfeat.losses.weighted_sum import WeightedSum
from vggfeat.networks.weights import Preprocessing
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
    """Precision of the network's arithmetic: `float32`, the default, `tf32`, `bfloat16`, `float16` or `auto`."""
    check: Check
    """Whether to check the values of the first batches: `warn`, the default, `raise` or `off`."""
    device: str | torch.device | None
    """Device of the weights: torch's default device, unless given."""


Channels = Literal["rgb", "repeat", "slices"]
Small = Literal["refuse", "enlarge"]


class InputOptions(TypedDict, total=False):
    """Options of how a criterion reads its batches."""

    channels: Channels
    """`rgb`, the default; `repeat` repeats one grey channel three times; `slices` takes every channel of a stack
    (N, S, H, W) as a grey image of its own, so that there is one value a slice."""
    chunk: int | None
    """Compare at most this many images at a time. Bounds the memory of a batch, in training only with `checkpoint`."""
    checkpoint: bool
    """In training, keep no features: compute them again in the backward pass, `chunk` images at a time, or one. A step
    takes the memory of that many images and about 1.5 times as long."""
    small: Small
    """Images smaller than the network needs: `refuse` them, the default, or `enlarge` them (bilinear) until the shorter
    side is just long enough; a spatial map then has the enlarged size. The signature names it."""


class CriterionOptions(TrunkOptions, InputOptions, total=False):
    """Options of every criterion: of its network, and of how it reads batches."""


class OwnNetworkOptions(CriterionOptions, Preprocessing, total=False):
    """Options of a criterion that is not defined for particular weights: also `mean`, `std` and `input_order`."""


def split_options(options: OwnNetworkOptions | CriterionOptions) -> tuple[TrunkOptions, InputOptions]:
    """The options of the network, completed by defaults, and those of how batches are read."""
    names = InputOptions.__annotations__
    trunk = cast("TrunkOptions", {name: value for name, value in options.items() if name not in names})
    reading = cast("InputOptions", {name: value for name, value in options.items() if name in names})
    return with_defaults(trunk), reading


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
        reading: `channels`, `chunk`, `checkpoint` and `small`, see `InputOptions`.

    Clips (N, T, 3, H, W) are compared frame by frame: with `reduction="none"` there is one value a frame, (N, T).

    Raises `InputError` for unknown words and for a chunk below 1.

    Example:
        >>> import torch
        >>> from vggfeat import Criterion, FeatureExtractor, MeanStdLoss
        >>> loss = MeanStdLoss(["relu1_1", "relu2_1"])
        >>> criterion = Criterion(FeatureExtractor("vgg16", loss.layers), loss)
        >>> image = torch.rand(1, 3, 32, 32)
        >>> criterion(image, image).item()
        0.0
    """

    def __init__(
        self,
        trunk: Trunk,
        loss: Loss,
        *,
        resize: int | None = None,
        both: bool = False,
        **reading: Unpack[InputOptions],
    ) -> None:
        super().__init__()
        self.trunk = trunk
        place = trunk.offset.device
        # A loss made under `torch.device("meta")` has no values to move: `to_empty` loads them again.
        unmade = not trunk.offset.is_meta and any(x.is_meta for x in loss.buffers())
        self.loss: Loss = loss.to_empty(device=place) if unmade else loss.to(place)
        self._weights_lost = False
        self._read_options(resize, both, reading)
        super().train(mode=False)

    def _read_options(self, resize: int | None, both: bool, reading: InputOptions) -> None:
        self.resize = resize
        self.both = both
        self.channels: Channels = one_of("channels", reading.get("channels", "rgb"), get_args(Channels))
        self.small: Small = one_of("small", reading.get("small", "refuse"), get_args(Small))
        self.chunk = reading.get("chunk")
        if self.chunk is not None:
            check_number("chunk", self.chunk, 1)
        self.checkpoint = reading.get("checkpoint", False)

    def variant(
        self,
        *,
        reduction: Reduction = "mean",
        resize: int | None = None,
        both: bool = False,
        check: Check = "warn",
        **reading: Unpack[InputOptions],
    ) -> Self:
        """The same criterion with these settings. Both share the tensors of network and loss: move neither.

        Raises `InputError` for unknown words and for a chunk below 1.

        >>> import torch
        >>> from vggfeat import LPIPS
        >>> image = torch.rand(2, 3, 32, 32)
        >>> LPIPS("alex").variant(reduction="none")(image, image)
        tensor([0., 0.])
        """
        copied = tensors.sharing(self)
        copied.trunk = self.trunk.checking(check)
        copied.loss = _reduced(self.loss, one_of("reduction", reduction, get_args(Reduction)))
        copied._read_options(resize, both, reading)  # noqa: SLF001 (of the same class)
        return copied

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
        bounds = {"longer": self.resize, "shorter": self.trunk.minimum_size if self.small == "enlarge" else None}
        changes = [f"shorter side to {side} if {word}" for word, side in bounds.items() if side is not None]
        return signature(self.trunk, self.loss, resize=" and ".join(changes) or "none")

    def features(self, batch: Tensor) -> Features:
        """The trunk's features of `batch` (N, 3, H, W), and as `image` the batch itself, mapped to [0, 1]."""
        if self.resize is not None and batch.ndim == 4 and min(batch.shape[2:]) > self.resize:
            short = min(batch.shape[2:])
            # Rounded down, as torchvision's Resize does.
            batch = images.resize(batch, *(side * self.resize // short for side in batch.shape[2:]))
        least = self.trunk.minimum_size
        if self.small == "enlarge" and batch.ndim == 4 and 0 < min(batch.shape[2:]) < least:
            short = min(batch.shape[2:])
            batch = images.resize(batch, *(round(side * least / short) for side in batch.shape[2:]))
        low, high = RANGES[self.trunk.input_range]
        return {**self.trunk(batch), "image": (tensors.at_least_float32(batch) - low) / (high - low)}

    def target(self, batch: Tensor) -> Target:
        """Prepare `batch` (N or 1, 3, H, W) as a target for any number of calls. It carries no graph."""
        self._check_weights()
        with outside_inference_mode(), torch.no_grad():
            return self.loss.target(self.features(self._as_rgb(usable_in_training(batch))))

    def forward(self, prediction: Tensor, target: Tensor | Target, mask: Tensor | None = None) -> Tensor:
        """The loss of `prediction` (N, 3, H, W): a scalar or (N,).

        `mask` (N or 1, 1, H, W), boolean or in [0, 1], weighs differences: the prediction is blended into the target by
        it. Where it is 0 nothing counts and no gradient arrives, although receptive fields reach there. The mean is
        still over the whole image: divide by `mask.mean()` for a mean over the mask.

        `target` is a batch of images, or the result of `target()`. A single image is compared with every prediction.
        Raises `InputError` if the shapes do not match, if a mask comes with a prepared target, if `target` requires
        grad although `both` is false, and whatever the trunk raises.
        """
        return self._compare(prediction, target, mask)

    def _compare(self, prediction: Tensor, target: Tensor | Target, mask: Tensor | None) -> Any:
        """The result of `loss` for two batches, with one value a frame or slice where they have such axes."""
        self._check_weights()
        check_tensor(prediction)
        if mask is not None:
            prediction = self._masked(prediction, target, mask)
        leading = prediction.shape[: -2 if self.channels == "slices" else -3]
        with tensors.without_autocast(prediction.device.type):
            scale = self._gradient_scale(prediction)
            inner = scale_gradient(prediction, 1 / scale)
            pieces = self.chunk is not None or (self.checkpoint and torch.is_grad_enabled())
            found = self._in_pieces(inner, target) if pieces else self.loss(*self.compared(inner, target))

            def outer(x: Tensor) -> Tensor:
                x = scale_gradient(x, scale)
                return x.unflatten(0, leading) if x.ndim and len(leading) > 1 else x

            if isinstance(found, Tensor):
                return outer(found)
            return outer(found[0]), {name: outer(x) for name, x in found[1].items()}

    def _masked(self, prediction: Tensor, target: Tensor | Target, mask: Tensor) -> Tensor:
        """The target with the prediction blended in."""
        if isinstance(target, Mapping):
            raise InputError("a mask needs the images of the target: pass them instead of a prepared target")
        self._check_target(prediction, target)
        shape = prediction.shape
        fits = mask.ndim == len(shape) and all(n in {1, m} for n, m in zip(mask.shape[:-2], shape[:-2], strict=True))
        if not fits or mask.shape[-2:] != shape[-2:] or target.shape[-2:] != shape[-2:]:
            shapes = ["x".join(map(str, x.shape)) for x in (mask, prediction, target)]
            raise InputError(
                f"the mask is {shapes[0]}, the prediction {shapes[1]} and the target {shapes[2]}: "
                "they must have the same height and width, and the mask one channel"
            )
        if not (mask.is_floating_point() or mask.dtype == torch.bool):
            raise InputError(f"the mask is {mask.dtype}: pass booleans or floating point in [0, 1]")
        weight = mask.to(prediction.dtype)
        # `where` keeps NaN outside the mask out.
        return torch.where(weight == 0, target, torch.lerp(target, prediction, weight))

    def _as_rgb(self, batch: Tensor) -> Tensor:
        """Clips and stacks as batches of images (N, 3, H, W)."""
        check_tensor(batch)
        if self.channels == "slices" and batch.ndim in (4, 5):
            return batch.flatten(0, -3)[:, None].expand(-1, 3, -1, -1)
        if batch.ndim == 5:
            batch = batch.flatten(0, 1)
        if self.channels == "repeat" and batch.ndim == 4:
            if batch.shape[1] != 1:
                raise InputError(f"images have {batch.shape[1]} channels, and channels='repeat' takes 1")
            batch = batch.expand(-1, 3, -1, -1)
        return batch

    def _in_pieces(self, prediction: Tensor, target: Tensor | Target) -> Any:
        """The same as without pieces, to the bit: the values of all images, reduced together."""
        if isinstance(target, Tensor):
            self._check_target(prediction, target)
            target = self._as_rgb(target.expand(len(prediction), *target.shape[1:]))
        prediction = self._as_rgb(prediction)
        losses = {"": self.loss} if isinstance(self.loss, FeatureLoss) else self.loss.losses
        apart = {name: _reduced(loss, "none") for name, loss in losses.items()}
        plain = isinstance(self.loss, FeatureLoss)

        def compare(piece: Tensor, other: Tensor | Target) -> tuple[Tensor, ...]:
            features, targets = self.features(piece), other
            if isinstance(other, Tensor):
                graph = self.both and torch.is_grad_enabled()
                with nullcontext() if graph else torch.no_grad():
                    targets = self.loss.target(self.features(other), graph=graph)
            found = cast("Mapping[str, Any]", targets)
            return tuple(loss(features, found if plain else found[name]) for name, loss in apart.items())

        size = self.chunk or 1
        values: list[tuple[Tensor, ...]] = []
        for start in range(0, len(prediction), size):
            piece, other = prediction[start : start + size], _part(target, slice(start, start + size), len(prediction))
            if self.checkpoint and torch.is_grad_enabled():
                values.append(cast("Any", recompute)(compare, piece, other, use_reentrant=False))
            else:
                values.append(compare(piece, other))
        joined = [torch.cat(parts) for parts in zip(*values, strict=True)]
        reduced = {
            name: x if getattr(loss, "spatial", False) else loss.reduce(x)
            for (name, loss), x in zip(losses.items(), joined, strict=True)
        }
        if isinstance(self.loss, FeatureLoss):
            return reduced[""]
        terms = {name: self.loss.weights[name] * x for name, x in reduced.items()}
        return torch.stack(list(terms.values())).sum(0), terms

    def _gradient_scale(self, prediction: Tensor) -> float:
        """The factor by which gradients are multiplied inside a float16 trunk, where they would underflow."""
        if self.trunk.dtype != torch.float16:
            return 1.0
        positions = prediction[..., 0, 0].numel() / 3 * prediction.shape[-2] * prediction.shape[-1]
        return max(1.0, float(positions) / _FLOAT16_POSITIONS)

    def compared(self, prediction: Tensor, target: Tensor | Target) -> tuple[Features, Target]:
        """The arguments of `loss`: the features of `prediction`, and the prepared target."""
        if not isinstance(target, Mapping):
            self._check_target(prediction, target)
            if prediction.ndim == 5 and len(target) == 1:
                target = target.expand(len(prediction), *target.shape[1:])
            if self.both and torch.is_grad_enabled():
                features = self.features(self._as_rgb(prediction))
                return features, self.loss.target(self.features(self._as_rgb(target)), graph=True)
            target = self.target(target)
        return self.features(self._as_rgb(prediction)), target

    def _check_target(self, prediction: Tensor, target: Tensor) -> None:
        check_tensor(target)
        self._check_pair(prediction, target)
        if torch.is_grad_enabled() and target.requires_grad and not self.both:
            raise InputError(
                "the target requires grad, but no gradient reaches it: pass the generated images first, "
                "criterion(generated, real), or target.detach(), or construct the criterion with both=True"
            )

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
                f"the buffers of this {type(self).__name__} were cast to {cast}, as FSDP does with "
                "MixedPrecision(buffer_dtype=...): construct it again, and pass ignored_modules=[criterion] to FSDP"
            )
        if self._weights_lost:
            raise WeightsError(
                f"the weights of this {type(self).__name__} were lost, by to_empty() or on the meta device: "
                "construct it again on the device where it is used"
            )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._weights_lost |= not tensors.keeps_values(fn, self.trunk.offset)
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
        """Read nothing. Keys that another implementation saved here are ignored, also by strict loading."""

    def train(self, mode: bool = True) -> Self:  # noqa: ARG002 (the base class's signature)
        """Do nothing: a criterion stays in evaluation mode."""
        return self


def _reduced(loss: Loss, reduction: Reduction) -> Loss:
    """The loss with another reduction. It shares the tensors of `loss`."""
    copied = tensors.sharing(loss)
    if isinstance(copied, FeatureLoss):
        copied.reduction = reduction
    else:
        copied.terms = nn.ModuleDict({name: _reduced(term, reduction) for name, term in copied.losses.items()})
    return copied


def _part(target: Tensor | Target, piece: slice, images: int) -> Tensor | Target:
    """Slice a target to the images of one piece of the batch."""
    if isinstance(target, Tensor):
        return target[piece] if len(target) == images else target
    return {name: _part(x, piece, images) for name, x in target.items()}


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
