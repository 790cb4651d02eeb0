"""Writes shards in a thread, so that the network does not wait for the disk."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from vggfeat.dumps.manifest import ManifestEntry
from vggfeat.dumps.receipts import Receipt
from vggfeat.dumps.shards import ShardFiles

_BATCHES_AHEAD = 2


class ShardResults(Protocol):
    """The counts and statistics for the receipt of a shard, complete once all batches are written."""

    def clipped(self) -> Mapping[str, int]:
        """{array: number of values that were clipped}."""
        ...

    def not_finite(self) -> Mapping[str, int]:
        """{array: number of values that are infinite or NaN}."""
        ...

    def partial(self) -> Mapping[str, npt.NDArray[np.generic]] | None:
        """The shard's part of the statistics, if there are any."""
        ...


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

    def append(self, files: ShardFiles, batch: Callable[[], Mapping[str, npt.NDArray[np.generic]]]) -> None:
        """Queue a batch, a function that returns {array name: (N, ...)} and is called in the thread.

        Blocks while two batches wait; raises the error of an earlier one.
        """
        self._waiting.append(self._thread.submit(_append, files, batch))
        while len(self._waiting) > _BATCHES_AHEAD:
            self._waiting.popleft().result()

    def finish(
        self,
        files: ShardFiles,
        entries: Sequence[ManifestEntry],
        results: ShardResults,
    ) -> Future[Receipt]:
        """Finish a shard when all its batches are written. `results` is asked then."""
        return self._after_batches(
            lambda: files.finish(entries, results.clipped(), results.partial(), results.not_finite())
        )

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


def _append(files: ShardFiles, batch: Callable[[], Mapping[str, npt.NDArray[np.generic]]]) -> None:
    for name, array in batch().items():
        files.append(name, array)
