"""Which pictures of a dump activate a channel most: how strongly, and where."""

import dataclasses
import os
from dataclasses import dataclass, replace

from torch import Tensor
from torch.nn.functional import pad

from vggfeat.dumps.inputs import DumpInputs
from vggfeat.dumps.network import DumpNetwork
from vggfeat.dumps.reading import Dump, open_dump
from vggfeat.dumps.statistics import LayerStatistics
from vggfeat.errors import ImageError, InputError, check_number, one_of
from vggfeat.explore.view import Field, field_of
from vggfeat.networks import arch


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """The position in one picture at which a channel is most active.

    Attributes:
        id: the picture's id in the dump.
        picture: (1, 3, H, W), the input of the network.
        value: the activation.
        field: the position and its receptive field.
    """

    id: str
    picture: Tensor = dataclasses.field(repr=False)
    value: float
    field: Field

    def crop(self, padding: float = 0.3) -> Tensor:
        """The pixels of the receptive field, (1, 3, height, width), with `padding` outside the picture."""
        height, width = self.picture.shape[2:]
        x, y, right, bottom = self.field[2:]
        sides = (max(0, -x), max(0, right - width), max(0, -y), max(0, bottom - height))
        inside = self.picture[..., max(0, y) : bottom, max(0, x) : right]
        return pad(inside, sides, value=padding)


def most_activating(
    out: str | os.PathLike[str], layer: str, channel: int, *, top: int | None = None, device: str = "auto"
) -> tuple[Patch, ...]:
    """The patches that activate a channel most among the pictures of the dump in `out`, in descending order.

    The dump's statistics name the pictures. Each is read and run through the network once more to find the position.

    Args:
        out: the folder of the dump.
        layer: one of its layers.
        channel: a channel of the layer.
        top: the number of pictures; None takes all that the statistics list.
        device: `auto` (CUDA, else MPS, else CPU) or a torch device.

    Raises `StoreError` for a dump that is incomplete or has no statistics, `InputError` for a layer or a channel that
    it does not have, and `ImageError` for a picture that is missing or has changed.
    """
    dump = open_dump(out)
    names = [str(name) for name in _statistics(dump, layer, channel).top_ids[channel] if name]
    if top is not None:
        check_number("top", top, 1)
    recipe = replace(dump.recipe, reductions={layer: ()}, statistics=True)
    network = DumpNetwork(recipe, digest=dump.fingerprint["weights"]["sha256"], device=device)
    [place] = arch.find_layers(recipe.network, layer, pooling=recipe.pooling, head="paper")
    inputs = DumpInputs(dump)
    patches: list[Patch] = []
    for name in names[:top]:
        picture = inputs[name]
        outcome = network(picture.numpy())
        if isinstance(outcome, str):
            raise ImageError(f"'{name}': {outcome}")
        activation = outcome.features[layer][0, channel].float().cpu()
        y, x = divmod(int(activation.argmax()), activation.shape[1])
        patches.append(Patch(name, picture, float(activation[y, x]), field_of(place, x, y)))
    return tuple(patches)


def strongest(out: str | os.PathLike[str], layer: str, channel: int, *, network: str) -> tuple[float, str]:
    """The largest activation of a channel among the pictures of the dump in `out`, and the id of its picture.

    Raises `StoreError` for a dump without statistics, and `InputError` for one of another network or without the layer
    or channel.
    """
    dump = open_dump(out)
    if dump.fingerprint["network"] != network:
        raise InputError(f"the dump is of {dump.fingerprint['network']}, not of {network}")
    found = _statistics(dump, layer, channel)
    return float(found.top[channel][0]), str(found.top_ids[channel][0])


def _statistics(dump: Dump, layer: str, channel: int) -> LayerStatistics:
    """The statistics of a layer that has the channel."""
    one_of("layer", layer, dump.layers, of="the dump")
    found = dump.statistics().get(layer)
    if found is None:
        raise InputError("the dump has no picture that could be read")
    if not 0 <= channel < len(found.mean):
        raise InputError(f"there is no channel {channel} in {layer}: choose from 0 to {len(found.mean) - 1}")
    return found
