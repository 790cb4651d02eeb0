import pytest
import torch

from vggfeat import InputError, write_picture
from vggfeat.transfer.styles.photographs import Photographs, bundled_photographs, find_photographs


def drawn(paths, seed, count=4, crop=32):
    return Photographs(paths, crop).draw(count, torch.Generator().manual_seed(seed))


def test_squares_follow_from_the_generator():
    paths = bundled_photographs()[:2]
    assert torch.equal(drawn(paths, 0), drawn(paths, 0))
    assert not torch.equal(drawn(paths, 0), drawn(paths, 1))


def test_squares_vary_in_size_and_place_and_are_flipped(tmp_path):
    ramp = torch.linspace(0, 1, 200).expand(1, 3, 100, 200)
    write_picture(tmp_path / "ramp.png", ramp)
    squares = drawn([tmp_path / "ramp.png"], 0, count=64)
    slopes = squares[:, 0, 0, -1] - squares[:, 0, 0, 0]
    assert (slopes < 0).sum() in range(16, 49)
    assert slopes.abs().max() > 0.35  # a square of the whole height
    assert slopes.abs().min() < 0.2  # one of 32 pixels has 0.16
    assert squares.mean((1, 2, 3)).std() > 0.1


def test_half_of_the_squares_are_in_another_light(tmp_path):
    write_picture(tmp_path / "grey.png", torch.full((1, 3, 32, 32), 0.4))
    squares = drawn([tmp_path / "grey.png"], 0, count=64)
    kept = (squares - 0.4).abs().amax((1, 2, 3)) < 1e-3
    assert kept.sum() in range(16, 49)
    means = squares.mean((1, 2, 3))
    assert 0 <= squares.min() < means.min() < 0.15
    assert 0.6 < means.max() < squares.max() <= 1
    assert (squares[~kept].mean((2, 3)).std(1) > 0).all()  # a tint


def test_a_photograph_smaller_than_the_crop_is_enlarged(tmp_path):
    write_picture(tmp_path / "small.png", torch.rand(1, 3, 20, 24))
    assert drawn([tmp_path / "small.png"], 0).shape == (4, 3, 32, 32)


def test_folders_are_searched(tmp_path):
    (tmp_path / "inside").mkdir()
    for name in ("b10.png", "b9.png", "inside/a.png"):
        write_picture(tmp_path / name, torch.rand(1, 3, 8, 8))
    (tmp_path / "notes.txt").touch()
    assert [path.name for path in find_photographs([tmp_path])] == ["b9.png", "b10.png", "a.png"]
    with pytest.raises(InputError, match=r"did you mean 'inside'\?"):
        find_photographs([tmp_path / "insid"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="there is no picture in"):
        find_photographs([tmp_path / "empty"])
