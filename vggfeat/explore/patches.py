"""What excites a channel most, among the pictures of a dump: each where it does, cut to what that position sees."""

import os
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from vggfeat.dumps.network import DumpNetwork
from vggfeat.dumps.prepare import Preparation, prepare
from vggfeat.dumps.reading import open_dump
from vggfeat.dumps.sources import Places
from vggfeat.errors import ImageError, InputError, near
from vggfeat.networks import arch


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """The strongest position of a channel in one picture.

    `id` is the picture's in the dump; `picture` (1, 3, H, W) as the network saw it. `value` is the activation, `x` and
    `y` the position, and `left`, `top`, `right`, `bottom` the pixels that it sees; those outside are padding.
    """

    id: str
    picture: Tensor = field(repr=False)
    value: float
    x: int
    y: int
    left: int
    top: int
    right: int
    bottom: int

    def crop(self, padding: float = 0.3) -> Tensor:
        """What the position sees, (1, 3, bottom - top, right - left); what lies outside the picture is grey."""
        height, width = self.picture.shape[2:]
        cut = torch.full((1, 3, self.bottom - self.top, self.right - self.left), padding)
        top, bottom, left, right = max(0, self.top), min(height, self.bottom), max(0, self.left), min(width, self.right)
        cut[..., top - self.top : bottom - self.top, left - self.left : right - self.left] = self.picture[
            ..., top:bottom, left:right
        ]
        return cut


def most_activating(
    out: str | os.PathLike[str], layer: str, channel: int, *, top: int | None = None, device: str = "auto"
) -> tuple[Patch, ...]:
    """The `top` pictures of the dump in `out` that excite a channel most, the most exciting first; None shows all kept.

    The dump's statistics name the pictures; they are read and seen again to find the place.

    Raises `StoreError` for a dump that is incomplete or has no statistics, `InputError` for a layer or a channel that
    it does not have, `ImageError` for a picture that is gone or has changed.
    """
    dump = open_dump(out)
    if layer not in dump.layers:
        raise InputError(f"unknown layer '{layer}' of the dump: {near(layer, dump.layers)}")
    statistics = dump.statistics()
    if layer not in statistics:
        raise InputError("the dump has no picture that could be read")
    found = statistics[layer]
    if not 0 <= channel < len(found.mean):
        raise InputError(f"there is no channel {channel} in {layer}: it has 0 to {len(found.mean) - 1}")
    names = [str(name) for name in found.top_ids[channel] if name]
    if top is not None and top < 1:
        raise InputError(f"top is {top}: it is at least 1")
    recipe = replace(dump.recipe, reductions={layer: ()}, statistics=True)
    network = DumpNetwork(recipe, digest=dump.fingerprint["weights"]["sha256"], device=device)
    entries = {entry.id: entry for entry in dump.manifest}
    row = arch.find_layers(dump.fingerprint["network"], layer, pooling=dump.fingerprint["pooling"])[0]
    places = Places({name: entry.path for name, entry in entries.items()})
    patches: list[Patch] = []
    for name in names[:top]:
        prepared = prepare(places.item(name), Preparation.of(network.recipe))
        if prepared.pixels is None:
            raise ImageError(prepared.error)
        if prepared.sha256 != entries[name].sha256:
            raise ImageError(f"'{entries[name].path}' has changed since it was dumped")
        outcome = network(prepared.pixels[None])
        if isinstance(outcome, str):
            raise ImageError(f"'{entries[name].path}': {outcome}")
        activation = outcome.features[layer][0, channel].float().cpu()
        y, x = divmod(int(activation.argmax()), activation.shape[1])
        across, down = row.span(x), row.span(y)
        picture = torch.tensor(prepared.pixels)[None]
        patches.append(
            Patch(name, picture, float(activation[y, x]), x, y, across.start, down.start, across.stop, down.stop)
        )
    return tuple(patches)
