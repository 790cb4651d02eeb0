"""A dump as torch reads data."""

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from vggfeat.dumps.protocols import FeatureRows


class FeatureDataset(Dataset[tuple[Tensor, str]]):
    """(features, id) of each row of an array."""

    def __init__(self, array: FeatureRows) -> None:
        self._array = array
        self._ids = array.ids

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> tuple[Tensor, str]:
        return torch.from_numpy(np.array(self._array[index])), self._ids[index]  # pyright: ignore[reportUnknownMemberType] (torch leaves it untyped)
