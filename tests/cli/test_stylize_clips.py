import json
from pathlib import Path

import pytest
import torch

from vggfeat import open_clip, write_clip, write_picture
from vggfeat.pictures.images import Picture
from vggfeat.pictures.video.clips import ClipFrame

SHALLOW = ("--style-layers", "relu1_1,relu2_1", "--content-layers", "relu2_1")
QUICK = (*SHALLOW, "--size", 64, "--first-size", 64, "--steps", 2, "--step-decay", 1, "--flow", "ilk")
pytestmark = pytest.mark.usefixtures("pictures")
pytest.importorskip("skimage")


def frames(count=3):
    wide = torch.nn.functional.interpolate(
        torch.rand(1, 3, 6, 8, generator=torch.Generator().manual_seed(0)), (48, 80), mode="bilinear"
    )
    return [wide[..., 2 * number : 2 * number + 64] for number in range(count)]


@pytest.fixture
def clip(tmp_path):
    write_clip(tmp_path / "in.gif", [ClipFrame("", Picture(x), 0, 0.1 + 0.1 * i) for i, x in enumerate(frames())])


@pytest.mark.usefixtures("clip")
def test_an_animation_is_painted_with_the_times_of_its_frames(vggfeat):
    result = vggfeat("stylize", "in.gif", "style.jpg", *QUICK, "--json")
    summary = json.loads(result.stdout)
    assert (summary["output"], summary["frames"], summary["scenes"]) == ("in-style.gif", 3, 1)
    painted, original = list(open_clip("in-style.gif")), list(open_clip("in.gif"))
    assert [frame.seconds for frame in painted] == pytest.approx([0.1, 0.2, 0.3])
    for one, other in zip(painted, original, strict=True):
        assert one.picture.rgb.shape == other.picture.rgb.shape
        assert (one.picture.rgb - other.picture.rgb).abs().mean() > 0.01
    assert [path.name for path in Path().iterdir() if "frames" in path.name] == []
    assert "1/3 frame 1: about" in result.stderr
    assert "3/3 frame 3: painted" in result.stderr


@pytest.mark.usefixtures("clip")
def test_an_interrupted_clip_goes_on_to_the_same_frames(vggfeat, end_at):
    vggfeat("stylize", "in.gif", "style.jpg", *QUICK, "-o", "whole")
    arguments = ("stylize", "in.gif", "style.jpg", *QUICK, "-o", "out.gif")
    with pytest.MonkeyPatch.context() as patch:
        end_at(4, KeyboardInterrupt, patch)  # in the second frame
        stderr = vggfeat(*arguments, code=130).stderr
    assert "interrupted: the frames so far are in 'out.gif.frames'" in stderr
    assert not Path("out.gif").exists()
    assert sorted(path.name for path in Path("out.gif.frames").glob("*.png")) == ["000001.png"]
    stamp = Path("out.gif.frames/000001.png").stat().st_mtime_ns
    changed = vggfeat(*arguments, "--style-weight", 3, code=2).stderr
    assert "holds frames of a run that differs in recipe" in changed
    kept = {}
    with pytest.MonkeyPatch.context() as patch:

        def writing(path, painted, **options):
            write_clip(path, painted, **options)
            assert Path("out.gif.frames/000001.png").stat().st_mtime_ns == stamp
            kept.update({frame.name: frame.read_bytes() for frame in Path("out.gif.frames").glob("*.png")})

        patch.setattr("vggfeat.pictures.video.writing.write_clip", writing)
        assert "1/3 frame 1: already painted" in vggfeat(*arguments).stderr
    assert kept == {path.name: path.read_bytes() for path in Path("whole").glob("*.png")}
    assert not Path("out.gif.frames").exists()
    assert len(list(open_clip("out.gif"))) == 3


def test_a_video_keeps_rate_and_sound(vggfeat, tmp_path):
    pytest.importorskip("av")
    from video_files import heard, with_sound

    with_sound(tmp_path / "in.mp4", "aac", seconds=0.16)
    vggfeat("stylize", "in.mp4", "style.jpg", *QUICK, "-o", "out.mp4")
    found = list(open_clip("out.mp4"))
    assert [round(frame.start, 2) for frame in found] == [0, 0.04, 0.08, 0.12]
    assert open_clip("out.mp4").rate == 25
    codec, seconds, _ = heard("out.mp4")
    assert codec == "aac"
    assert abs(seconds - 0.16) < 0.1


def test_frames_in_and_a_clip_out(vggfeat):
    pytest.importorskip("av")
    Path("in").mkdir()
    for number, frame in zip((1, 2, 10), frames(), strict=True):
        write_picture(f"in/f{number}.png", frame)
    vggfeat("stylize", "in", "--style", "style.jpg", *QUICK, "-o", "out.webm", "--fps", 10)
    assert [round(frame.start, 2) for frame in open_clip("out.webm")] == [0, 0.1, 0.2]


@pytest.mark.usefixtures("clip")
def test_a_clip_in_and_frames_out(vggfeat):
    vggfeat("stylize", "in.gif", "style.jpg", *QUICK, "-o", "out/")
    assert sorted(path.name for path in Path("out").glob("*.png")) == ["000001.png", "000002.png", "000003.png"]
    error = vggfeat("stylize", "in.gif", "content.png", *QUICK, "-o", "out/", code=2).stderr
    assert "'out' holds frames of a run that differs in style 1" in error


