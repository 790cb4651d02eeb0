"""Clips are read and written with their times, sound, rotation and transparency."""

import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from video_files import clip_frames, heard, picture, with_sound

from vggfeat import open_clip, write_clip, write_picture
from vggfeat.errors import ImageError, InputError, VggfeatError
from vggfeat.pictures.images import Picture, pixel_limit
from vggfeat.pictures.video.clips import ClipFrame
from vggfeat.pictures.video.names import is_animated
from vggfeat.pictures.video.writing import check_clip_writable


def middles(rgb):
    """The colours in the middle of the four quarters, (3, 2, 2)."""
    height, width = rgb.shape[2:]
    return rgb[0, :, height // 4 :: height // 2, width // 4 :: width // 2]


@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv", "webm"])
def test_a_video_comes_back_with_its_colours_and_times(ending, tmp_path):
    pytest.importorskip("av")
    frames = clip_frames()
    frames[3] = frames[3]._replace(start=0.15)  # a variable frame rate
    write_clip(tmp_path / f"a.{ending}", frames)
    clip = open_clip(tmp_path / f"a.{ending}")
    found = list(clip)
    assert len(found) == 5
    assert abs(clip.count - 5) <= 1
    assert [round(frame.start, 2) for frame in found] == [0, 0.04, 0.08, 0.15, 0.16]
    for frame, original in zip(found, frames, strict=True):
        assert frame.picture.rgb.shape == (1, 3, 48, 64)
        torch.testing.assert_close(middles(frame.picture.rgb), middles(original.picture.rgb), atol=0.03, rtol=0)


def test_the_rate_of_frames_without_times(tmp_path):
    pytest.importorskip("av")
    write_clip(tmp_path / "a.mp4", torch.rand(4, 3, 33, 47), fps=Fraction(30000, 1001))
    clip = open_clip(tmp_path / "a.mp4")
    assert abs(clip.rate - Fraction(30000, 1001)) < 0.01
    assert [frame.picture.rgb.shape[2:] for frame in clip] == [(32, 46)] * 4


@pytest.mark.parametrize("angle", [90, 180, -90])
def test_a_rotated_video_is_read_upright(angle, tmp_path):
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.set_display_rotation(angle)
        for frame in clip_frames():
            values = (frame.picture.rgb[0].permute(1, 2, 0) * 255).round().byte().numpy()
            container.mux(stream.encode(av.VideoFrame.from_ndarray(values, format="rgb24")))
        container.mux(stream.encode())
    first = next(iter(open_clip(tmp_path / "a.mp4"))).picture.rgb
    expected = torch.rot90(picture(), angle // 90, (2, 3))
    assert first.shape == expected.shape
    torch.testing.assert_close(middles(first), middles(expected), atol=0.05, rtol=0)


@pytest.mark.parametrize(("ending", "tolerance"), [("webm", 0.05), ("gif", 0.02), ("webp", 0.001)])
def test_transparency_is_kept(ending, tolerance, tmp_path):
    if ending == "webm":
        pytest.importorskip("av")
    alpha = torch.zeros(1, 1, 48, 64)
    alpha[..., :32] = 1
    write_clip(tmp_path / f"a.{ending}", [Picture(picture(level=level), alpha) for level in (1, 0.9, 0.8)], fps=10)
    found = list(open_clip(tmp_path / f"a.{ending}"))
    assert len(found) == 3
    for frame in found:
        assert frame.picture.alpha[..., :28].mean() > 1 - tolerance
        assert frame.picture.alpha[..., 36:].mean() < tolerance


def test_a_format_without_transparency_shows_the_mean_visible_colour(tmp_path):
    pytest.importorskip("av")
    alpha = torch.zeros(1, 1, 48, 64)
    alpha[..., :24, :32] = 1  # only the red quarter
    write_clip(tmp_path / "a.mp4", [Picture(picture(), alpha)] * 2)
    found = next(iter(open_clip(tmp_path / "a.mp4"))).picture
    assert found.alpha is None
    red = torch.tensor([1.0, 0, 0])[:, None, None].expand(3, 2, 2)
    torch.testing.assert_close(middles(found.rgb), red, atol=0.03, rtol=0)


@pytest.mark.parametrize(("ending", "rate"), [("gif", 15), ("gif", 30), ("webp", 30)])
def test_the_rounded_times_of_frames_do_not_add_up(ending, rate, tmp_path):
    write_clip(tmp_path / f"a.{ending}", [Picture(picture(level=1 - i / 40)) for i in range(30)], fps=rate)
    assert abs(float(open_clip(tmp_path / f"a.{ending}").rate) - rate) < 0.01 * rate


def test_transparency_that_begins_later_is_kept(tmp_path):
    alpha = torch.ones(1, 1, 48, 64)
    alpha[..., 40:] = 0
    write_clip(tmp_path / "a.webp", [Picture(picture()), Picture(picture(level=0.5), alpha)], fps=10)
    second = list(open_clip(tmp_path / "a.webp"))[1].picture
    torch.testing.assert_close(second.alpha, alpha)


@pytest.mark.parametrize("ending", ["gif", "webp"])
def test_an_animation_keeps_the_time_of_each_frame(ending, tmp_path):
    seconds = [0.1, 0.04, 0.3]
    frames = [
        ClipFrame("", Picture(picture(level=1 - 0.2 * i)), sum(seconds[:i]), each) for i, each in enumerate(seconds)
    ]
    write_clip(tmp_path / f"a.{ending}", frames)
    clip = open_clip(tmp_path / f"a.{ending}")
    found = list(clip)
    assert [round(frame.seconds, 3) for frame in found] == seconds
    assert [round(frame.start, 3) for frame in found] == [0, 0.1, 0.14]
    assert clip.count == 3
    assert abs(float(clip.rate) - 3 / 0.44) < 0.01
    for frame, original in zip(found, frames, strict=True):
        torch.testing.assert_close(middles(frame.picture.rgb), middles(original.picture.rgb), atol=0.05, rtol=0)


@pytest.mark.parametrize(("ending", "codec"), [("mp4", "aac"), ("mkv", "aac"), ("webm", "opus")])
def test_the_sound_is_copied_or_encoded(ending, codec, tmp_path):
    pytest.importorskip("av")
    with_sound(tmp_path / "in.mp4", "aac")
    frames = open_clip(tmp_path / "in.mp4")
    write_clip(tmp_path / f"out.{ending}", frames, sound=tmp_path / "in.mp4")
    name, seconds, frequency = heard(tmp_path / f"out.{ending}")
    assert codec in name
    assert abs(seconds - 1) < 0.1
    assert abs(frequency - 441) < 3
    assert len(list(open_clip(tmp_path / f"out.{ending}"))) == 25


def test_a_video_without_sound_has_none(tmp_path):
    av = pytest.importorskip("av")
    write_clip(tmp_path / "in.mp4", clip_frames())
    write_clip(tmp_path / "out.mp4", open_clip(tmp_path / "in.mp4"), sound=tmp_path / "in.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert not container.streams.audio


def test_folders_are_read_in_natural_order(tmp_path):
    for number in (10, 9, 1):
        write_picture(tmp_path / f"frame{number}.png", picture())
    (tmp_path / "notes.txt").write_text("no picture")
    clip = open_clip(tmp_path)
    assert [frame.name for frame in clip] == ["frame1.png", "frame9.png", "frame10.png"]
    assert (clip.count, clip.rate) == (3, 25)


def test_a_still_picture_is_a_clip_of_one_frame(tmp_path):
    write_picture(tmp_path / "a.png", picture())
    assert len(list(open_clip(tmp_path / "a.png"))) == 1
    assert not is_animated(tmp_path / "a.png")
    write_clip(tmp_path / "a.gif", [picture(), picture(level=0.5)])
    assert is_animated(tmp_path / "a.gif")


def test_what_is_no_clip_is_refused(tmp_path):
    av = pytest.importorskip("av")
    (tmp_path / "a.mp4").write_bytes(b"no video" * 100)
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "empty").mkdir()
    (tmp_path / "none.mp4").touch()
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        sound = container.add_stream("aac", rate=44_100, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 44_100
        container.mux([*sound.encode(silence), *sound.encode(None)])
    for name, message in [
        ("a.mp4", "a.mp4': the file is damaged .Invalid data found when processing input.$"),
        ("none.mp4", "none.mp4': it is empty"),
        ("sound.mp4", "^cannot read [^ ]*sound.mp4': it holds no video"),
        ("a.txt", "not a picture"),
        ("b.mp4", "no such file; did you mean 'a.mp4'"),
        ("b.gif", "no such file"),
        ("empty", "there is no picture in"),
    ]:
        with pytest.raises(ImageError, match=message):
            open_clip(tmp_path / name)


def test_a_clip_that_cannot_be_written_leaves_no_file(tmp_path):
    with pytest.raises(InputError, match="at least one frame"):
        write_clip(tmp_path / "a.gif", [])
    with pytest.raises(InputError, match="frame 2 is 32x48, the first frame 64x48"):
        write_clip(tmp_path / "a.gif", [picture(), picture(width=32)])
    with pytest.raises(ImageError, match=r"unknown ending '\.avi': choose from \.mp4"):
        write_clip(tmp_path / "a.avi", [picture()])
    with pytest.raises(InputError, match="fps is 0"):
        write_clip(tmp_path / "a.gif", [picture()], fps=0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("a.webp", (4, 16_384), "holds at most 16383 pixels a side, not 16384x4"),
        ("a.mp4", (1, 64), "holds at least 2 pixels a side, not 64x1"),
        ("a.gif", (65_536, 1), "holds at most 65535 pixels a side"),
    ],
)
def test_sizes_that_a_format_lacks_are_refused_before_the_work(name, size, message, tmp_path):
    pytest.importorskip("av")
    with pytest.raises(ImageError, match=message):
        check_clip_writable(tmp_path / name, size=size)
    check_clip_writable(tmp_path / name, size=(2, 2))


def test_a_video_of_the_least_size_is_written(tmp_path):
    pytest.importorskip("av")
    for ending in ("mp4", "webm"):
        write_clip(tmp_path / f"a.{ending}", torch.rand(2, 3, 2, 2))
        assert len(list(open_clip(tmp_path / f"a.{ending}"))) == 2


def test_an_encoder_that_pyav_lacks_is_named(tmp_path, monkeypatch):
    av = pytest.importorskip("av")
    monkeypatch.setattr(av, "codecs_available", {"mjpeg"})
    with pytest.raises(VggfeatError, match=r"lacks the encoder libx264, which \.mp4 needs"):
        check_clip_writable(tmp_path / "a.mp4")


def test_animations_keep_to_the_limit_of_pixels(tmp_path):
    write_clip(tmp_path / "a.gif", torch.rand(2, 3, 6, 8))
    assert is_animated(tmp_path / "a.gif")
    with pixel_limit(47), pytest.raises(ImageError, match=r"48 pixels, the limit is 47 .*max-megapixels"):
        open_clip(tmp_path / "a.gif")
    (tmp_path / "b.gif").write_bytes((tmp_path / "a.gif").read_bytes()[:200])
    with pytest.raises(ImageError, match=r"cannot read .*b\.gif"):
        list(open_clip(tmp_path / "b.gif"))


def test_sound_is_decoded_to_its_end(tmp_path):
    """MP2 is encoded again for WebM. A decoder keeps its last samples until it is flushed."""
    pytest.importorskip("av")
    with_sound(tmp_path / "in.mkv", "mp2", rate=48_000)
    write_clip(tmp_path / "out.webm", open_clip(tmp_path / "in.mkv"), sound=tmp_path / "in.mkv")
    assert heard(tmp_path / "out.webm")[1] >= heard(tmp_path / "in.mkv")[1] - 0.001


def test_the_file_of_the_sound_is_closed_after_an_error(tmp_path):
    pytest.importorskip("av")
    with_sound(tmp_path / "in.mp4", "aac", seconds=0.2)
    before = len(list(Path("/proc/self/fd").iterdir()))

    def frames():
        yield picture()
        raise InputError("no more")

    with pytest.raises(InputError, match="no more") as caught:
        write_clip(tmp_path / "out.mp4", frames(), sound=tmp_path / "in.mp4")
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert caught


def test_without_pyav_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    for attempt in (lambda: open_clip(tmp_path / "a.mp4"), lambda: write_clip(tmp_path / "a.mp4", [picture()])):
        with pytest.raises(VggfeatError, match=r'pip install "vggfeat\[video\]"'):
            attempt()


def test_a_frame_of_a_gif_may_be_grey(tmp_path):
    grey = [Image.new("L", (8, 6), level) for level in (0, 128)]
    grey[0].save(tmp_path / "a.gif", save_all=True, append_images=grey[1:])
    frames = list(open_clip(tmp_path / "a.gif"))
    assert [frame.picture.rgb.mean().item() for frame in frames] == pytest.approx([0, 128 / 255], abs=0.01)
    assert [frame.seconds for frame in frames] == [0.1, 0.1]
