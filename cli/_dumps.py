"""Text about dumps: what one would take, what a finished one lacks, its statistics."""

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from ._progress import tell
from ._text import bytes_text, escaped, print_table, seconds_text

if TYPE_CHECKING:
    from vggfeat.dumps.estimate import Estimate
    from vggfeat.dumps.reading import Dump
    from vggfeat.dumps.statistics import LayerStatistics

_ASK_ABOVE = 10 * 10**9
_SHOWN_FAILURES = 10


def print_estimate(estimate: "Estimate") -> None:
    """Print pictures, disk space, work and time."""
    click.echo(f"pictures    {estimate.left} of {estimate.pictures}")
    click.echo(f"disk        {bytes_text(estimate.bytes)}")
    click.echo(f"work        {estimate.macs / 1e9:.1f} GMAC")
    click.echo(f"time        about {seconds_text(estimate.seconds)}")


def confirm_size(output: str, size: int) -> None:
    """Ask before more than 10 GB are written. Where nobody can answer, refuse."""
    if size <= _ASK_ABOVE:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"'{output}' would take about {bytes_text(size)}: pass --yes to continue")
    click.confirm(f"'{output}' will take about {bytes_text(size)}. Continue?", abort=True, err=True)


def report_dump(dump: "Dump", *, quiet: bool) -> None:
    """List failed pictures and values that were clipped or are not finite."""
    for entry in dump.failed[:_SHOWN_FAILURES]:
        tell(escaped(f"failed: '{entry.id}': {entry.error}"))
    if len(dump.failed) > _SHOWN_FAILURES:
        tell(f"failed: {len(dump.failed) - _SHOWN_FAILURES} more, listed in the manifest")
    for name, count in dump.clipped().items():
        tell(f"clipped to float16's range: {count} values of {name}")
    for name, count in dump.not_finite().items():
        tell(f"infinite or NaN: {count} values of {name}; --precision float32 avoids that")
    if not quiet:
        click.echo(f"{dump.path}: {len(dump)} of {len(dump.manifest)} pictures")


def print_statistics(dump: "Dump", layer: str | None, *, unbiased: bool = False) -> None:
    """Print the statistics, CKA and RDMs of a dump, of one layer or of all. Raises `StoreError` if it has none."""
    measured = dump.fingerprint
    cka = measured["cka"] and layer is None
    if measured["statistics"] or not (measured["rdm"] or cka):
        found = dump.statistics()
        if layer is None:
            _print_layers(found)
        elif layer in found:
            _print_channels(found[layer])
    if cka:
        names, matrix = dump.cka(unbiased=unbiased)
        print_table(
            ["unbiased CKA" if unbiased else "linear CKA", *names],
            [[a, *(f"{x:.4f}" for x in row)] for a, row in zip(names, matrix, strict=True)],
        )
    if measured["rdm"]:
        _print_distances(dump, [layer] if layer else dump.layers)


def _print_layers(found: "dict[str, LayerStatistics]") -> None:
    columns = ("layer", "channels", "pictures", "mean", "variance", "zeros", "dead", "max", "above 65504")
    rows = [
        [
            *(name, str(len(layer.mean)), str(layer.pictures)),
            *(f"{layer.mean.mean():.4g}", f"{layer.variance.mean():.4g}", f"{layer.zeros.mean():.4f}"),
            *(str(int((layer.zeros == 1).sum())), f"{layer.max.max():.4g}", str(int(layer.beyond.sum()))),
        ]
        for name, layer in found.items()
    ]
    print_table(columns, rows)


def _print_channels(layer: "LayerStatistics") -> None:
    columns = ("channel", "mean", "variance", "zeros", "max", "above 65504", "top picture")
    rows = [
        [
            *(str(number), f"{layer.mean[number]:.4g}", f"{layer.variance[number]:.4g}", f"{layer.zeros[number]:.4f}"),
            *(f"{layer.max[number]:.4g}", str(int(layer.beyond[number])), escaped(str(layer.top_ids[number][0]))),
        ]
        for number in range(len(layer.mean))
    ]
    print_table(columns, rows)


def _print_distances(dump: "Dump", layers: Iterable[str]) -> None:
    """Summarise the distances of each RDM."""
    import numpy as np

    rows: list[list[str]] = []
    for name in layers:
        ids, matrix = dump.rdm(name)
        pairs = matrix[np.triu_indices(len(ids), 1)]
        pairs = pairs[np.isfinite(pairs)]
        numbers = [f"{f(pairs):.4f}" if len(pairs) else "-" for f in (np.mean, np.min, np.max)]
        rows.append([name, str(len(ids)), *numbers])
    print_table(["RDM", "pictures", "mean distance", "min", "max"], rows)
