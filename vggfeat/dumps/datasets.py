"""An array of a dump as a torch data set."""

import torch
from torch import Tensor
from torch.utils.data import Dataset

from vggfeat.dumps.protocols import FeatureRows


class FeatureDataset(Dataset[tuple[Tensor, str]]):
    """Yields (features, id) for each row of an array."""

    def __init__(self, array: FeatureRows) -> None:
        self._array = array
        self._ids = array.ids

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> tuple[Tensor, str]:
        return torch.tensor(self._array[index]), self._ids[index]

    def __getitems__(self, indices: list[int]) -> list[tuple[Tensor, str]]:
        """Several rows, read file by file. `DataLoader` calls this for each batch."""
        if not self._array.one_shape:
            return [self[index] for index in indices]
        return list(zip(torch.tensor(self._array[indices]), map(self._ids.__getitem__, indices), strict=True))
