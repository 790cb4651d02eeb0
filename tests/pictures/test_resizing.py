"""Fitting and resizing, against Pillow."""

import numpy as np
import pytest
import torch
from PIL import Image

from vggfeat.errors import InputError
from vggfeat.pictures.images import (
    fit,
    resize,
)


@pytest.mark.parametrize(("size", "long_side", "expected"), [
    ((480, 640), 320, (240, 320)), ((640, 480), 320, (320, 240)), ((480, 640), 640, (480, 640)),
    ((480, 640), 9999, (480, 640)), ((1, 10000), 100, (1, 100)), ((333, 1000), 100, (33, 100)), ((1, 1), 1, (1, 1)),
])  # fmt: skip
def test_fit(size: tuple[int, int], long_side: int, expected: tuple[int, int]) -> None:
    assert fit(*size, long_side) == expected


@pytest.mark.parametrize("sizes", [(0, 5, 5), (5, -1, 5), (5, 5, 0)])
def test_fit_refuses_nothing(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(InputError, match="must be a whole number of at least 1"):
        fit(*sizes)


@pytest.mark.parametrize("size", [(7, 9), (20, 31), (40, 50)])
def test_resize_agrees_with_pillow(size: tuple[int, int]) -> None:
    generator = np.random.default_rng(1)
    soft = 0.3 + 0.4 * generator.random((20, 31), np.float32)
    ours = resize(torch.from_numpy(soft).expand(1, 3, -1, -1), *size)
    theirs = np.array(Image.fromarray(soft).resize(size[::-1], Image.Resampling.BILINEAR))
    assert ours.shape == (1, 3, *size)
    assert np.abs(ours[0, 2].numpy() - theirs).max() < 1e-5


@pytest.mark.parametrize("size", [(16, 24), (4, 6), (11, 9), (8, 12), (3, 31)])
def test_resize_that_wraps_is_the_middle_of_a_tiling(size: tuple[int, int]) -> None:
    picture = torch.rand(1, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    height, width = size
    tiled = resize(picture.repeat(1, 1, 5, 5), 5 * height, 5 * width)
    middle = tiled[:, :, 2 * height : 3 * height, 2 * width : 3 * width]
    assert (resize(picture, height, width, wrap=True) - middle).abs().max() < 1e-5


def test_resize_stays_in_range_and_refuses() -> None:
    steps = torch.tensor([0.0, 1.0]).repeat(1, 3, 8, 4)
    larger = resize(steps, 32, 32)
    assert larger.min() == 0
    assert larger.max() == 1
    with pytest.raises(InputError, match="must be a whole number of at least 1"):
        resize(steps, 0, 5)
    with pytest.raises(InputError, match=r"\(N, C, H, W\)"):
        resize(steps[0], 5, 5)
