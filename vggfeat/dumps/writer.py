"""Writes shards in a thread, so that the network does not wait for the disk."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Self

import numpy as np
import numpy.typing as npt

from vggfeat.dumps.manifest import ManifestEntry
from vggfeat.dumps.receipts import Receipt
from vggfeat.dumps.shards import ShardFiles

_BATCHES_AHEAD = 2


class ShardWriter:
    """A context manager that writes shards in a thread.

    On exit it deletes the files of a shard that was not finished, after an error or an interruption.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "write")
        self._waiting: deque[Future[None]] = deque()
        self._opened: list[ShardFiles] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(cancel_futures=True)
        for files in self._opened:
            files.discard()

    def open(self, files: ShardFiles) -> ShardFiles:
        """Take responsibility for the files of a shard."""
        self._opened = [*self._opened[-1:], files]  # earlier ones are finished
        return files

    def append(self, files: ShardFiles, arrays: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """Queue a batch, {array name: (N, ...)}. Blocks while two batches wait; raises the error of an earlier one."""
        self._waiting.append(self._thread.submit(_append, files, arrays))
        while len(self._waiting) > _BATCHES_AHEAD:
            self._waiting.popleft().result()

    def finish(
        self,
        files: ShardFiles,
        entries: Sequence[ManifestEntry],
        clipped: Mapping[str, int],
        partial: Mapping[str, npt.NDArray[np.generic]] | None,
        not_finite: Mapping[str, int],
    ) -> Future[Receipt]:
        """Finish a shard when all its batches are written."""
        return self._after_batches(lambda: files.finish(entries, clipped, partial, not_finite))

    def give_up(self, files: ShardFiles, before: Receipt, reason: str) -> Future[Receipt]:
        """Delete what was written of a shard that keeps its receipt `before`."""

        def discard() -> Receipt:
            files.discard()
            return replace(before, kept=reason)

        return self._after_batches(discard)

    def _after_batches(self, act: Callable[[], Receipt]) -> Future[Receipt]:
        batches = list(self._waiting)
        self._waiting.clear()

        def wait_and_act() -> Receipt:
            for batch in batches:
                batch.result()
            return act()

        return self._thread.submit(wait_and_act)


def _append(files: ShardFiles, arrays: Mapping[str, npt.NDArray[np.generic]]) -> None:
    for name, array in arrays.items():
        files.append(name, array)
