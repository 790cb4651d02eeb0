"""Load the data that a network is trained on: a folder of pictures, STL10 or digits."""

import os
from collections.abc import Collection
from pathlib import Path

from vggfeat.networks.weights import cache_dir
from vggfeat.training.dataset import Data, Report
from vggfeat.training.folder import ClassFolder
from vggfeat.training.known import load_digits_data, load_stl10


def load_data(
    source: str | os.PathLike[str],
    *,
    size: int = 0,
    held_out: float = 0.2,
    seed: int = 0,
    skip: Collection[str] | None = None,
    report: Report | None = None,
) -> Data:
    """Read training data.

    Args:
        source: `digits` (scikit-learn's), `stl10` (torchvision's, downloaded once into the cache folder), or a folder:
            `DIR/CLASS/*`, or `DIR/train/CLASS/*` and `DIR/val/CLASS/*` (also `test` and `validation`). Sub-folders of a
            class are included; hidden files and files without the ending of a picture are not.
        size: side in pixels that the network reads; 0 is 32 for digits, 96 for STL10 and 224 for folders.
        held_out: share of each class that is held out, unless the data has a split of its own.
        seed: seed of that split.
        skip: files that are known to be damaged. If the pictures do not fit in memory, they are then not checked again.
        report: called with the number of decoded pictures and their total.

    Every picture of a folder is decoded once before training. Damaged ones are left out and listed in `skipped`.

    Raises `InputError` for a folder without two classes and for a class without pictures, `VggfeatError` if
    scikit-learn is missing or STL10 cannot be downloaded.

    >>> data = load_data("digits", size=8)
    >>> len(data.train), len(data.held_out), data.classes[:3], data.train.kept.shape[1:]
    (1438, 359, ('0', '1', '2'), torch.Size([3, 8, 8]))
    """
    match str(source):
        case "digits":
            return load_digits_data(size or 32, held_out, seed)
        case "stl10":
            return load_stl10(size or 96, cache_dir())
        case _:
            found = ClassFolder(Path(source), size or 224)
            found.decode(skip, report)
            return found.data(held_out, seed)
