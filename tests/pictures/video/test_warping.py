"""Warping against scipy, the consistency check against its definition and a scene with a known occlusion."""

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from vggfeat.errors import InputError
from vggfeat.pictures.video.warping import visible, warp


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_warping_is_bilinear_and_repeats_the_edge():
    picture, flow = noise(2, 3, 20, 30), (noise(2, 2, 20, 30, seed=1) - 0.5) * 40
    warped, inside = warp(picture.double(), flow.double())
    y, x = torch.meshgrid(torch.arange(20.0), torch.arange(30.0), indexing="ij")
    for n in range(2):
        places = torch.stack([y + flow[n, 1], x + flow[n, 0]])
        expected = [map_coordinates(channel, places, order=1, mode="nearest") for channel in picture[n].numpy()]
        torch.testing.assert_close(warped[n], torch.tensor(np.array(expected)).double(), atol=1e-5, rtol=0)
        within = (places >= 0).all(0) & (places[0] <= 19) & (places[1] <= 29)
        assert torch.equal(inside[n, 0], within)
    assert 0.1 < inside.float().mean() < 0.9


def test_cubic_warps_keep_what_bilinear_ones_blur_and_amplify_nothing():
    """Waves of `period` pixels are shifted by half a pixel again and again."""
    shift = torch.tensor([0.5, 0.0]).reshape(1, 2, 1, 1).expand(1, 2, 4, 400)

    def left(mode, period, times):
        picture = (2 * torch.pi * torch.arange(400.0) / period).sin().expand(1, 1, 4, 400)
        for _ in range(times):
            picture, _ = warp(picture, shift, mode=mode)
        return float(picture[..., 150:-150].abs().max())

    assert left("bilinear", 8, 10) < 0.6
    assert left("cubic", 8, 10) > 0.9
    assert all(left("cubic", period, 40) <= 1.01 for period in (3, 5, 8, 12, 30))


def test_an_unknown_flow_is_not_inside():
    flow = torch.zeros(1, 2, 4, 6)
    flow[..., 2] = torch.nan
    warped, inside = warp(noise(1, 3, 4, 6), flow)
    assert warped.isfinite().all()
    assert inside[..., 2].sum() == 0
    assert inside.sum() == 4 * 5
    assert not visible(flow, torch.zeros(1, 2, 4, 6))[..., 2].any()


@pytest.mark.parametrize("shape", [(1, 2, 4, 5), (1, 2, 5, 6), (2, 2, 4, 6), (1, 3, 4, 6), (2, 4, 6)])
def test_a_flow_of_another_size_is_refused(shape):
    with pytest.raises(InputError, match="flow"):
        warp(noise(1, 3, 4, 6), torch.zeros(shape))


def test_a_moving_square_hides_what_is_behind_it():
    """A square moves to the right by 6 pixels over a still ground."""
    first, second = torch.zeros(40, 60, dtype=torch.bool), torch.zeros(40, 60, dtype=torch.bool)
    first[10:30, 10:30] = second[10:30, 16:36] = True
    forward = torch.stack([first * 6.0, torch.zeros(40, 60)])[None]
    backward = torch.stack([second * -6.0, torch.zeros(40, 60)])[None]
    found = visible(backward, forward)[0, 0]
    uncovered = first & ~second  # the ground that the square hid in the first picture
    assert not found[uncovered].any()
    boundary = (second.roll(1, 0) != second.roll(-1, 0)) | (second.roll(1, 1) != second.roll(-1, 1))
    assert found[~uncovered & ~boundary].all()
    assert not found[boundary & ~second].any()


def test_the_check_follows_its_definition():
    flow, back = (noise(1, 2, 24, 32, seed=seed) - 0.5 for seed in (3, 4))
    flow, back = (torch.nn.functional.avg_pool2d(x, 5, 1, 2) * 3 + shift for x, shift in ((flow, 1.3), (back, -1.3)))
    y, x = torch.meshgrid(torch.arange(24.0), torch.arange(32.0), indexing="ij")
    places = torch.stack([y + flow[0, 1], x + flow[0, 0]])
    inside = (places >= 0).all(0) & (places[0] <= 23) & (places[1] <= 31)
    there = [map_coordinates(channel, places, order=1, mode="nearest") for channel in back[0].numpy()]
    there = torch.tensor(np.array(there))
    returns = (flow[0] + there).square().sum(0) <= 0.01 * (flow[0].square().sum(0) + there.square().sum(0)) + 0.5
    slope = torch.zeros(24, 32)
    for axis in (1, 2):
        ahead, behind = (torch.stack(torch.gradient(flow[0, i], dim=axis - 1)) for i in (0, 1))
        slope += (ahead.square() + behind.square()).sum(0)
    smooth = slope <= 0.01 * flow[0].square().sum(0) + 0.002
    middle = (slice(1, -1), slice(1, -1))  # at the edges torch.gradient is one-sided
    assert torch.equal(visible(flow, back)[0, 0][middle], (inside & returns & smooth)[middle])
    assert 0.1 < (inside & returns & smooth)[middle].float().mean() < 0.9


def test_the_disparity_of_middleburys_motorcycle_warps_one_view_onto_the_other():
    data = pytest.importorskip("skimage.data")
    try:
        left, right, disparity = data.stereo_motorcycle()
    except OSError as error:
        pytest.skip(f"the pictures cannot be downloaded: {error}")
    left, right = (torch.from_numpy(x).permute(2, 0, 1)[None].double() / 255 for x in (left, right))
    known = torch.from_numpy(np.isfinite(disparity))
    flow = torch.zeros(1, 2, *disparity.shape, dtype=torch.double)
    flow[0, 0] = -torch.from_numpy(disparity)
    warped, inside = warp(right, flow.masked_fill(~known, torch.nan))
    assert not inside[0, 0][~known].any()
    squared = ((warped - left).square().mean(1)[inside[:, 0]], (right - left).square().mean(1)[inside[:, 0]])
    assert squared[0].median() < 0.1 * squared[1].median()
    assert squared[0].mean() < 0.3 * squared[1].mean()
