"""Trunk: the base class of frozen networks. Checks images, normalises them, and keeps the network frozen."""

import warnings
from collections.abc import Callable, Sequence
from typing import Literal, Self

import torch
from torch import Tensor, nn

from vggfeat.errors import InputError, WeightsError, one_of, users_line
from vggfeat.features import tensors
from vggfeat.features.device import Arithmetic, choose_precision
from vggfeat.pictures.ranges import RANGES, InputRange, RangeWarning, check_range

Check = Literal["raise", "warn", "off"]

# With `check="warn"` only the first batches are checked: the range of a user's images rarely changes, and each check
# waits for the GPU.
_CHECKED_BATCHES = 64


class Trunk(nn.Module):
    """The base class of frozen networks that map images to features.

    It has no parameters, adds no key to a parent's `state_dict()`, and stays in evaluation mode. Inside autocast it
    keeps its own precision. A subclass implements `run`, and registers its weights as buffers that are not persistent.
    """

    holds_weights = True
    """Whether the weights are the trunk's own buffers, which nothing fills again after `to_empty()`."""

    offset: Tensor
    scale: Tensor

    def __init__(
        self,
        layers: Sequence[str],
        *,
        mean: Sequence[float],
        std: Sequence[float],
        input_range: InputRange,
        check: Check,
        minimum: int,
        arithmetic: Arithmetic = "float32",
    ) -> None:
        super().__init__()
        one_of("input_range", input_range, RANGES)
        one_of("check", check, ("raise", "warn", "off"))
        self.layers = tuple(layers)
        self.input_range: InputRange = input_range
        self.check: Check = check
        self._checks_left = _CHECKED_BATCHES
        self._warned = False
        self._lost = False
        self.minimum_size = minimum
        self.dtype = torch.float32
        self.arithmetic: Arithmetic = arithmetic
        self._mean_std = mean, std
        self._set_normalisation(torch.get_default_device())
        super().train(mode=False)

    @property
    def precision(self) -> str:
        """The precision of the trunk where it is now: `float32`, `tf32`, `bfloat16`, `float16` or `float64`."""
        if self.dtype == torch.float32:
            return choose_precision(self.arithmetic, self.offset.device)
        return str(self.dtype).removeprefix("torch.")

    def run(self, x: Tensor) -> dict[str, Tensor]:
        """The features of normalised images in the trunk's precision."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Compute the features of `images`: (N, 3, H, W), RGB, floating point, in `input_range`.

        Returns {name: (N, C, h, w)} in the order of the network, in the trunk's precision. No later call overwrites the
        returned tensors. Gradients flow to `images`.

        Raises `InputError` for a wrong shape or type and for a side below `minimum_size`. With `check="raise"` it also
        does so for NaN and for values outside the range.
        """
        self._check_shape(images)
        if self._lost and self.holds_weights:
            raise WeightsError(
                f"the weights of {self.name} are lost, because to_empty() does not copy values: build it on its "
                "device, outside of torch.device('meta') or with device=..., and move it by to()"
            )
        if self.check != "off" and not torch.compiler.is_compiling():
            self._check_values(images)
        with tensors.without_autocast(images.device.type):
            return self.run(self.normalised(images))

    def _check_values(self, images: Tensor) -> None:
        try:
            suspicion = check_range(images, self.input_range)
        except InputError as error:
            if self.check == "raise":
                raise
            suspicion = str(error)
        if suspicion and not self._warned:
            self._warned = True
            warnings.warn(f"{suspicion} (warned once)", RangeWarning, stacklevel=users_line())
        if self.check == "warn":
            self._checks_left -= 1
            if self._warned or not self._checks_left:
                self.check = "off"

    def checking(self, check: Check) -> Self:
        """The same trunk with checks of its own. Both share the weights."""
        copied = tensors.sharing(self)
        copied.check = one_of("check", check, ("raise", "warn", "off"))
        copied._checks_left, copied._warned = _CHECKED_BATCHES, False  # noqa: SLF001 (of the same class)
        return copied

    def normalised(self, images: Tensor) -> Tensor:
        """Normalise in float32 or more, then convert to the trunk's precision."""
        work = torch.promote_types(images.dtype, torch.float32)
        return ((images.to(work) - self.offset.to(work)) / self.scale.to(work)).to(self.dtype)

    def _set_normalisation(self, place: torch.device) -> None:
        low, high = RANGES[self.input_range]
        with torch.inference_mode(mode=False):
            mean, std = (torch.tensor(values, dtype=torch.float64, device="cpu") for values in self._mean_std)
            for name, values in (("offset", mean * (high - low) + low), ("scale", std * (high - low))):
                self.register_buffer(name, values.float().reshape(1, -1, 1, 1).to(place), persistent=False)

    def _check_shape(self, images: Tensor) -> None:
        if not isinstance(images, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance] (callers may be untyped)
            raise InputError(
                f"images are of type {type(images).__name__}, not a tensor (N, 3, H, W); of an array (H, W, 3) in "
                "[0, 1] it is torch.from_numpy(array).permute(2, 0, 1)[None]"
            )
        if images.ndim != 4:
            hint = ": a single image is images[None]" if images.ndim == 3 else ""
            raise InputError(f"images are {'x'.join(map(str, images.shape))}, not (N, 3, H, W){hint}")
        channels = self.offset.shape[1]
        if images.shape[1] != channels:
            hint = {1: ": a grey image is images.expand(-1, 3, -1, -1)", 4: ": alpha is not used, pass images[:, :3]"}
            came = images.shape[1]
            raise InputError(
                f"images have {came} channels, not {channels}{hint.get(came, '') if channels == 3 else ''}"
            )
        if not images.is_floating_point():
            low, high = RANGES[self.input_range]
            raise InputError(f"images are {images.dtype}: pass floating point in [{low:g}, {high:g}]")
        if min(images.shape[2:]) < self.minimum_size:
            raise InputError(
                f"images of {images.shape[2]}x{images.shape[3]} pixels are too small for {self.layers[-1]} of "
                f"{self.name}: it needs at least {self.minimum_size} a side"
            )

    @property
    def name(self) -> str:
        """The network's name, for messages."""
        return type(self).__name__

    def train(self, mode: bool = True) -> Self:  # noqa: ARG002 (the base class's signature)
        """Stay in evaluation mode, also when a parent's `train()` is called."""
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # A parent's .half() applies to the network's arithmetic: a mean rounded to half would shift every colour.
        lost = not tensors.keeps_values(fn, self.offset)
        super()._apply(fn, recurse)
        self._lost = (self._lost or lost) and not self.offset.is_meta
        self.dtype = fn(torch.empty(0, dtype=self.dtype)).dtype
        self._set_normalisation(self.offset.device)
        return self
