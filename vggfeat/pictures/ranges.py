"""The ranges of image tensors, and checks of the tensors that callers pass."""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from vggfeat.errors import InputError

InputRange = Literal["unit", "signed", "byte"]
RANGES: Mapping[str, tuple[float, float]] = {"unit": (0.0, 1.0), "signed": (-1.0, 1.0), "byte": (0.0, 255.0)}

# Values may leave a range by this share of its width: resampling and generators without a final clamp overshoot by
# less, a wrong range by far more.
_TOLERANCE = 0.25


class RangeWarning(UserWarning):
    """Images are inside the `input_range` that the caller named, but probably belong to another.

    >>> print(check_range(torch.linspace(0, 1, 12).reshape(1, 3, 2, 2), "byte"))
    images reach from 0 to 1, which looks like input_range='unit', not 'byte'
    """


def check_range(images: Tensor, input_range: InputRange) -> str | None:
    """Refuse NaN and images outside `input_range`; return a warning about images inside it, or None.

    Values may leave the range by a quarter of its width. Byte images with no value above 1 are suspicious, and so are
    signed images with no value below 0: either can be right, for a dark or a bright picture. Raises `InputError`.
    """
    if not images.numel():
        return None
    try:
        # Read together, because each read waits for a GPU.
        extremes: list[float] = torch.stack(torch.aminmax(images.detach())).tolist()
    except (torch.AcceleratorError, torch.OutOfMemoryError):
        raise  # from an earlier operation; the read only reports it
    except RuntimeError:  # meta and fake tensors, and tensors under torch.func, have no values
        return None
    lowest, highest = extremes
    if lowest != lowest:  # noqa: PLR0124 (NaN differs from itself)
        raise InputError("images hold NaN")
    low, high = RANGES[input_range]
    slack = _TOLERANCE * (high - low)
    span = f"images reach from {lowest:.4g} to {highest:.4g}"
    if not (low - slack <= lowest and highest <= high + slack):
        wider = [name for name, (a, b) in RANGES.items() if a <= lowest and highest <= b]
        hint = f": is it input_range='{wider[0]}'?" if wider else ""
        raise InputError(f"{span}, outside [{low:g}, {high:g}] of input_range='{input_range}'{hint}")
    if input_range != "unit" and -0.01 <= lowest < highest <= 1.01:
        return f"{span}, which looks like input_range='unit', not '{input_range}'"
    return None


def check_tensor(name: str, tensor: Tensor, shape: tuple[int | str, ...]) -> None:
    """Raise `InputError` unless `tensor` is floating, not empty and of `shape`; a string there allows any length."""
    came = tuple(tensor.shape)
    fits = len(came) == len(shape) and all(isinstance(b, str) or a == b for a, b in zip(came, shape, strict=True))
    if not (fits and tensor.numel() and tensor.is_floating_point()):
        known = f"({', '.join(map(str, shape))})"
        raise InputError(f"{name} is a {tensor.dtype} tensor of shape {came}, not a floating one of shape {known}")
