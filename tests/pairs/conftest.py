"""What the tests of comparing share: two folders of pictures, and how to make, save and read more."""

from pathlib import Path

import pytest
import torch

from vggfeat import read_picture, write_picture
from vggfeat.pictures import images


def make(seed: int, height: int = 48, width: int = 64) -> torch.Tensor:
    coarse = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return images.resize(coarse, height, width).mul(255).round() / 255


@pytest.fixture
def picture():
    """Soft colours, as a file holds them: in steps of 1/255."""
    return make


@pytest.fixture
def save():
    """Write a picture, and the folders it is in."""

    def write(path: Path | str, rgb: torch.Tensor) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_picture(path, rgb)

    return write


@pytest.fixture
def read():
    """The pixels of a file, (1, 3, H, W) in [0, 1]."""
    return lambda path: read_picture(path).rgb


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch, picture, save):
    """Folders `a` and `b` of three pairs, of two sizes, one in a sub-folder and one of two endings."""
    monkeypatch.chdir(tmp_path)
    for seed, (name, other, size) in enumerate(
        [
            ("one.png", "one.png", (48, 64)),
            ("two.png", "two.webp", (40, 40)),
            ("sub/three.png", "sub/three.png", (48, 64)),
        ]
    ):
        save(f"a/{name}", picture(seed, *size))
        save(f"b/{other}", picture(seed + 10, *size))
