"""Reads the pictures of a dump again, as its network received them."""

import torch
from torch import Tensor

from vggfeat.dumps.prepare import Preparation, prepare
from vggfeat.dumps.protocols import DumpLike
from vggfeat.dumps.sources import Places
from vggfeat.errors import ImageError, InputError


class DumpInputs:
    """The pictures of a dump: `inputs["a.png"]` is (1, 3, H, W) in [0, 1], the input of the network.

    Raises `ImageError` for a picture that is missing, cannot be read, or has changed since it was dumped.
    """

    def __init__(self, dump: DumpLike) -> None:
        self._entries = {entry.id: entry for entry in dump.manifest}
        self._places = Places({name: entry.path for name, entry in self._entries.items()}, dump.moved)
        self._how = Preparation.of(dump.recipe)

    def __getitem__(self, name: str) -> Tensor:
        entry = self._entries[name]
        try:
            prepared = prepare(self._places.item(name), self._how)
        except InputError as error:  # a tar file that no longer holds it
            raise ImageError(str(error)) from error
        if prepared.pixels is None:
            raise ImageError(prepared.error)
        if prepared.sha256 != entry.sha256:
            raise ImageError(f"'{entry.path}' has changed since it was dumped")
        return torch.tensor(prepared.pixels)[None]
