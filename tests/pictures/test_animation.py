import gc
import warnings

import pytest
import torch
from PIL import Image

from vggfeat.errors import ImageError, InputError, VggfeatError
from vggfeat.pictures import animation


@pytest.fixture
def frames():
    """Red, green and blue, 33x20."""
    colours = torch.eye(3)
    return [animation.frame(colour.reshape(1, 3, 1, 1).expand(1, 3, 10, 10), 20, 33) for colour in colours]


@pytest.mark.parametrize("ending", ["gif", "webp"])
def test_frames_and_times_are_read_again(ending, frames, tmp_path):
    path = tmp_path / f"out.{ending}"
    animation.write_animation(path, frames, fps=10, hold=2)
    with Image.open(path) as read:
        assert (read.n_frames, read.size, read.info["loop"]) == (3, (33, 20), 0)
        times = []
        for number in range(3):
            read.seek(number)
            read.load()
            times.append(read.info["duration"])
            colour = read.convert("RGB").getpixel((5, 5))
            assert colour.index(max(colour)) == number
    assert times == [100, 100, 2100]
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


def test_the_name_that_was_given_says_the_format_not_that_of_a_links_target(frames, tmp_path):
    (tmp_path / "out.gif").symlink_to(tmp_path / "kept.webp")
    animation.write_animation(tmp_path / "out.gif", frames)
    with Image.open(tmp_path / "kept.webp") as read:
        assert read.format == "GIF"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept.webp", "out.gif"]


def test_a_video_has_the_frames_and_holds_the_last(frames, tmp_path):
    imageio = pytest.importorskip("imageio.v2")
    animation.write_animation(tmp_path / "out.mp4", frames, fps=10, hold=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # imageio's reader leaves pipes open
        with imageio.get_reader(tmp_path / "out.mp4") as reader:
            found = [frame.astype(int) for frame in reader]
        gc.collect()
    assert len(found) == 13
    assert found[0].shape == (20, 32, 3)
    for number, frame in ((0, found[0]), (1, found[1]), (2, found[2]), (2, found[-1])):
        assert frame.mean((0, 1)).argmax() == number


def test_what_is_missing_for_a_video_is_said_before_the_work(monkeypatch, tmp_path):
    monkeypatch.setattr(animation, "find_spec", lambda _: None)
    with pytest.raises(VggfeatError, match=r'pip install "vggfeat\[video\]", or write \.gif or \.webp'):
        animation.check_animation(tmp_path / "out.mp4")
    animation.check_animation(tmp_path / "out.gif")


def test_refusals(frames, tmp_path):
    for name, message in (("out.png", "unknown ending '.png': choose from .gif"), ("no/out.gif", "no such folder")):
        with pytest.raises(ImageError, match=message):
            animation.check_animation(tmp_path / name)
    (tmp_path / "out.gif").mkdir()
    with pytest.raises(ImageError, match="it is a folder"):
        animation.check_animation(tmp_path / "out.gif")
    for some, options in (([], {}), ([frames[0], Image.new("RGB", (5, 5))], {}), (frames, {"fps": 0.0})):
        with pytest.raises(InputError):
            animation.write_animation(tmp_path / "a.gif", some, **options)
    assert not (tmp_path / "a.gif").exists()
