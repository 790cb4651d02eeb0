"""How commands print tables: aligned text, numbers to the right, no frame."""

from collections.abc import Sequence

import click


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print `rows` under `columns`. A column whose every cell begins with a digit is set to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(columns, *rows, strict=True)]
    numeric = [all(cell[:1].isdecimal() for cell in column) for column in zip(*rows, strict=True)]
    for index, row in enumerate([columns, *rows]):
        cells = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ]
        click.secho("  ".join(cells).rstrip(), bold=index == 0)
