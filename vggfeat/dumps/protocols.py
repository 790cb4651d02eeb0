"""Interfaces of a dump and its arrays, for the modules that `reading` imports."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from vggfeat.dumps.manifest import Manifest
from vggfeat.dumps.recipe import DumpRecipe
from vggfeat.dumps.sources import Move


class FeatureRows(Protocol):
    """The features of one layer and reduction, of all pictures or those of one size."""

    layer: str
    reduction: str

    @property
    def ids(self) -> tuple[str, ...]:
        """The id of each row."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, ...)."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the values."""
        ...

    @property
    def one_shape(self) -> bool:
        """Whether all rows have the same shape."""
        ...

    @property
    def sizes(self) -> Sequence[tuple[int, int]]:
        """The different (height, width) of the pictures."""
        ...

    def of_size(self, height: int, width: int) -> "FeatureRows":
        """The rows of the pictures of one size."""
        ...

    def to_numpy(self) -> npt.NDArray[Any]:
        """Read the whole array into memory."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any, /) -> npt.NDArray[Any]: ...


class DumpLike(Protocol):
    """A complete dump."""

    path: Path
    run: Mapping[str, Any]
    fingerprint: Mapping[str, Any]
    manifest: Manifest

    @property
    def recipe(self) -> DumpRecipe:
        """The recipe that the dump was computed with."""
        ...

    @property
    def moved(self) -> Move | None:
        """Where the sources were when the dump was begun, and are now."""
        ...

    @property
    def outputs(self) -> tuple[tuple[str, str], ...]:
        """The (layer, reduction) of each array."""
        ...

    def __getitem__(self, key: tuple[str, str], /) -> FeatureRows: ...
