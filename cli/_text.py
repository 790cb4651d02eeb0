"""Text that a terminal shows as it stands."""

import unicodedata


def printable(text: str) -> str:
    """`text` with what would command a terminal, or turn the line round, escaped as Python does it."""
    return "".join(_escape(letter) for letter in text)


def _escape(letter: str) -> str:
    kind = unicodedata.category(letter)
    if kind[0] == "C" or kind in ("Zl", "Zp"):
        return letter.encode("unicode_escape").decode()
    return letter
