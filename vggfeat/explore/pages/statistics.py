"""Charts of the statistics, CKA and RDMs of a dump."""

from PIL.Image import Image

from vggfeat.dumps.reading import Dump
from vggfeat.errors import InputError
from vggfeat.explore import plots

_MOST_LABELS = 40


def chart(dump: Dump, layer: str | None = None) -> Image:
    """Charts, side by side, of the dump's layers or of the channels of one layer.

    For all layers: the share of zeros, the mean and linear CKA. For one layer: the sorted values of its channels. For
    both: RDMs. Raises `InputError` if there is nothing to draw.
    """
    measured = dump.fingerprint
    charts: list[Image] = []
    if measured["statistics"] or not (measured["rdm"] or (measured["cka"] and layer is None)):
        found = dump.statistics()  # raises an error if there are none
        if layer is None:
            means = {name: float(each.mean.mean()) for name, each in found.items()}
            zeros = {name: float(each.zeros.mean()) for name, each in found.items()}
            charts += [plots.bar_chart(zeros, title="Share of zeros", high=1.0), plots.bar_chart(means, title="Mean")]
        elif layer in found:
            each = found[layer]
            lines = {"max": sorted(each.max.tolist()), "mean": sorted(each.mean.tolist())}
            zeros = {"zeros": sorted(each.zeros.tolist())}
            label = "channels, sorted for each line"
            charts += [
                plots.line_chart(lines, title=f"{layer}: activations of its channels", x_label=label),
                plots.line_chart(zeros, title=f"{layer}: share of zeros", x_label=label),
            ]
    if measured["cka"] and layer is None:
        names, matrix = dump.cka()
        charts.append(plots.matrix_chart(matrix, names, names, numbers=matrix, title="Linear CKA of channel means"))
    if measured["rdm"]:
        for name in [layer] if layer else dump.layers:
            ids, matrix = dump.rdm(name)
            labels = ids if len(ids) <= _MOST_LABELS else [""] * len(ids)
            charts.append(plots.matrix_chart(matrix, labels, labels, title=f"RDM of {name}"))
    if not charts:
        raise InputError("there is nothing to draw: no picture could be read")
    return plots.beside(*charts)
