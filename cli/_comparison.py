"""Print a comparison: its values and settings on standard output, missing and failed pairs on standard error."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from ._text import escaped, print_table

if TYPE_CHECKING:
    from vggfeat.pairs.result import Comparison

_SHOWN_DIGITS = 12


def print_comparison(result: "Comparison") -> None:
    """Print a line for each pair, the mean, the contribution of layers, and the settings."""
    metrics = [name for name in result.mean if "/" not in name]
    rows = [(one.pair.name, one.values) for one in result.rows]
    if len(rows) > 1:
        rows.append((f"mean of {len(rows)}", result.mean))
    _print_values("pair", metrics, rows)
    column = "mean" if len(result.rows) > 1 else "value"
    for name, count in result.infinite.items():
        if count < len(result.rows):
            click.echo(f"{name} is infinite for {count} of {len(result.rows)} pairs, which are left out of its mean")
    _print_values("layer", [column], [(name, {column: value}) for name, value in result.mean.items() if "/" in name])
    for line in _metadata_lines(result.metadata):
        click.echo(line)


def report_missing(result: "Comparison") -> None:
    """List pictures without a counterpart and pairs that could not be compared."""
    for picture, reason in result.unmatched.items():
        click.echo(escaped(f"unmatched: '{picture}': {reason}"), err=True)
    for failure in result.failures:
        click.echo(escaped(f"failed: '{failure.pair.name}': {failure.reason}"), err=True)
    if result.unmatched:
        click.echo(f"{len(result.unmatched)} unmatched", err=True)
    if result.failures:
        click.echo(f"{len(result.failures)} of {len(result.failures) + len(result.rows)} pairs failed", err=True)


def _print_values(title: str, names: Sequence[str], rows: Sequence[tuple[str, Mapping[str, float]]]) -> None:
    if not rows:
        return
    columns = [[title, *(escaped(name) for name, _ in rows)]]
    for name in names:
        cells = [name, *(f"{values[name]:z.{_digits(name)}f}" for _, values in rows)]
        width = max(map(len, cells))
        columns.append([cell.rjust(width) for cell in cells])  # print_table would not align inf and negative values
    header, *body = zip(*columns, strict=True)
    print_table(header, body)
    click.echo()


def _digits(name: str) -> int:
    """The digits after the point. Squared differences of frames are small."""
    return 6 if name.startswith("warping") else 4


def _metadata_lines(about: Mapping[str, Any]) -> Iterable[str]:
    metrics: dict[str, dict[str, str]] = about["metrics"]
    for name, facts in metrics.items():
        details = [f"{key} {_short(key, value)}" for key, value in facts.items() if key != "metric"]
        yield f"{name}: {', '.join([facts['metric'], *details])}"
    if heat := about.get("heatmap"):
        yield f"heat maps: {heat['metric']}, from {heat['black']} in black to {heat['white']} in white"
    low, high = about["input_range"]
    size = f"resized to {about['resize']}" if about["resize"] else "not resized"
    yield f"pictures in [{low}, {high}], {size}, {about['precision']} on {about['device']}, vggfeat {about['vggfeat']}"


def _short(key: str, value: str) -> str:
    return value[:_SHOWN_DIGITS] if key.endswith("sha256") else value