@pytest.mark.usefixtures("clip")
def test_frames_of_others_are_neither_taken_nor_lost(vggfeat):
    Path("out.gif.frames").mkdir()
    write_picture("out.gif.frames/000001.png", frames()[0])
    arguments = ("stylize", "in.gif", "style.jpg", *QUICK, "-o", "out.gif")
    assert "is not of a clip that vggfeat painted" in vggfeat(*arguments, code=2).stderr
    Path("out.gif.frames/000001.png").rename("out.gif.frames/mine.png")
    vggfeat(*arguments)
    assert [path.name for path in Path("out.gif.frames").iterdir()] == ["mine.png"]
    folder = ("stylize", "out.gif.frames", "--style", "style.jpg", *QUICK, "-o", "out.gif")
    assert "'out.gif.frames' is one of the inputs" in vggfeat(*folder, code=2).stderr


@pytest.mark.usefixtures("clip")
def test_two_styles_in_the_other_order_are_another_run(vggfeat):
    vggfeat("stylize", "in.gif", "style.jpg", "content.png", "--mix", "2,1", *QUICK, "-o", "out/")
    turned = ("stylize", "in.gif", "content.png", "style.jpg", "--mix", "2,1", *QUICK, "-o", "out/", "--quiet")
    assert "differs in style 1, style 2" in vggfeat(*turned, code=2).stderr


def test_transparency_is_kept(vggfeat, tmp_path):
    alpha = torch.ones(1, 1, 48, 64)
    alpha[..., 40:] = 0
    write_clip(tmp_path / "in.webp", [Picture(frame, alpha) for frame in frames()], fps=10)
    vggfeat("stylize", "in.webp", "style.jpg", *QUICK, "-o", "out.webp")
    for frame in open_clip("out.webp"):
        torch.testing.assert_close(frame.picture.alpha, alpha)


@pytest.mark.usefixtures("clip")
def test_a_still_of_an_animation_says_so(vggfeat):
    result = vggfeat("stylize", "in.gif", "style.jpg", *QUICK[:-2], "-o", "out.png")
    assert "'in.gif' is animated, and its first frame is painted: -o out.gif paints all" in result.stderr
    assert len(list(open_clip("out.png"))) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("in.gif", "content.png", "--style", "style.jpg"), "paint one clip at a time"),
        (("in.gif", "style.jpg", "-o", "in.gif"), "the output 'in.gif' is one of the inputs"),
        (("in.gif", "style.jpg", "--checkpoint", "a.ckpt"), "are for a single picture"),
        (("in.gif", "style.jpg", "--flow", "tvl2"), "unknown flow 'tvl2'"),
        (("in.gif", "style.jpg", "--look-back", "0"), "'0' is not a list of whole numbers"),
        (("content.png", "style.jpg", "--flow", "ilk"), "--flow needs a clip or --sequence"),
        (("content.png", "style.jpg", "--fps", 10), "--fps needs a clip"),
        (("missing.mp4", "style.jpg", "-o", "out.mp4"), "no such file"),
        (("missing.mp4", "style.jpg", "-o", "out.png"), "'out.png' is no clip: choose .mp4"),
    ],
)
@pytest.mark.usefixtures("clip")
def test_bad_arguments_are_refused(arguments, message, vggfeat):
    assert message in vggfeat("stylize", *arguments, *SHALLOW, "--size", 64, code=2).stderr


def test_what_a_video_cannot_hold_is_told_before_the_work(vggfeat):
    pytest.importorskip("av")
    write_clip("in.webp", [Picture(x[..., :47], torch.ones(1, 1, 48, 47) / 2) for x in frames(2)], fps=10)
    stderr = vggfeat("stylize", "in.webp", "style.jpg", *QUICK, "-o", "out.mp4").stderr
    assert "'out.mp4' will be 46x48" in stderr
    assert "'out.mp4' will be opaque" in stderr


def test_a_clip_that_is_too_long_for_its_format_is_refused_before_the_work(vggfeat):
    write_clip("in.gif", torch.rand(2, 3, 2, 16_384), fps=10)
    stderr = vggfeat("stylize", "in.gif", "style.jpg", *QUICK, "--size", 16_384, "-o", "out.webp", code=2).stderr
    assert "holds at most 16383 pixels a side, not 16384x2" in stderr
    assert not Path("out.webp.frames").exists()


def test_a_clip_of_one_frame_is_painted(vggfeat):
    Path("in").mkdir()
    write_picture("in/1.png", frames(1)[0])
    vggfeat("stylize", "in", "--style", "style.jpg", *QUICK, "-o", "out.gif")
    assert len(list(open_clip("out.gif"))) == 1


def test_frames_of_two_sizes_are_refused(vggfeat):
    Path("in").mkdir()
    write_picture("in/1.png", frames()[0])
    write_picture("in/2.png", frames()[0][..., :48])
    stderr = vggfeat("stylize", "in", "--style", "style.jpg", *QUICK, "-o", "out.gif", "--quiet", code=2).stderr
    assert "2.png has another size, 48x48, than the frame before" in stderr
