"""Frames that are kept close to the ones before: the temporal term, scenes, and how steady the result is."""

import weakref

import pytest
import scenes
import torch

from vggfeat import WarpingError, recipe, stylize, stylize_frames
from vggfeat.errors import InputError
from vggfeat.transfer import colours
from vggfeat.transfer.inputs import Before, Inputs
from vggfeat.transfer.optimise import LossAndGradient
from vggfeat.transfer.steady import Steady, later

LAYERS = {"content_layers": {"relu2_1": 1}, "style_layers": {"relu1_1": 1, "relu2_1": 1}}
SMALL = recipe("default", network="vgg16", **LAYERS, steps=12, first_size=64, content_weight=1.0)


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def still(first, _second):
    return torch.zeros(1, 2, *first.picture.shape[2:])


@pytest.mark.parametrize("mode", ["style", "content", "luminance"])
def test_the_temporal_term_is_its_definition(mode):
    target, mask, start, image = noise(1, 3, 6, 8), noise(1, 1, 6, 8, seed=1).round(), *noise(2, 1, 3, 6, 8, seed=2)

    def objective(x):
        return LossAndGradient(x.square().sum(), 2 * x, {"style": x.square().sum()})

    held = Before(target, mask, 30.0).held(objective, 6, 8, mode)
    held(start)  # sets the unit
    found = held(image)
    x = image.clone().requires_grad_()
    project = (lambda y: colours.compared(y, mode)) if mode != "style" else (lambda y: y)
    squared = (project(x) - project(target)).square()
    expected = 30.0 * start.square().sum() * (mask * squared).sum() / squared.numel()
    (expected + x.square().sum()).backward()
    torch.testing.assert_close(found.terms["temporal"], expected.detach())
    torch.testing.assert_close(found.loss, (expected + x.square().sum()).detach())
    torch.testing.assert_close(found.gradient, x.grad)


def test_a_frame_starts_from_what_moved_and_is_held_to_what_is_seen():
    clip = scenes.clip(2)
    steady = Steady(scenes.flow, weight=7.0)
    assert steady.before(clip[:1]) is None
    steady.add(clip[:1], clip[:1])
    before = steady.before(clip[1:])
    assert before.weight == 7.0
    assert 0.7 < before.mask.mean() < 1
    assert ((before.picture - clip[1:]).abs() * before.mask).max() < 0.03


def test_what_enters_at_the_edge_starts_from_the_content():
    steady = Steady(lambda first, second: torch.tensor([4.0 * (second.number - first.number), 0]).reshape(1, 2, 1, 1)
                    .expand(1, 2, 16, 24))  # fmt: skip
    clip, painted = noise(2, 3, 16, 24), noise(1, 3, 16, 24, seed=1)
    steady.add(clip[:1], painted)
    before = steady.before(clip[1:])
    torch.testing.assert_close(before.picture[..., :4], clip[1:, ..., :4])
    torch.testing.assert_close(before.picture[..., 4:], painted[..., :20])
    assert before.mask[..., :4].sum() == 0


def test_what_was_hidden_starts_from_the_content():
    """The flow back from the left half does not return."""

    def flow(first, second):
        offsets = torch.zeros(1, 2, 16, 24)
        offsets[:, 0, :, :12] = 3.0 * (first.number < second.number)
        return offsets

    steady = Steady(flow)
    clip, painted = noise(2, 3, 16, 24), noise(1, 3, 16, 24, seed=1)
    steady.add(clip[:1], painted)
    before = steady.before(clip[1:])
    torch.testing.assert_close(before.picture[..., :12], clip[1:, ..., :12])
    torch.testing.assert_close(before.picture[..., 12:], painted[..., 12:])


def test_flow_is_found_where_the_pictures_are_kept(device):
    found = []

    def flow(first, second):
        found.append((first.picture.device.type, second.picture.device.type))
        return still(first, second)

    steady = Steady(flow, device=device)
    steady.add(noise(1, 3, 16, 24), noise(1, 3, 16, 24, seed=1))
    before = steady.before(noise(1, 3, 16, 24))
    assert found == [(device, device)] * 2
    assert before.picture.device.type == before.mask.device.type == device


def test_a_blend_is_the_mean_weighted_by_steadiness():
    picture, painting, mask = *noise(2, 1, 3, 6, 8), noise(1, 1, 6, 8, seed=1).round()
    expected = painting.where(mask == 0, (painting + 3 * picture) / 4)
    torch.testing.assert_close(Before(picture, mask, 3.0).blended(painting), expected)
    assert torch.equal(Before(picture, mask, 0.0).blended(painting), painting)


