import pytest
import torch

from vggfeat import InputError, Matches
from vggfeat.explore.pages.matches import side_by_side, spread

A, B = (90, 60), (50, 80)  # widths and heights


def matches(points_a, points_b):
    about = {
        "a": {"name": "a.png", "width": A[0], "height": A[1]},
        "b": {"name": "b.png", "width": B[0], "height": B[1]},
        "network": "vgg16",
        "weights": "imagenet1k_v1",
        "layer": "relu4_2",
        "refined": ["relu3_3"],
        "ratio": 0.95,
    }
    points = [torch.tensor(points, dtype=torch.float32).reshape(-1, 2) for points in (points_a, points_b)]
    return Matches(*points, torch.linspace(1, 0.5, len(points[0])), about)


PICTURES = torch.zeros(1, 3, A[1], A[0]), torch.zeros(1, 3, B[1], B[0])


def bright(page, box):
    x, y, width, height = box
    return (page[0, :, y : y + height, x : x + width].amax(0) > 0.3).nonzero().flip(1) + torch.tensor([x, y])


def places(page):
    """The boxes of the two pictures, which are black on a page that is not."""
    black = (page[0].amax(0) == 0).nonzero()
    top, bottom = int(black[:, 0].min()), int(black[:, 0].max()) + 1
    columns = (page[0, :, (top + bottom) // 2].amax(0) == 0).nonzero().flatten().tolist()
    split = next(number for number, x in enumerate(columns[1:], 1) if x != columns[number - 1] + 1)
    return [(columns[0], top, split, bottom - top), (columns[split], top, len(columns) - split, bottom - top)]


def test_dots_lie_where_the_points_do():
    boxes = places(side_by_side(matches([], []), *PICTURES))
    page = side_by_side(matches([[22, 45]], [[40, 9.5]]), *PICTURES, lines=0)
    for box, size, point in zip(boxes, (A, B), ([22, 45], [40, 9.5]), strict=True):
        assert box[2] / box[3] == pytest.approx(size[0] / size[1], abs=0.01)
        middle = bright(page, box).float().mean(0)
        expected = (
            torch.tensor(box[:2]) + (torch.tensor(point) + 0.5) * torch.tensor(box[2:]) / torch.tensor(size) - 0.5
        )
        assert (middle - expected).abs().max() < 1


def test_both_dots_of_a_match_have_one_colour_and_lines_join_them():
    boxes = places(side_by_side(matches([], []), *PICTURES))
    found = matches([[5, 5], [80, 50]], [[40, 70], [10, 10]])
    page = side_by_side(found, *PICTURES, lines=0)
    colours = []
    for box, size, points in zip(boxes, (A, B), (found.points_a, found.points_b), strict=True):
        at = torch.tensor(box[:2]) + (points + 0.5) * torch.tensor(box[2:]) / torch.tensor(size)
        colours.append(page[0][:, at[:, 1].long(), at[:, 0].long()])
    assert (colours[0] - colours[1]).abs().max() < 0.1
    assert (colours[0][:, 0] - colours[0][:, 1]).abs().max() > 0.3
    gap = slice(boxes[0][0] + boxes[0][2] + 2, boxes[1][0] - 2)
    joined = side_by_side(found, *PICTURES, lines=2)
    top, bottom = boxes[0][1], boxes[0][1] + boxes[0][3]
    assert page[0, :, top:bottom, gap].amax() < 0.2
    assert joined[0, :, top:bottom, gap].amax() > 0.3


def test_lines_are_spread():
    crowd = [[1 + number / 100, 1] for number in range(50)]
    found = matches([*crowd, [80, 50], [80, 5]], [[0, 0]] * 52)
    assert spread(found, 6, *A) == [0, 50, 51]
    assert spread(found, 2, *A) == [0, 50]
    assert spread(found, 0, *A) == []
    assert spread(matches([], []), 10, *A) == []


def test_bad_input():
    with pytest.raises(InputError, match="picture b is 90x60 pixels, and was 50x80 when it was matched"):
        side_by_side(matches([], []), PICTURES[0], PICTURES[0])
    with pytest.raises(InputError, match="lines is -1"):
        side_by_side(matches([], []), *PICTURES, lines=-1)
