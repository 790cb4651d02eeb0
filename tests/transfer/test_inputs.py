from dataclasses import replace

import numpy as np
import pytest
import torch

from vggfeat.errors import InputError
from vggfeat.pictures import images
from vggfeat.transfer.inputs import Inputs, Style, read_mask
from vggfeat.transfer.recipe import Recipe

GENERATOR = torch.Generator().manual_seed(0)
CONTENT, STYLE = torch.rand(1, 3, 12, 16, generator=GENERATOR), torch.rand(1, 3, 10, 10, generator=GENERATOR)
MASK = torch.rand(1, 1, 12, 16, generator=GENERATOR)


def test_weights_are_shares():
    inputs = Inputs.read(CONTENT, [STYLE, STYLE], weights=[3, 1], masks=[None, MASK[0, 0]])
    assert [style.weight for style in inputs.styles] == [0.75, 0.25]
    assert inputs.styles[0].mask is None
    assert torch.equal(inputs.styles[1].mask, MASK)
    assert Inputs.read(CONTENT, STYLE).styles[0].weight == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"style": []}, "there is no style"),
        ({"weights": [1, 2]}, "2 weights for 1 styles"),
        ({"weights": [-1]}, "at least 0, and one above it"),
        ({"weights": [float("nan")]}, "at least 0, and one above it"),
        ({"masks": []}, "0 masks for 1 styles"),
        ({"keep": CONTENT}, r"a mask is torch.float32 \(1, 3, 12, 16\): pass floating point, \(1, 1, H, W\)"),
        ({"keep": MASK.mul(255).byte()}, "a mask is torch.uint8"),
        ({"keep": MASK * 9}, "outside"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        Inputs.read(CONTENT, **{"style": STYLE, **options})


def test_a_mask_file_is_lightness_times_opacity(tmp_path):
    rgb, alpha = torch.ones(1, 3, 4, 4), torch.ones(1, 1, 4, 4)
    rgb[:, :2, :2], alpha[..., 2:] = 0, 0
    images.write_picture(tmp_path / "mask.png", rgb, alpha=alpha)
    mask = read_mask(tmp_path / "mask.png")
    assert mask.shape == (1, 1, 4, 4)
    torch.testing.assert_close(mask, rgb.mean(1, keepdim=True) * alpha)


def test_every_value_changes_the_fingerprint():
    inputs = Inputs(CONTENT, (Style(STYLE, 0.5), Style(STYLE, 0.5, MASK)), MASK)
    first, second = inputs.styles
    others = [
        replace(inputs, content=CONTENT.flip(3)),
        replace(inputs, keep=None),
        replace(inputs, styles=(first, replace(second, mask=None))),
        replace(inputs, styles=(replace(first, picture=STYLE.flip(3)), second)),
        replace(inputs, styles=(replace(first, weight=0.4), second)),
    ]
    assert inputs.fingerprint() == replace(inputs).fingerprint()
    assert len({found.fingerprint() for found in (inputs, *others)}) == 1 + len(others)


def test_where_a_run_starts(tmp_path):
    inputs = Inputs(CONTENT, (Style(STYLE),))
    noise = inputs.start(Recipe(start="noise", seed=3))
    assert inputs.start(Recipe(start="content")) is CONTENT
    assert noise.shape == CONTENT.shape
    assert torch.equal(noise, inputs.start(Recipe(start="noise", seed=3)))
    assert not torch.equal(noise, inputs.start(Recipe(start="noise", seed=4)))
    images.write_picture(tmp_path / "start.png", torch.zeros(1, 3, 5, 6))
    assert torch.equal(inputs.start(Recipe(start=str(tmp_path / "start.png"))), torch.zeros(1, 3, 5, 6))


def test_recolouring_changes_what_the_mode_names():
    inputs = Inputs(CONTENT, (Style(STYLE, 0.5, MASK), Style(STYLE.flip(1), 0.5)))
    linear = inputs.recoloured("linear")
    assert linear.content is CONTENT
    assert [style.weight for style in linear.styles] == [0.5, 0.5]
    assert linear.styles[0].mask is MASK
    assert all((style.picture.mean((2, 3)) - CONTENT.mean((2, 3))).abs().max() < 0.05 for style in linear.styles)


def test_a_mask_may_be_an_array():
    white = read_mask(np.full((4, 5), 255, np.uint8))
    assert torch.equal(white, torch.ones(1, 1, 4, 5))
