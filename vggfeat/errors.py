"""The exceptions of vggfeat, and the wording that their messages share.

Every message is one line that names what was given, what is allowed and, if something is similar, what is near.
Commands print that line and exit with code 2.
"""

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeVar, cast


class VggfeatError(Exception):
    """Base class of the exceptions that vggfeat raises.

    >>> from vggfeat import FeatureExtractor
    >>> try:
    ...     FeatureExtractor("vgg16", "relu9_9", weights=None)
    ... except VggfeatError as error:
    ...     print(type(error).__name__)
    LayerError
    """


class LayerError(VggfeatError, ValueError):
    """A network or a layer does not exist.

    >>> from vggfeat import FeatureExtractor
    >>> FeatureExtractor("vgg16", "relu9_9", weights=None)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    vggfeat.errors.LayerError: ...
    """


class WeightsError(VggfeatError):
    """Weights are unknown, cannot be downloaded or read, or do not fit the network.

    >>> from vggfeat import FeatureExtractor
    >>> FeatureExtractor("vgg16", "relu1_1", weights="missing.safetensors")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    vggfeat.errors.WeightsError: ...
    """


class InputError(VggfeatError, ValueError):
    """A tensor has the wrong shape, type or range, or an argument a value that is not allowed.

    >>> one_of("pooling", "mac", ("max", "avg"))
    Traceback (most recent call last):
    vggfeat.errors.InputError: unknown pooling 'mac': did you mean max?
    """


class ImageError(VggfeatError):
    """A picture file cannot be read or written.

    `saved_as` is the path that a picture was written to in the place of the one asked for, or None.

    >>> from vggfeat import read_picture
    >>> read_picture("missing.png")
    Traceback (most recent call last):
    vggfeat.errors.ImageError: cannot read 'missing.png': no such file
    """

    def __init__(self, message: str = "", saved_as: Path | None = None) -> None:
        super().__init__(message if saved_as is None else f"{message}; it is saved as '{saved_as}'")
        self.saved_as = saved_as


class RecipeError(VggfeatError, ValueError):
    """A recipe is unknown, has unknown fields, or values that are not allowed.

    >>> from vggfeat import recipe
    >>> recipe("default", steps=-1)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    vggfeat.errors.RecipeError: ...
    """


def similar(word: str, known: Iterable[str], *, limit: int = 3) -> list[str]:
    """The known words that are spelled like `word`, most similar first; case is ignored.

    >>> similar("Men", ["mean", "max"])
    ['mean']
    """
    lower = {name.lower(): name for name in known}
    return [lower[match] for match in get_close_matches(word.lower(), lower, n=limit)]


def did_you_mean(words: Sequence[str]) -> str:
    """A question that ends an error message.

    >>> did_you_mean(["mean", "max", "none"])
    'did you mean mean, max or none?'
    """
    *others, last = words
    return f"did you mean {', '.join(others)} or {last}?" if others else f"did you mean {last}?"


def near(word: object, known: Iterable[str]) -> str:
    """The end of an error message: the known words similar to `word`, or all of them if none is.

    For non-strings, report the type.

    >>> near("men", ["mean", "max"]), near("sum", ["mean", "max"])
    ('did you mean mean?', 'choose from mean, max')
    """
    known = list(known)
    everything = f"choose from {', '.join(known)}"
    if not isinstance(word, str):
        return f"it is of type {type(word).__name__}; {everything}"
    words = similar(word, known)
    return did_you_mean(words) if words else everything


_Word = TypeVar("_Word", bound=str)


def one_of(
    option: str, value: _Word, known: Iterable[str], *, of: str = "", kind: type[VggfeatError] = InputError
) -> _Word:
    """Return `value` if it is a known word. Raises `kind`, whose message names the option and similar words.

    `of`: what the option belongs to, such as `the dump`.

    >>> one_of("pooling", "max", ("max", "avg"))
    'max'
    """
    known = tuple(known)
    if value not in known:
        raise kind(f"unknown {option} '{value}'{of and ' of '}{of}: {near(value, known)}")
    return value


def check_number(
    option: str, value: object, least: float, most: float = math.inf, *, kind: type[VggfeatError] = InputError
) -> None:
    """Raise `kind` unless `value` is a number from `least` to `most`. It must be an integer if `least` is one.

    NumPy's numbers count as such.

    >>> check_number("octave_scale", 0.5, 1.1, 16)
    Traceback (most recent call last):
    vggfeat.errors.InputError: octave scale is 0.5: it must be a number between 1.1 and 16
    >>> check_number("top", 0, 1)
    Traceback (most recent call last):
    vggfeat.errors.InputError: top is 0: it must be a whole number of at least 1
    """
    integer = isinstance(least, int)
    number = not isinstance(value, bool) and isinstance(value, Integral if integer else Real)
    if number and least <= cast("float", value) <= most:
        return
    what = "a whole number" if integer else "a number"
    allowed = f"of at least {least:g}" if most == math.inf else f"between {least:g} and {most:g}"
    raise kind(f"{option.replace('_', ' ')} is {value!r}: it must be {what} {allowed}")


def imported(name: str, needed: str, extra: str, *, instead: str = "", kind: type[VggfeatError] = VggfeatError) -> Any:
    """The module `name`, which comes with an extra. Raises `kind`, with the command to install it, if it is missing.

    `needed` says which work needs it, `instead` what works without.

    >>> imported("holograms", "a hologram needs holograms", "light", instead="use a photograph")
    Traceback (most recent call last):
    vggfeat.errors.VggfeatError: a hologram needs holograms: pip install "vggfeat[light]", or use a photograph
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise kind(f'{needed}: pip install "vggfeat[{extra}]"{instead and ", or "}{instead}') from error


def users_line() -> int:
    """The `stacklevel` that makes the caller's warning point at the user's code.

    It skips the frames of vggfeat and of the libraries that call back into it.
    """
    level, frame = 1, sys._getframe(1)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] (warnings' own way)
    while frame.f_back and _package(frame.f_globals) in _INTERNAL:
        level, frame = level + 1, frame.f_back
    return level


_INTERNAL = ("vggfeat", "torch", "torchmetrics")


def _package(names: Mapping[str, object]) -> str:
    return str(names.get("__name__", "")).partition(".")[0]
