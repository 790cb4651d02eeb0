"""What vggfeat refuses, and how it says so.

Every message is one line that names what came, what is possible and, where something is near, what is near.
A command prints that line and exits with code 2.
"""

import sys
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TypeVar


class VggfeatError(Exception):
    """Base of every refusal of vggfeat."""


class LayerError(VggfeatError, ValueError):
    """A network or a layer that does not exist."""


class WeightsError(VggfeatError):
    """Weights that are unknown, cannot be had, or are not what they should be."""


class InputError(VggfeatError, ValueError):
    """A tensor of the wrong shape, type or range."""


class ImageError(VggfeatError):
    """A picture file that cannot be read or written."""


class RecipeError(VggfeatError, ValueError):
    """A recipe that names unknown fields or asks for the impossible."""


def near(word: object, known: Iterable[str], *, limit: int = 3) -> str:
    """The end of an error message: the known words near `word`, or all of them where none is near.

    For non-strings, report the type.
    """
    known = list(known)
    everything = f"known are {', '.join(known)}"
    if not isinstance(word, str):
        return f"it is of type {type(word).__name__}, {everything}"
    lower = {name.lower(): name for name in known}
    close = [lower[match] for match in get_close_matches(word.lower(), lower, n=limit)]
    return f"near are {', '.join(close)}" if close else everything


_Word = TypeVar("_Word", bound=str)


def one_of(option: str, value: _Word, known: Iterable[str]) -> _Word:
    """Return `value` if it is among the known words. Raises `InputError`, which names the option and what is near.

    >>> one_of("pooling", "max", ("max", "avg"))
    'max'
    """
    known = tuple(known)
    if value not in known:
        raise InputError(f"unknown {option} '{value}': {near(value, known)}")
    return value


def users_line() -> int:
    """The `stacklevel` with which the caller's warning points at the line of the user's code that led to it.

    That is the nearest line outside vggfeat and torch, through which modules call each other.
    """
    level, frame = 1, sys._getframe(1)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] (warnings' own way)
    while frame.f_back and _package(frame.f_globals) in _INTERNAL:
        level, frame = level + 1, frame.f_back
    return level


_INTERNAL = ("vggfeat", "torch", "torchmetrics")


def _package(names: Mapping[str, object]) -> str:
    return str(names.get("__name__", "")).partition(".")[0]
