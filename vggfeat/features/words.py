"""Options that are one of a few words."""

from collections.abc import Iterable

from vggfeat.errors import InputError, near


def choose(option: str, value: str, known: Iterable[str]) -> None:
    """Raise `InputError` unless `value` is among the known words; `option` names it."""
    known = tuple(known)
    if value not in known:
        raise InputError(f"unknown {option} '{value}': {near(str(value), known)}")
