"""`vggfeat dump-stats`: what was measured while a dump was made."""

import json
from typing import TYPE_CHECKING, Any

import click

from ._tables import print_table

if TYPE_CHECKING:
    from vggfeat.dumps.reading import Dump
    from vggfeat.dumps.statistics import LayerStatistics


@click.command()
@click.argument("dump", type=click.Path())
@click.option("--layer", metavar="NAME", help="A row a channel of this layer.  [default: a row a layer]")
@click.option("--json", "as_json", is_flag=True, help="Everything, as JSON.")
def command(dump: str, *, layer: str | None, as_json: bool) -> None:
    """Print what `vggfeat dump --statistics` and `--cka` measured.

    By layer: the means over channels, and dead channels, which are zero everywhere. By channel, also the picture that
    excites it most.
    """
    from vggfeat.dumps.reading import open_dump
    from vggfeat.errors import InputError, near

    opened = open_dump(dump)
    if layer is not None and layer not in opened.layers:
        raise InputError(f"unknown layer '{layer}' of the dump: {near(layer, opened.layers)}")
    if as_json:
        click.echo(json.dumps(_everything(opened), allow_nan=False))
        return
    if opened.fingerprint["statistics"]:
        found = opened.statistics()
        if layer is None:
            _print_layers(found)
        elif layer in found:
            _print_channels(found[layer])
    elif layer is not None or not opened.fingerprint["cka"]:
        opened.statistics()  # says that there are none
    if opened.fingerprint["cka"] and layer is None:
        names, matrix = opened.cka()
        print_table(
            ["linear CKA", *names], [[a, *(f"{x:.4f}" for x in row)] for a, row in zip(names, matrix, strict=True)]
        )


def _print_layers(found: "dict[str, LayerStatistics]") -> None:
    columns = ("layer", "channels", "pictures", "mean", "variance", "zeros", "dead", "max", "above 65504")
    rows = [
        [
            name,
            str(len(layer.mean)),
            str(layer.pictures),
            f"{layer.mean.mean():.4g}",
            f"{layer.variance.mean():.4g}",
            f"{layer.zeros.mean():.4f}",
            str(int((layer.zeros == 1).sum())),
            f"{layer.max.max():.4g}",
            str(int(layer.beyond.sum())),
        ]
        for name, layer in found.items()
    ]
    print_table(columns, rows)


def _print_channels(layer: "LayerStatistics") -> None:
    columns = ("channel", "mean", "variance", "zeros", "max", "above 65504", "top picture")
    rows = [
        [
            str(number),
            f"{layer.mean[number]:.4g}",
            f"{layer.variance[number]:.4g}",
            f"{layer.zeros[number]:.4f}",
            f"{layer.max[number]:.4g}",
            str(int(layer.beyond[number])),
            str(layer.top_ids[number][0]),
        ]
        for number in range(len(layer.mean))
    ]
    print_table(columns, rows)


def _everything(dump: "Dump") -> dict[str, Any]:
    content: dict[str, Any] = {"fingerprint": dump.fingerprint}
    if dump.fingerprint["statistics"]:
        content["layers"] = {name: _plain(layer) for name, layer in dump.statistics().items()}
    if dump.fingerprint["cka"]:
        names, matrix = dump.cka()
        content["cka"] = {"layers": names, "values": [[_finite(x) for x in row] for row in matrix.tolist()]}
    return content


def _plain(layer: "LayerStatistics") -> dict[str, Any]:
    numbers = {
        name: [_finite(x) for x in getattr(layer, name).tolist()]
        for name in ("mean", "variance", "zeros", "max", "beyond")
    }
    top = [[name for name in row if name] for row in layer.top_ids.tolist()]
    return {"pictures": layer.pictures, **numbers, "top": top}


def _finite(value: float) -> float | None:
    return value if value == value and abs(value) != float("inf") else None  # noqa: PLR0124 (NaN differs from itself)
