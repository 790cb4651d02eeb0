"""Small pictures and a small network, so that a dump takes a moment."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

QUICK = {"network": "vgg11", "layers": "relu1_1,relu2_1", "weights": None, "resize": 32, "workers": 0, "device": "cpu"}


def make_pictures(folder: Path, count: int) -> Path:
    """`count` pictures of noise, of several sizes and formats."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    for number in range(count):
        coarse = generator.integers(0, 256, (6, 8 + number % 3, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((48 + 8 * (number % 3), 40))
        image.save(folder / f"{number:03}.{('png', 'jpg')[number % 2]}")
    return folder


def hashes(folder: Path) -> dict[str, str]:
    """{name within the folder: sha256} of every file, hidden ones too."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture
def pictures(tmp_path) -> Path:
    return make_pictures(tmp_path / "pictures", 11)
