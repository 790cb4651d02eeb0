"""The ranges that image tensors come in, and a check that they are what they are said to be."""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from vggfeat.errors import InputError

InputRange = Literal["unit", "signed", "byte"]
RANGES: Mapping[str, tuple[float, float]] = {"unit": (0.0, 1.0), "signed": (-1.0, 1.0), "byte": (0.0, 255.0)}

# Share of a range's width by which values may leave it: resampling and generators without a last clamp overshoot by
# less, another range by far more.
_TOLERANCE = 0.25


class RangeWarning(UserWarning):
    """Images that do not look like the range that was named for them."""


def check_range(images: Tensor, input_range: InputRange) -> str | None:
    """Refuse NaN and images outside `input_range`; return what is suspicious about images inside it, if anything.

    Values may leave the range by a quarter of its width. Bytes that are all at most 1 look like [0, 1], and so do
    signed images without a single value below 0: both can be right, of a dark or a bright picture. Raises `InputError`.
    """
    if not images.numel():
        return None
    try:
        lowest, highest = (value.item() for value in torch.aminmax(images.detach()))
    except RuntimeError:  # meta tensors, fake ones, and those under torch.func have no values to look at
        return None
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