def test_what_the_last_frame_hides_is_looked_for_further_back():
    """The left half is hidden in the second frame."""
    clip = noise(3, 3, 16, 24)

    def flow(first, second):
        offsets = torch.zeros(1, 2, 16, 24)
        if {first.number, second.number} == {2, 3}:
            offsets[..., :12] = torch.nan
        return offsets

    steady, near = Steady(flow, back=(1, 2)), Steady(flow)
    for each in (steady, near):
        each.add(clip[:1], clip[:1])
        each.add(clip[1:2], clip[1:2])
    before = steady.before(clip[2:])
    assert before.mask.mean() == 1
    torch.testing.assert_close(before.picture[..., :12], clip[:1, ..., :12])
    torch.testing.assert_close(before.picture[..., 13:], clip[1:2, ..., 13:])  # 12 is at the boundary
    assert near.before(clip[2:]).mask[..., :12].sum() == 0


@pytest.mark.parametrize("method", ["tvl1", "ilk"])
def test_a_cut_begins_a_new_scene(method):
    pytest.importorskip("skimage")
    clip, other = scenes.clip(3), torch.nn.functional.interpolate(noise(2, 3, 8, 11, seed=3), (48, 64), mode="bilinear")
    steady = Steady(method)
    for number, content in enumerate([*clip.split(1), *other[:1].split(1), other[:1].roll(2, 3), clip[:1]], 1):
        assert (steady.before(content) is None) == (number in (1, 4, 6)), number
        steady.add(content, content)
    assert steady.scenes == 3


def test_a_frame_of_another_size_begins_a_scene():
    steady = Steady(still, back=(1, 2))
    for number, (height, begins) in enumerate([(16, True), (16, False), (20, True), (20, False)]):
        frame = noise(1, 3, height, 24)
        assert (steady.before(frame) is None) == begins, number
        steady.add(frame, frame)
    assert steady.scenes == 2


def test_frames_are_steadier_than_without():
    clip, style = scenes.clip(3), noise(1, 3, 48, 48, seed=5)
    metric = WarpingError(flow=scenes.flow)
    alone = torch.cat([stylize(frame, style, SMALL).result() for frame in clip])
    steady = torch.cat(list(stylize_frames(clip, style, SMALL, flow=scenes.flow)))
    assert metric(steady, clip) < 0.5 * metric(alone, clip)
    assert (steady - clip).square().mean() > 0.3 * (alone - clip).square().mean()  # it is painted all the same


def test_later_frames_take_the_last_stage_only():
    coarse_to_fine = recipe("default", size=128, first_size=32, steps=10, step_decay=0.5)
    from vggfeat.transfer.stages import plan

    stages = plan(coarse_to_fine, 96, 128)
    assert len(stages) == 3
    [last] = plan(later(coarse_to_fine, 96, 128), 96, 128)
    assert (last.height, last.width, last.steps) == (96, 128, stages[-1].steps)


def test_a_frame_that_is_skipped_counts():
    asked = []

    def flow(first, second):
        asked.append((first.number, second.number))
        return still(first, second)

    steady = Steady(flow)
    steady.before(noise(1, 3, 16, 16))
    steady.add(noise(1, 3, 16, 16), noise(1, 3, 16, 16))
    steady.skip()
    steady.before(noise(1, 3, 16, 16))
    assert asked == [(3, 1), (1, 3)]


def test_luminance_starts_without_colours():
    frame, painted = noise(1, 3, 16, 16), noise(1, 3, 16, 16, seed=1)
    before = Before(painted, torch.ones(1, 1, 16, 16), 1.0)
    inputs = Inputs.read(frame, frame, before=before)
    start = inputs.start(recipe("default", color="luminance"))
    torch.testing.assert_close(start, colours.compared(painted, "luminance").expand(1, 3, 16, 16))
    assert torch.equal(inputs.start(recipe("default", color="content")), painted)


def test_frames_are_not_kept():
    seen = []

    def frames():
        for number in range(8):
            frame = noise(3, 32, 32, seed=number)
            seen.append(weakref.ref(frame))
            yield frame

    quick = recipe("default", network="vgg16", **LAYERS, steps=1)
    for _ in stylize_frames(frames(), noise(3, 32, 32), quick, flow=still):
        assert sum(each() is not None for each in seen) <= 4
    assert len(seen) == 8


def test_bad_arguments_are_refused():
    with pytest.raises(InputError, match="back is"):
        Steady(still, back=(0,))
    with pytest.raises(InputError, match="steadiness is -1"):
        Steady(still, weight=-1.0)
    frame, before = noise(1, 3, 32, 32), Before(noise(1, 3, 32, 32), torch.ones(1, 1, 32, 32), 1.0)
    with pytest.raises(InputError, match="cannot be resumed"):
        stylize(frame, frame, SMALL, before=before, resume="a.ckpt")
