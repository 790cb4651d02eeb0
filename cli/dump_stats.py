"""`vggfeat dump-stats`: print the statistics that were collected while a dump was made."""

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from ._text import print_table, printable

if TYPE_CHECKING:
    from vggfeat.dumps.reading import Dump
    from vggfeat.dumps.statistics import LayerStatistics


@click.command()
@click.argument("dump", type=click.Path())
@click.option("--layer", metavar="NAME", help="Print the channels of this layer.  [default: all layers]")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option("--plot", type=click.Path(), metavar="FILE", help="Also save charts: PNG, JPEG, WebP or TIFF.")
def command(dump: str, *, layer: str | None, as_json: bool, plot: str | None) -> None:
    """Print what `vggfeat dump --statistics`, `--cka` and `--rdm` measured.

    Without --layer: means over the channels of each layer, and the number of dead channels (always zero). With
    --layer: each channel, and the picture that activates it most.
    """
    from vggfeat.dumps.reading import open_dump
    from vggfeat.dumps.summary import summary
    from vggfeat.errors import InputError, near

    opened = open_dump(dump)
    if layer is not None and layer not in opened.layers:
        raise InputError(f"unknown layer '{layer}' of the dump: {near(layer, opened.layers)}")
    if plot is not None:
        from vggfeat.explore.pages.statistics import chart
        from vggfeat.pictures import images

        images.check_writable(plot)
        images.write_picture(plot, images.from_pil(chart(opened, layer)).rgb)
    if as_json:
        click.echo(json.dumps(summary(opened), allow_nan=False))
    else:
        _print(opened, layer)


def _print(dump: "Dump", layer: str | None) -> None:
    measured = dump.fingerprint
    cka = measured["cka"] and layer is None
    if measured["statistics"] or not (measured["rdm"] or cka):
        found = dump.statistics()  # raises an error if there are none
        if layer is None:
            _print_layers(found)
        elif layer in found:
            _print_channels(found[layer])
    if cka:
        names, matrix = dump.cka()
        print_table(
            ["linear CKA", *names], [[a, *(f"{x:.4f}" for x in row)] for a, row in zip(names, matrix, strict=True)]
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
            *(f"{layer.max[number]:.4g}", str(int(layer.beyond[number])), printable(str(layer.top_ids[number][0]))),
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
