"""The peak of the memory that tensors take, without a GPU: the bytes of all storages that are alive at a time."""

import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Meter(TorchDispatchMode):
    """Sums the bytes of the storages that operations inside `with Meter() as meter:` make, while they are alive."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._alive: dict[int, weakref.ref] = {}

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        result = function(*arguments, **(options or {}))
        for x in result if isinstance(result, (list, tuple)) else [result]:
            if isinstance(x, torch.Tensor):
                self._add(x.untyped_storage())
        return result

    def _add(self, storage) -> None:
        key, size = storage._cdata, storage.nbytes()  # noqa: SLF001 (the storage's identity)
        if key in self._alive:
            return

        def freed(_) -> None:
            del self._alive[key]
            self.now -= size

        self._alive[key] = weakref.ref(storage, freed)
        self.now += size
        self.peak = max(self.peak, self.now)
