"""Groups pictures by size, so that those of one size go through a network together."""

from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

Side = tuple[int, int]
"""(height, width) of a picture in pixels."""

USUAL_PIXELS = 512 * 512
"""A batch has at most the pixels of `batch_size` pictures of this area, so larger pictures get smaller batches."""


class SizeBatches(Generic[T]):
    """Groups items by the size of their pictures into batches of `batch_size`, in which they keep their order.

    All waiting items together have at most the pixels of one batch. When another item would exceed that, the batches
    that have waited longest are returned incomplete.

    >>> batches = SizeBatches[str](2)
    >>> batches.add((8, 8), "a"), batches.add((4, 6), "b"), batches.add((8, 8), "c")
    ([], [], [((8, 8), ['a', 'c'])])
    >>> list(batches.rest())
    [((4, 6), ['b'])]
    """

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._limit = batch_size * USUAL_PIXELS
        self._held = 0
        self._waiting: dict[Side, list[T]] = {}

    def add(self, side: Side, item: T) -> list[tuple[Side, list[T]]]:
        """Add an item whose picture has `side`. Returns the batches that are due."""
        area = side[0] * side[1]
        waiting = self._waiting.setdefault(side, [])
        waiting.append(item)
        self._held += area
        due: list[tuple[Side, list[T]]] = []
        if len(waiting) >= min(self._batch_size, max(1, self._limit // area)):
            due.append(self._take(side))
        while self._held > self._limit:
            due.append(self._take(next(iter(self._waiting))))
        return due

    def rest(self) -> Iterator[tuple[Side, list[T]]]:
        """The incomplete batches that are left."""
        while self._waiting:
            yield self._take(next(iter(self._waiting)))

    def _take(self, side: Side) -> tuple[Side, list[T]]:
        batch = self._waiting.pop(side)
        self._held -= side[0] * side[1] * len(batch)
        return side, batch
