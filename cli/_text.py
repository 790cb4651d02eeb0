"""Text for a terminal: tables, sizes, durations, and names without control characters."""

import unicodedata
from collections.abc import Sequence

import click


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print aligned `rows` under a bold header. Columns in which every cell starts with a digit are right-aligned."""
    widths = [max(len(cell) for cell in column) for column in zip(columns, *rows, strict=True)]
    numeric = [all(cell[:1].isdecimal() for cell in column) for column in zip(*rows, strict=True)]
    for index, row in enumerate([columns, *rows]):
        cells = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ]
        click.secho("  ".join(cells).rstrip(), bold=index == 0)


def escaped(text: str) -> str:
    """Escape control and format characters, such as terminal escape sequences and text-direction marks."""
    return "".join(_escape(letter) for letter in text)


def _escape(letter: str) -> str:
    kind = unicodedata.category(letter)
    if kind[0] == "C" or kind in ("Zl", "Zp"):
        return letter.encode("unicode_escape").decode()
    return letter


def interval_text(ends: tuple[float, float] | None, form: str) -> str:
    """The ends of an interval in the format `form`; a dash if there is none."""
    return "-" if ends is None else f"{ends[0]:{form}} to {ends[1]:{form}}"


def bytes_text(size: float) -> str:
    """A number of bytes in decimal units: `1.3 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def seconds_text(seconds: float) -> str:
    """A duration in its two largest units: `12 s`, `3 min 20 s`, `5 h 10 min`, `2 d 3 h`."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"
