"""`vggfeat dump-stats`: what was measured while a dump was made."""

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from ._tables import print_table

if TYPE_CHECKING:
    from PIL.Image import Image

    from vggfeat.dumps.reading import Dump
    from vggfeat.dumps.statistics import LayerStatistics

_MOST_LABELS = 40


@click.command()
@click.argument("dump", type=click.Path())
@click.option("--layer", metavar="NAME", help="A row a channel of this layer.  [default: a row a layer]")
@click.option("--json", "as_json", is_flag=True, help="Everything, as JSON.")
@click.option("--plot", type=click.Path(), metavar="FILE", help="Also draw it: PNG, JPEG, WebP or TIFF.")
def command(dump: str, *, layer: str | None, as_json: bool, plot: str | None) -> None:
    """Print what `vggfeat dump --statistics`, `--cka` and `--rdm` measured.

    By layer: the means over channels, and dead channels, which are zero everywhere. By channel, also the picture that
    excites it most.
    """
    from vggfeat.dumps.reading import open_dump
    from vggfeat.errors import InputError, near

    opened = open_dump(dump)
    if layer is not None and layer not in opened.layers:
        raise InputError(f"unknown layer '{layer}' of the dump: {near(layer, opened.layers)}")
    if plot is not None:
        from vggfeat.pictures import images

        images.check_writable(plot)
        images.write_picture(plot, images.from_pil(_chart(opened, layer)).rgb)
    if as_json:
        click.echo(json.dumps(_everything(opened), allow_nan=False))
        return
    if opened.fingerprint["statistics"]:
        found = opened.statistics()
        if layer is None:
            _print_layers(found)
        elif layer in found:
            _print_channels(found[layer])
    elif not (opened.fingerprint["rdm"] or (opened.fingerprint["cka"] and layer is None)):
        opened.statistics()  # says that there are none
    if opened.fingerprint["cka"] and layer is None:
        names, matrix = opened.cka()
        print_table(
            ["linear CKA", *names], [[a, *(f"{x:.4f}" for x in row)] for a, row in zip(names, matrix, strict=True)]
        )
    if opened.fingerprint["rdm"]:
        _print_distances(opened, [layer] if layer else opened.layers)


def _chart(dump: "Dump", layer: str | None) -> "Image":
    """Of the layers, their means and the share of zeros, and CKA; of one layer, its channels, the least first."""
    from vggfeat.errors import InputError
    from vggfeat.explore import plots

    charts: list[Image] = []
    others = dump.fingerprint["rdm"] or (dump.fingerprint["cka"] and layer is None)
    if dump.fingerprint["statistics"] or not others:
        found = dump.statistics()
        if layer is None:
            means = {name: float(each.mean.mean()) for name, each in found.items()}
            zeros = {name: float(each.zeros.mean()) for name, each in found.items()}
            charts += [plots.bar_chart(zeros, title="Share of zeros", high=1.0), plots.bar_chart(means, title="Mean")]
        elif layer in found:
            each = found[layer]
            lines = {"max": sorted(each.max.tolist()), "mean": sorted(each.mean.tolist())}
            zeros = {"zeros": sorted(each.zeros.tolist())}
            label = "channels, each line in its own order"
            charts += [
                plots.line_chart(lines, title=f"{layer}: activations of its channels", x_label=label),
                plots.line_chart(zeros, title=f"{layer}: share of zeros", x_label=label),
            ]
    if dump.fingerprint["cka"] and layer is None:
        names, matrix = dump.cka()
        charts.append(plots.matrix_chart(matrix, names, names, numbers=matrix, title="Linear CKA of channel means"))
    if dump.fingerprint["rdm"]:
        for name in [layer] if layer else dump.layers:
            ids, matrix = dump.rdm(name)
            labels = ids if len(ids) <= _MOST_LABELS else [""] * len(ids)
            charts.append(plots.matrix_chart(matrix, labels, labels, title=f"RDM of {name}"))
    if not charts:
        raise InputError("there is nothing to draw: no picture could be read")
    return plots.beside(*charts)


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


def _print_distances(dump: "Dump", layers: Iterable[str]) -> None:
    """Of the pairs of an RDM: --json has them all."""
    import numpy as np

    rows: list[list[str]] = []
    for name in layers:
        ids, matrix = dump.rdm(name)
        pairs = matrix[np.triu_indices(len(ids), 1)]
        pairs = pairs[np.isfinite(pairs)]
        numbers = [f"{f(pairs):.4f}" if len(pairs) else "-" for f in (np.mean, np.min, np.max)]
        rows.append([name, str(len(ids)), *numbers])
    print_table(["RDM", "pictures", "mean distance", "least", "greatest"], rows)


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
    if dump.fingerprint["rdm"]:
        found = {layer: dump.rdm(layer) for layer in dump.layers}
        content["rdm"] = {
            "pictures": next(iter(found.values()))[0],
            "values": {name: [[_finite(x) for x in row] for row in m.tolist()] for name, (_, m) in found.items()},
        }
    return content


def _plain(layer: "LayerStatistics") -> dict[str, Any]:
    numbers = {
        name: [_finite(x) for x in getattr(layer, name).tolist()]
        for name in ("mean", "variance", "zeros", "max", "beyond")
    }
    top = [[name for name in row if name] for row in layer.top_ids.tolist()]
    values = [[_finite(x) for x in row[: len(names)]] for row, names in zip(layer.top.tolist(), top, strict=True)]
    return {"pictures": layer.pictures, **numbers, "top": top, "top_values": values}


def _finite(value: float) -> float | None:
    return value if value == value and abs(value) != float("inf") else None  # noqa: PLR0124 (NaN differs from itself)
