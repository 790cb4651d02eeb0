"""Picture sizes as text."""

import re
from typing import Literal

from vggfeat.errors import InputError

Interpolation = Literal["bilinear", "bicubic", "nearest"]

_SIZE = re.compile(r"\s*([0-9]{1,9})\s*(?:[xX,]\s*([0-9]{1,9})\s*)?")


def parse_size(text: str) -> int | tuple[int, int]:
    """Read `224` as a number of pixels and `320x240` as (width, height). Raises `InputError`.

    >>> parse_size("224"), parse_size("320x240")
    (224, (320, 240))
    """
    if not (found := _SIZE.fullmatch(text)):
        shown = text if len(text) <= 40 else f"{text[:40]}..."
        raise InputError(f"'{shown}' is neither a number of pixels nor WIDTHxHEIGHT, such as 640x480")
    width, height = found.groups()
    return int(width) if height is None else (int(width), int(height))
