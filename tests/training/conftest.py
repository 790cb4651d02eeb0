"""Small folders of pictures that a tiny network learns in a moment."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def make_folder():
    """Fill a folder with two classes: pictures of vertical and of horizontal stripes."""

    def make(folder, count=8, classes=("across", "down"), size=(20, 24), seed=0):
        random = np.random.default_rng(seed)
        for number, name in enumerate(classes):
            (folder / name).mkdir(parents=True)
            for index in range(count):
                pixels = random.integers(0, 80, (*size, 3))
                lines = (slice(None, None, 4), slice(None)) if number == 0 else (slice(None), slice(None, None, 4))
                pixels[lines] += 150
                Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{index}.png")
        return folder

    return make
