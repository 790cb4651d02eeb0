"""Frames in an instant style, each blended with the one before."""

import pytest
import scenes
import torch

from vggfeat import InputError, WarpingError, fast_stylize, fast_stylize_frames
from vggfeat.pictures.video.warping import visible, warp


def test_a_frame_is_blended_with_the_one_before_where_that_is_seen(styles):
    clip = scenes.clip(2).split(1)
    alone = [fast_stylize(frame, "dots", styles=styles) for frame in clip]
    first, second = fast_stylize_frames(clip, "dots", styles=styles, flow=scenes.flow, steadiness=3)
    torch.testing.assert_close(first, alone[0])
    there, back = (scenes.flow(*pair) for pair in scenes.pairs(clip))
    moved = warp(first, there, mode="cubic")[0].clamp(0, 1)
    mask = visible(there, back)
    assert 0.5 < mask.float().mean() < 1
    torch.testing.assert_close(second, alone[1].where(~mask, (alone[1] + 3 * moved) / 4))


def test_frames_are_steadier_than_without(styles):
    clip = scenes.clip(5)
    noisy = (clip + 0.1 * torch.randn(clip.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    metric = WarpingError(flow=scenes.flow)

    def error(steadiness):
        found = fast_stylize_frames(noisy, "waves:2,dots", styles=styles, flow=scenes.flow, steadiness=steadiness)
        return metric(list(found), clip)

    assert error(4) < 0.5 * error(0)


def test_strength_and_size_are_those_of_pictures(styles):
    options = {"styles": styles, "strength": 0.5, "size": 32}
    [painted] = fast_stylize_frames(scenes.clip(1), {"dots": 1}, **options, flow=scenes.flow)
    assert torch.equal(painted, fast_stylize(scenes.clip(1), {"dots": 1}, **options))


def test_bad_arguments_are_refused(styles):
    with pytest.raises(InputError, match="did you mean dots"):
        next(fast_stylize_frames(scenes.clip(1), "dot", styles=styles, flow=scenes.flow))
    with pytest.raises(InputError, match="steadiness is -1"):
        next(fast_stylize_frames(scenes.clip(1), "dots", styles=styles, steadiness=-1, flow=scenes.flow))
