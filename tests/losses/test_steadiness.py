"""Warping error and warped LPIPS on clips whose motion is known exactly."""

import pytest
import scenes
import torch

from vggfeat import LPIPS, WarpedLPIPS, WarpingError
from vggfeat.errors import InputError
from vggfeat.losses.steadiness import aligned
from vggfeat.pictures.video.flow import Frame
from vggfeat.pictures.video.warping import warp


def noise(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("back", [1, 2, None])
def test_a_clip_that_follows_its_own_motion_is_steady(back):
    clip = scenes.clip(5)
    assert WarpingError(flow=scenes.flow, back=back)(clip, clip) < 3e-5  # what bilinear interpolation leaves
    assert WarpingError(flow=lambda first, _: torch.zeros(1, 2, *first.picture.shape[2:]), back=back)(clip, clip) > 3e-3


def test_whole_pixels_leave_no_error():
    picture = noise(3, 40, 48)
    clip = torch.stack([picture[:, :, 3 * t : 3 * t + 32] for t in range(4)])

    def shift(first, second):
        return torch.tensor([3.0 * (first.number - second.number), 0]).reshape(1, 2, 1, 1).expand(1, 2, 40, 32)

    for back in (1, 2, None):
        assert WarpingError(flow=shift, back=back)(clip, clip) < 1e-10
        assert WarpedLPIPS("alex", flow=shift, back=back)(clip, clip) < 1e-6


def test_the_error_is_the_mean_square_of_visible_pixels():
    clip = scenes.clip(3)
    painted = noise(*clip.shape)
    values = list(WarpingError(flow=scenes.flow).each(painted, clip))
    assert len(values) == 2
    for value, [pair] in zip(values, aligned(painted.split(1), clip.split(1), flow=scenes.flow), strict=True):
        now, then = (Frame(number, clip[[number - 1]]) for number in (pair.number, pair.against))
        warped, _ = warp(painted[[then.number - 1]], scenes.flow(now, then))
        squared = (painted[[now.number - 1]] - warped).square()[pair.visible.expand(1, 3, -1, -1)]
        torch.testing.assert_close(value, squared.mean())
        assert 0.5 < pair.visible.float().mean() < 1


def test_what_is_hidden_does_not_count():
    clip = scenes.clip(2)
    [[pair]] = aligned(clip.split(1), clip.split(1), flow=scenes.flow)
    marred = torch.where(pair.visible, clip[[1]], 1 - clip[[1]])
    painted = torch.cat([clip[:1], marred])
    metric = WarpingError(flow=scenes.flow)
    torch.testing.assert_close(metric(painted, clip), metric(clip, clip))
    lpips = WarpedLPIPS("alex", flow=scenes.flow)
    torch.testing.assert_close(lpips(painted, clip), lpips(clip, clip), atol=1e-6, rtol=0)


def test_warped_lpips_is_lpips_where_all_is_visible():
    painted = noise(3, 3, 40, 40)

    def still(first, _second):
        return torch.zeros(1, 2, *first.picture.shape[2:])

    expected = LPIPS("alex")(painted[1:], painted[:-1])
    torch.testing.assert_close(WarpedLPIPS("alex", flow=still)(painted, painted), expected)


def test_the_frames_that_are_compared():
    clip = noise(5, 3, 16, 20)
    pairs = aligned(clip.split(1), clip.split(1), flow=lambda *_: torch.zeros(1, 2, 16, 20), back=[1, 2, None])
    numbers = [[(pair.number, pair.against) for pair in found] for found in pairs]
    assert numbers == [[(2, 1), (2, 1)], [(3, 2), (3, 1), (3, 1)], [(4, 3), (4, 2), (4, 1)], [(5, 4), (5, 3), (5, 1)]]


def test_frames_are_read_one_by_one():
    """A clip that is read ahead, or kept, would be found here."""
    alive = []

    def frames():
        import weakref

        for _ in range(12):
            frame = noise(1, 3, 16, 16)
            alive.append(weakref.ref(frame))
            yield frame

    still = torch.zeros(1, 2, 16, 16)
    for _ in WarpingError(flow=lambda *_: still, back=2).each(frames(), (noise(3, 16, 16) for _ in range(12))):
        assert sum(each() is not None for each in alive) <= 5
    assert len(alive) == 12


def test_clips_that_do_not_fit_are_refused():
    clip = noise(3, 3, 16, 16)
    metric = WarpingError(flow=lambda *_: torch.zeros(1, 2, 16, 16))
    with pytest.raises(InputError, match="painted clip ends after 2 frames"):
        metric(clip[:2], clip)
    with pytest.raises(InputError, match="no pair of frames"):
        metric(clip[:1], clip[:1])
    with pytest.raises(InputError, match="frame 2 is"):
        metric([clip[0], clip[1, :, :8]], clip[:2])
    with pytest.raises(InputError, match="a frame is"):
        metric(clip[:, 0], clip)
    with pytest.raises(InputError, match="back is"):
        WarpingError(back=0)(clip, clip)
    with pytest.raises(InputError, match="unknown flow 'tvl2': did you mean tvl1"):
        WarpingError(flow="tvl2")(clip, clip)
