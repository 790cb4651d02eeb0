"""The preprocessing that weights were trained with: mean, standard deviation, order of the colours. No torch."""

import math
from collections.abc import Sequence
from typing import Literal, TypedDict, cast

from vggfeat.errors import InputError, one_of

Triple = tuple[float, float, float]
InputOrder = Literal["rgb", "bgr"]

IMAGENET_MEAN: Triple = (0.485, 0.456, 0.406)
IMAGENET_STD: Triple = (0.229, 0.224, 0.225)
BYTE_STD: Triple = (1 / 255, 1 / 255, 1 / 255)  # networks trained on 0-255 minus a mean colour
OXFORD_MEAN: Triple = (123.68 / 255, 116.779 / 255, 103.939 / 255)


class Preprocessing(TypedDict, total=False):
    """How weights expect images, if it is not what their file or their entry says. None changes nothing.

    `mean` and `std` are per channel in the order R, G, B, also for weights that read BGR. They apply to images in
    [0, 1]; a mean with a value above 1 is in [0, 255], and so is its std. `input_order` is the order of the colours
    that the weights of a file or a state dict were trained on.
    """

    mean: Sequence[float] | None
    std: Sequence[float] | None
    input_order: InputOrder | None


def normalisation(
    mean: Sequence[float] | None, std: Sequence[float] | None, known: tuple[Triple, Triple]
) -> tuple[Triple, Triple]:
    """Mean and std for images in [0, 1]: those given, completed by the `known` ones. See `Preprocessing`.

    Raises `InputError` for values that are not finite, a std that is not above 0, and for a mixture of both ranges.

    >>> mean, std = normalisation((123.68, 116.779, 103.939), (1, 1, 1), (IMAGENET_MEAN, IMAGENET_STD))
    >>> mean == OXFORD_MEAN, std == BYTE_STD
    (True, True)
    """
    given = {name: values for name, values in (("mean", mean), ("std", std)) if values is not None}
    numbers = {name: _numbers(name, values) for name, values in given.items()}
    bytes_given = any(abs(value) > 1 for value in numbers.get("mean", ()))
    if bytes_given and min(numbers.get("std", (0.0,))) < 1:
        came = f"std is {_text(numbers['std'])}" if "std" in numbers else "there is no std"
        raise InputError(
            f"mean is {_text(numbers['mean'])}, which is for images in 0-255, and {came}: "
            "give std in the same range, such as 1,1,1"
        )
    if not bytes_given and any(value > 1 for value in numbers.get("std", ())):
        raise InputError(
            f"std is {_text(numbers['std'])}: above 1 it is for images in 0-255, and needs a mean in that range"
        )
    if bytes_given:
        numbers = {name: tuple(value / 255 for value in values) for name, values in numbers.items()}
    return cast("tuple[Triple, Triple]", (numbers.get("mean", known[0]), numbers.get("std", known[1])))


def _numbers(name: str, values: Sequence[float]) -> tuple[float, ...]:
    try:
        found = tuple(float(value) for value in values)
    except (TypeError, ValueError):
        raise InputError(f"{name} is {values!r}: it must be three numbers, for R, G and B") from None
    if len(found) not in (1, 3):
        raise InputError(f"{name} has {len(found)} values: it must have three, for R, G and B")
    if not all(map(math.isfinite, found)) or (name == "std" and min(found) <= 0):
        raise InputError(f"{name} is {_text(found)}: it must be finite{' and above 0' if name == 'std' else ''}")
    return found


def _text(values: Sequence[float]) -> str:
    return ",".join(f"{value:g}" for value in values)


def parse_triple(text: str) -> Triple:
    """Read `0.485,0.456,0.406`. Raises `InputError`.

    >>> parse_triple("0.5, 0.5, 0.5")
    (0.5, 0.5, 0.5)
    """
    try:
        red, green, blue = (float(word) for word in text.split(","))
    except ValueError:
        raise InputError(f"'{text}' is not three numbers R,G,B such as 0.485,0.456,0.406") from None
    return red, green, blue


AnyOrder = Literal["auto", "rgb", "bgr"]

MEAN_HELP = "mean per channel, R,G,B, for pictures in 0-1 (or 0-255, then std too); by default the weights' own"
STD_HELP = "standard deviation per channel, R,G,B, in the same range as the mean; by default the weights' own"
ORDER_HELP = "order of the colours that the weights read: rgb, or bgr as in Caffe; auto recognises known files"


def of_fields(mean: Sequence[float], std: Sequence[float], input_order: AnyOrder) -> Preprocessing:
    """The preprocessing that the fields of a recipe stand for: an empty mean or std and `auto` change nothing.

    Raises `InputError`, see `normalisation`.
    """
    chosen = Preprocessing(
        mean=mean or None, std=std or None, input_order=None if input_order == "auto" else input_order
    )
    check(chosen)
    return chosen


def check(preprocessing: Preprocessing) -> None:
    """Raise `InputError` for values that no weights can have. See `normalisation`."""
    normalisation(preprocessing.get("mean"), preprocessing.get("std"), (IMAGENET_MEAN, IMAGENET_STD))
    if (order := preprocessing.get("input_order")) is not None:
        one_of("input_order", order, ("rgb", "bgr"))
