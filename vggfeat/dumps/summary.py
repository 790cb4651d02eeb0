"""The statistics of a dump as plain values, for JSON."""

import math
from typing import TYPE_CHECKING, Any

from vggfeat.dumps.reading import Dump

if TYPE_CHECKING:
    from vggfeat.dumps.statistics import LayerStatistics


def summary(dump: Dump) -> dict[str, Any]:
    """The fingerprint of a dump, and its statistics, CKA and RDMs as far as it has them. NaN and infinity are None."""
    content: dict[str, Any] = {"fingerprint": dump.fingerprint}
    if dump.fingerprint["statistics"]:
        content["layers"] = {name: _layer(layer) for name, layer in dump.statistics().items()}
    if dump.fingerprint["cka"]:
        names, matrix = dump.cka()
        content["cka"] = {
            "layers": names,
            "values": [_finite(row) for row in matrix.tolist()],
            "unbiased": [_finite(row) for row in dump.cka(unbiased=True)[1].tolist()],
        }
    if dump.fingerprint["rdm"]:
        found = {layer: dump.rdm(layer) for layer in dump.layers}
        content["rdm"] = {
            "pictures": next(iter(found.values()))[0],
            "values": {name: [_finite(row) for row in matrix.tolist()] for name, (_, matrix) in found.items()},
        }
    return content


def _layer(layer: "LayerStatistics") -> dict[str, Any]:
    columns = ("mean", "variance", "zeros", "max", "beyond")
    top = [[name for name in row if name] for row in layer.top_ids.tolist()]
    return {
        "pictures": layer.pictures,
        **{name: _finite(getattr(layer, name).tolist()) for name in columns},
        "top": top,
        "top_values": [_finite(row[: len(names)]) for row, names in zip(layer.top.tolist(), top, strict=True)],
    }


def _finite(values: list[float]) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values]
