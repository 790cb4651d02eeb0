"""How strongly a dump's pictures activate a channel, from its statistics."""

import os

from vggfeat.dumps.reading import open_dump
from vggfeat.errors import InputError, near


def strongest(out: str | os.PathLike[str], layer: str, channel: int, *, network: str) -> tuple[float, str]:
    """The largest activation of a channel among the pictures of the dump in `out`, and the id of its picture.

    Raises `StoreError` for a dump without statistics, and `InputError` for one of another network or without the layer
    or channel.
    """
    dump = open_dump(out)
    if dump.fingerprint["network"] != network:
        raise InputError(f"the dump is of {dump.fingerprint['network']}, not of {network}")
    if layer not in dump.layers:
        raise InputError(f"unknown layer '{layer}' of the dump: {near(layer, dump.layers)}")
    found = dump.statistics().get(layer)
    if found is None:
        raise InputError("the dump has no picture that could be read")
    if not 0 <= channel < len(found.mean):
        raise InputError(f"there is no channel {channel} in {layer}: it has 0 to {len(found.mean) - 1}")
    return float(found.top[channel][0]), str(found.top_ids[channel][0])
