"""Training data that other packages provide: scikit-learn's digits and torchvision's STL10."""

from pathlib import Path
from typing import Any, cast

import torch

from vggfeat.errors import VggfeatError, imported
from vggfeat.pictures import images
from vggfeat.training.dataset import Data, Pictures, fingerprint, hold_out, to_bytes


def load_digits_data(size: int, share: float, seed: int) -> Data:
    """scikit-learn's digits, resized to `size` pixels, with `share` of each class held out.

    Raises `VggfeatError` without scikit-learn.
    """
    needed = "the digits need scikit-learn"
    found = imported("sklearn.datasets", needed, "train", instead="pass a folder of pictures").load_digits()
    grey = torch.from_numpy(found.images).float()[:, None] / 16
    pixels = to_bytes(images.resize(grey, size, size)).expand(-1, 3, -1, -1).contiguous()
    labels = torch.from_numpy(found.target).long()
    chosen = hold_out(labels, share, seed)
    return Data(
        name="digits",
        classes=tuple(map(str, range(10))),
        train=Pictures(labels[~chosen], size, pixels[~chosen]),
        held_out=Pictures(labels[chosen], size, pixels[chosen]),
        size=size,
        augment="shift",
        fingerprint=fingerprint([f"digits {len(labels)}", f"{size} {share} {seed}"]),
    )


def load_stl10(size: int, folder: Path) -> Data:
    """STL10, resized to `size` pixels; downloaded into `folder` unless it is there. Its test part is held out.

    Raises `VggfeatError` if it cannot be downloaded.
    """
    from torchvision.datasets import STL10

    def part(split: str) -> tuple[Pictures, tuple[str, ...]]:
        try:
            found = cast("Any", STL10(folder, split=split, download=not (folder / "stl10_binary").is_dir()))
        except (OSError, RuntimeError) as error:
            raise VggfeatError(
                f"STL10 could not be downloaded ({' '.join(str(error).split())}): put its stl10_binary into "
                f"'{folder}', or train on digits or a folder of pictures"
            ) from error
        pixels = torch.from_numpy(found.data)
        if size != pixels.shape[-1]:
            parts = (pixels[start : start + 256] for start in range(0, len(pixels), 256))
            pixels = torch.cat([to_bytes(images.resize(some.float() / 255, size, size)) for some in parts])
        labels = torch.from_numpy(found.labels).long()
        return Pictures(labels, size, pixels), tuple(found.classes)

    train, classes = part("train")
    held_out, _ = part("test")
    name = fingerprint([f"stl10 {len(train)} {len(held_out)} {size}"])
    return Data("stl10", classes, train, held_out, size, "photo", name)
