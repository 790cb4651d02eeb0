"""Mixes of instant styles as text: `swirls`, `swirls:2,mosaic:1`, `my.safetensors:waves`."""

import math
import os
import re
from collections.abc import Mapping
from typing import NamedTuple

from vggfeat.errors import InputError, one_of
from vggfeat.transfer.styles.file import ENDING, InstantStyles, bundled_styles

_IN_FILE = re.compile(rf"(?P<file>.*{re.escape(ENDING)})(?::(?P<style>.*))?", re.IGNORECASE)


class Mix(NamedTuple):
    """The file of a mix, None for the bundled one, and {style: weight}, empty for the file's only style."""

    file: str | None
    weights: Mapping[str, float]


def parse_mix(text: str) -> Mix:
    """Read `NAME`, `NAME:WEIGHT,NAME:WEIGHT` or `FILE:NAME`; weights are 1 by default.

    A file is named once, or each time. Raises `InputError`.

    >>> parse_mix("swirls:2,mosaic")
    Mix(file=None, weights={'swirls': 2.0, 'mosaic': 1.0})
    >>> parse_mix("my.safetensors:waves:0.5,dots:1")
    Mix(file='my.safetensors', weights={'waves': 0.5, 'dots': 1.0})
    """
    file: str | None = None
    weights: dict[str, float] = {}
    items = [item.strip() for item in text.split(",")]
    for number, item in enumerate(items):
        style = item
        if found := _IN_FILE.fullmatch(item):
            if file not in (None, found["file"]) or (number and file is None):
                raise InputError(f"'{text}' mixes styles of several files: a mix is of one file's styles")
            file, style = found["file"], found["style"] or ""
            if not style and len(items) == 1:
                return Mix(file, {})
        name, colon, weight = style.partition(":")
        if not name or name in weights:
            raise InputError(f"'{text}' is not a mix: write NAME, FILE{ENDING}:NAME or NAME:2,NAME:1, each name once")
        weights[name] = _weight(weight, text) if colon else 1.0
    if not any(weights.values()):
        raise InputError(f"the weights of '{text}' are all 0")
    return Mix(file, weights)


def _weight(text: str, mix: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise InputError(f"'{mix}' gives a style the weight '{text}': it must be a number of at least 0")
    return value


def find_mix(
    style: str | Mapping[str, float], styles: InstantStyles | str | os.PathLike[str] | None = None
) -> tuple[InstantStyles, dict[str, float]]:
    """The styles of `style`, text or {style: weight}, in the file `styles`, else as `load_mix` finds them.

    Raises what `load_mix` raises.
    """
    known = styles if styles is None or isinstance(styles, InstantStyles) else InstantStyles.load(styles)
    if not isinstance(style, str) and known is not None:
        return known, named_weights(style, known)
    text = style if isinstance(style, str) else ",".join(f"{name}:{weight}" for name, weight in style.items())
    return load_mix(text, known)


def load_mix(text: str, styles: InstantStyles | None = None) -> tuple[InstantStyles, dict[str, float]]:
    """The styles that `text` names, and {style: weight}. `styles` are used where the text names no file.

    Raises `InputError` for a style that the file does not have, `WeightsError` for a file that cannot be read.
    """
    mix = parse_mix(text)
    if mix.file is None and styles is None and not bundled_styles().exists():
        raise InputError(
            f"no styles are bundled with this version, so there is no '{text}': train some by `vggfeat train-style "
            f"PICTURE... -o my{ENDING}`, then pass my{ENDING}:NAME"
        )
    found = styles if mix.file is None and styles else InstantStyles.load(mix.file or bundled_styles())
    return found, named_weights(mix.weights, found)


def named_weights(weights: Mapping[str, float], styles: InstantStyles) -> dict[str, float]:
    """The weights of a mix, checked against the styles of a file; the file's only style if there are none.

    Raises `InputError`.
    """
    if not weights and len(styles.names) > 1:
        raise InputError(f"'{styles.path}' has several styles, {', '.join(styles.names)}: write {styles.path}:NAME")
    for name in weights:
        one_of("instant style", name, sorted(styles.names), of=_of(styles))
    return dict(weights or dict.fromkeys(styles.names, 1.0))


def _of(styles: InstantStyles) -> str:
    bundled = not styles.path or os.path.abspath(styles.path) == os.path.abspath(bundled_styles())  # noqa: PTH100
    return "" if bundled else f"'{styles.path}'"
