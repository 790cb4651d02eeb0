import errno
import io
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from vggfeat_cli import main

from vggfeat import read_picture, write_picture
from vggfeat.pictures.images import read_text
from vggfeat.transfer.recipe import RECIPES

# Shallow layers: what these tests show does not depend on depth, and a pass of three convolutions is short.
SHALLOW = ("--style-layers", "relu1_1,relu2_1", "--content-layers", "relu2_1")
QUICK = (*SHALLOW, "--size", 64, "--first-size", 32, "--steps", 3, "--step-decay", 1)
PAIR = ("content.png", "style.jpg")
pytestmark = pytest.mark.usefixtures("pictures")


def test_paints_a_picture_and_says_where(vggfeat):
    result = vggfeat("stylize", "content.png", "style.jpg", *QUICK)
    assert result.stdout == "content-style.png\n"
    stages = result.stderr.splitlines()
    assert [line.split(",")[0] for line in stages] == ["stage 1/2: 32x24", "stage 2/2: 64x48"]
    with Image.open("content-style.png") as picture:
        assert picture.size == (64, 48)


def test_a_name_nobody_chose_overwrites_nothing(vggfeat):
    for name in ("content-style.png", "content-style-2.png", "content-style-3.png"):
        assert vggfeat("stylize", "content.png", "style.jpg", *QUICK, "--quiet").stdout == ""
        assert Path(name).exists()


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "tiff"])
def test_output_formats(ending, vggfeat):
    vggfeat("stylize", "content.png", "style.jpg", *QUICK, "-o", f"out.{ending}")
    assert read_picture(f"out.{ending}").rgb.shape == (1, 3, 48, 64)


def test_json_summary(vggfeat):
    result = vggfeat("stylize", "content.png", "style.jpg", *QUICK, "--json", "--recipe", "gatys", "--tv", 2)
    summary = json.loads(result.stdout)
    assert (summary["output"], summary["width"], summary["height"]) == ("content-style.png", 64, 48)
    assert set(summary["losses"]) == {"content", "style", "tv", "total"}
    assert summary["recipe"]["tv_weight"] == 2.0
    assert summary["recipe"]["steps"] == 3


def test_a_recipe_file_is_overridden_by_options(vggfeat):
    Path("my.toml").write_text("size = 64\nfirst_size = 32\nsteps = 500\ntv_weight = 2.0")
    result = vggfeat("stylize", "content.png", "style.jpg", "--recipe", "my.toml", "--steps", 2, "--json")
    summary = json.loads(result.stdout)
    assert (summary["width"], summary["height"]) == (64, 48)
    assert (summary["recipe"]["name"], summary["recipe"]["steps"], summary["recipe"]["tv_weight"]) == ("my", 2, 2.0)


def test_every_field_of_a_recipe_is_an_option_with_its_default(vggfeat):
    text = " ".join(vggfeat("stylize", "--help").output.split())
    for option in ("--content-layers", "--style-weight", "--optimiser", "--start", "--seed"):
        assert option in text
    assert f"[default: {RECIPES['default'].steps}]" in text
    assert "[default: relu4_2]" in text


def test_same_seed_same_file(vggfeat):
    for name in ("a.png", "b.png"):
        vggfeat("stylize", "content.png", "style.jpg", *QUICK, "--start", "noise", "--seed", 7, "-o", name)
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()


def test_save_every(vggfeat):
    vggfeat("stylize", "content.png", "style.jpg", *QUICK, "--save-every", 2, "-o", "out.png")
    assert sorted(path.name for path in Path().glob("out*")) == [
        "out-0002.png",
        "out-0004.png",
        "out-0006.png",
        "out.png",
    ]


def test_seconds(vggfeat):
    result = vggfeat("stylize", "content.png", "style.jpg", *QUICK, "--seconds", 1, "--json")
    assert json.loads(result.stdout)["seconds"] >= 1


def test_alpha_and_profile_are_given_back(vggfeat):
    picture = Image.new("RGBA", (64, 64), (200, 30, 30, 255))
    picture.paste((0, 0, 0, 0), (0, 0, 32, 64))
    picture.save("cut.png")
    vggfeat("stylize", "cut.png", "style.jpg", *QUICK, "-o", "out.png")
    alpha = read_picture("out.png").alpha
    assert alpha[..., :30].max() == 0
    assert alpha[..., 34:].min() == 1


def test_16_bits_stay_16_bits(vggfeat):
    write_picture("deep.png", read_picture("content.png").rgb, alpha=torch.full((1, 1, 60, 80), 0.3), bits=16)
    for ending, bits in (("png", 16), ("tiff", 16), ("jpg", 8)):
        vggfeat("stylize", "deep.png", "style.jpg", *QUICK, "-o", f"out.{ending}")
        assert read_picture(f"out.{ending}").bits == bits
        assert read_picture("content.png").bits == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.png", "style.jpg"], "cannot read 'absent.png': no such file"),
        (["content.png", "text.jpg"], "cannot read 'text.jpg': it is not a picture"),
        (["content.png", "style.jpg", "-o", "out.gif"], "unknown ending '.gif': choose from .png"),
        (["content.png", "style.jpg", "-o", "no/out.png"], "no such folder"),
        (["content.png", "style.jpg", "-o", "content.png"], "the output 'content.png' is one of the inputs"),
        (
            ["content.png", "style.jpg", "--recipe", "gaty"],
            "unknown recipe 'gaty', and not a .toml file: did you mean gatys?",
        ),
        (["content.png", "style.jpg", "--recipe", "my.toml"], "recipe 'my.toml' has the unknown key 'stepz'"),
        (["content.png", "style.jpg", "--style-layers", "relu1_3"], "block 1 has relu1_1, relu1_2"),
        (["content.png", "style.jpg", "--steps", "0"], "steps is 0: it must be a whole number"),
        (["content.png", "style.jpg", "--size", "10"], "pixels are too few for the recipe's layers"),
        (["content.png", "style.jpg", "--device", "gpu"], "unknown device 'gpu'"),
        (["content.png", "style.jpg", "--weights", "absent.pth"], "no weights file 'absent.pth'"),
        (["content.png", "style.jpg", "--seconds", "0"], "seconds is 0: it must be above 0"),
        (["content.png", "style.jpg", "--seconds", "nan"], "seconds is nan"),
        (["content.png", "style.jpg", "--style-scale", "1e9"], "style scale is 1000000000.0: it must be a number"),
        (["content.png", "style.jpg", "--start", "start.png", "-o", "start.png"], "is one of the inputs"),
        (["content.png", "style.jpg", "-o", "o" * 300 + ".png"], "file name too long"),
        (["content.png", "style.jpg", "-o", "."], "cannot write '.'"),
        (["content.png", "style.jpg", "--device", "xpu"], "there is no device 'xpu' here"),
        (["content.png", "style.jpg", "--pooling", "median"], "'median' is not one of"),
        (["content.png", "style.jpg", "--start", "absent.png"], "cannot read 'absent.png'"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(arguments, message, vggfeat):
    Path("text.jpg").write_text("no picture")
    Path("my.toml").write_text("stepz = 3")
    Path("start.png").write_bytes(Path("content.png").read_bytes())
    before = {path: path.read_bytes() for path in Path().iterdir()}
    assert message in vggfeat("stylize", *arguments, code=2).stderr
    assert {path: path.read_bytes() for path in Path().iterdir()} == before


def test_intermediate_pictures_spare_the_inputs(vggfeat):
    Path("out-0001.png").write_bytes(Path("content.png").read_bytes())
    before = Path("out-0001.png").read_bytes()
    arguments = ("stylize", "out-0001.png", "style.jpg", *QUICK, "-o", "out.png", "--save-every", 1)
    result = vggfeat(*arguments, code=None)
    assert result.exit_code == 2
    assert "the output 'out-0001.png' is one of the inputs" in result.stderr
    assert Path("out-0001.png").read_bytes() == before


class Broken(io.StringIO):
    """A stream whose reader went away."""

    def write(self, _text):
        raise BrokenPipeError(errno.EPIPE, "broken pipe")


def test_a_reader_that_goes_away_ends_no_run(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stderr", Broken())
    monkeypatch.setattr("sys.stdout", Broken())
    with pytest.raises(SystemExit):
        main(["stylize", "content.png", "style.jpg", *map(str, QUICK), "-o", "out.png"])
    assert Path("out.png").exists()


def test_a_process_without_a_standard_error_paints(tmp_path):
    command = f"{sys.executable} -c 'from vggfeat_cli import main; main()' stylize content.png style.jpg"
    options = " ".join(map(str, QUICK))
    subprocess.run(f"{command} {options} -o out.png 2>&- >/dev/full", shell=True, cwd=tmp_path, check=False)  # noqa: S602 (plumbing is the test)
    assert (tmp_path / "out.png").exists()


def test_an_error_on_the_way_saves_what_was_painted(vggfeat, end_at):
    end_at(5, MemoryError)
    result = vggfeat("stylize", "content.png", "style.jpg", *QUICK, "-o", "out.png", code=None)
    assert result.exit_code == 2
    assert "out of memory at 64x48 pixels: choose a smaller size" in result.stderr
    assert read_picture("out.png").rgb.shape == (1, 3, 48, 64)


def test_ctrl_c_saves_the_picture_as_it_stands(spawn, tmp_path):
    process = spawn(
        *("stylize", "content.png", "style.jpg", "-o", "out.png", *SHALLOW, "--size", 64, "--first-size", 64),
        *("--steps", 100000, "--save-every", 3),
    )
    while not (tmp_path / "out-0003.png").exists():
        assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=600)
    assert process.returncode == 130
    assert "interrupted: 'out.png' holds the picture after" in stderr
    assert "Traceback" not in stderr
    assert read_picture(tmp_path / "out.png").rgb.shape == (1, 3, 48, 64)


def pixels(path):
    return read_picture(path).rgb


def test_an_interrupted_run_is_resumed_to_the_same_picture(vggfeat):
    """SIGTERM at some moment: exit code 143, a checkpoint, and the rest gives what an uninterrupted run gives."""
    options = (
        *SHALLOW,
        "--size",
        64,
        "--first-size",
        32,
        "--steps",
        15,
        "--checkpoint",
        "run.ckpt",
        "--checkpoint-every",
        0,
    )
    arguments = [str(each) for each in ("stylize", "content.png", "style.jpg", *options)]
    vggfeat(*arguments, "-o", "whole.png", "--quiet")
    Path("run.ckpt").unlink()
    command = [sys.executable, "-m", "vggfeat_cli", *arguments, "-o", "part.png"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while not Path("run.ckpt").exists():
            time.sleep(0.005)
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert "continues from here" in process.communicate()[1]
    assert process.returncode == 143
    vggfeat("stylize", "content.png", "style.jpg", "--resume", "run.ckpt", "-o", "part.png", "--quiet")
    assert torch.equal(pixels("part.png"), pixels("whole.png"))
    wrong = vggfeat("stylize", "style.jpg", "style.jpg", "--resume", "run.ckpt", "-o", "x.png", code=2)
    assert "the checkpoint belongs to another run" in wrong.stderr


def test_masks_styles_and_what_is_kept(vggfeat):
    white = torch.zeros(1, 3, 60, 80)
    white[..., :40] = 1
    write_picture("left.png", white)
    write_picture("other.png", pixels("style.jpg").flip(1))
    vggfeat("stylize", "content.png", "--mask", "left.png=style.jpg", "--style", "other.png", "-o", "a.png", *QUICK)
    vggfeat("stylize", "content.png", "style.jpg", "other.png", "--mix", "3,1", "-o", "b.png", *QUICK)
    vggfeat("stylize", "content.png", "style.jpg", "--keep", "left.png", "-o", "c.png", *QUICK)
    assert not torch.equal(pixels("a.png"), pixels("b.png"))
    small = torch.nn.functional.interpolate(pixels("content.png"), (48, 64), mode="bilinear", antialias=True)
    assert (pixels("c.png")[..., :28] - small[..., :28]).abs().max() < 0.02
    for arguments, message in (
        (("content.png",), "there is no style for 'content.png'"),
        (("content.png", "--mask", "left.png"), "is not MASK=STYLE"),
        (("content.png", "style.jpg", "--mix", "a"), "is not a list of 1 numbers"),
        (("content.png", "style.jpg", "--mix", "1,2"), "there are 2 weights for 1 styles"),
        (("content.png", "style.jpg", "--memory", "much"), "is not an amount of memory"),
        (("content.png", "style.jpg", "--sequence"), "--sequence is for several contents"),
    ):
        assert message in vggfeat("stylize", *arguments, *QUICK, code=2).stderr


def test_hidden_files_of_a_folder_are_not_painted(vggfeat):
    Path("in").mkdir()
    Path("content.png").rename("in/seen.png")
    shutil.copy("in/seen.png", "in/.vggfeat-0123456789abcdef.png")  # what a killed run leaves
    Path("in/notes.txt").write_text("not a picture")
    stderr = vggfeat("stylize", "in", "--style", "style.jpg", *QUICK, "-o", "out/").stderr
    assert [path.name for path in Path("out").iterdir()] == ["seen.png"]
    hidden = ".vggfeat-0123456789abcdef.png"
    assert f"skipped in 'in', as hidden or not a picture: {hidden}, notes.txt\n" in stderr
    assert "skipped" not in vggfeat("stylize", "in", "--style", "style.jpg", *QUICK, "-o", "out/", "--quiet").stderr


def test_a_folder_is_painted_but_for_what_is_there_and_what_is_damaged(vggfeat):
    Path("frames").mkdir()
    for number in range(3):
        write_picture(f"frames/{number}.png", pixels("content.png").roll(number, 3))
    Path("frames/3.png").write_bytes(b"damaged")
    arguments = ("stylize", "frames", "--style", "style.jpg", "-o", "painted", "--sequence", *QUICK)
    first = vggfeat(*arguments, code=3)
    assert "1 of 4 could not be painted: frames/3.png" in first.stderr
    before = {path.name: path.stat().st_mtime_ns for path in Path("painted").iterdir()}
    assert sorted(before) == ["0.png", "1.png", "2.png"]
    Path("painted/1.png").unlink()
    again = vggfeat(*arguments, code=3)
    assert again.stderr.count("already painted") == 2
    assert Path("painted/0.png").stat().st_mtime_ns == before["0.png"]
    assert "need -o DIR" in vggfeat("stylize", "frames", "--style", "style.jpg", *QUICK, code=2).stderr


def test_draws_the_losses(vggfeat):
    vggfeat("stylize", "content.png", "style.jpg", *QUICK, "--plot", "losses.png", "-o", "out.png")
    with Image.open("losses.png") as chart:
        assert chart.width > 300


def test_frames_are_painted_in_natural_order(vggfeat):
    Path("in").mkdir()
    for number in (1, 2, 10):
        shutil.copy("content.png", f"in/frame{number}.png")
    stderr = vggfeat("stylize", "in", "--style", "style.jpg", *QUICK, "-o", "out").stderr
    names = [line.split()[1] for line in stderr.splitlines() if "/3 " in line]
    assert names == ["in/frame1.png", "in/frame2.png", "in/frame10.png"]


def test_an_interrupted_frame_is_painted_again(vggfeat, end_at):
    Path("in").mkdir()
    shutil.copy("content.png", "in/a.png")
    arguments = ("stylize", "in", "--style", "style.jpg", *QUICK, "-o", "out")
    with pytest.MonkeyPatch.context() as patch:
        end_at(3, KeyboardInterrupt, patch)
        assert "'out/a.partial.png' holds the picture" in vggfeat(*arguments, code=130).stderr
    assert [path.name for path in Path("out").iterdir()] == ["a.partial.png"]
    vggfeat(*arguments)
    assert [path.name for path in Path("out").iterdir()] == ["a.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*PAIR, "-o", "a.png", "--plot", "a.png"], "the output and --plot are both 'a.png'"),
        ([*PAIR, "-o", "a.png", "--checkpoint", "a.png"], "the output and --checkpoint are both 'a.png'"),
        ([*PAIR, "--plot", "a.png", "--checkpoint", "./a.png"], "--plot and --checkpoint are both"),
        ([*PAIR, "--recipe", "my.toml", "--checkpoint", "my.toml"], "the output 'my.toml' is one of the inputs"),
        ([*PAIR, "-o", "a.png", "--save-every", 1, "--plot", "a-0002.png"], "--plot and --save-every are both"),
        (["in", "--style", "style.jpg", "-o", "in"], "'in' is the folder of the contents"),
        (["in/a.png", "in/b.png", "--style", "style.jpg", "-o", "in"], "the output 'in/a.png' is one of the inputs"),
        (["content.png", "in/a.png", "--style", "in/b.png", "-o", "to"], "the output 'to/a.png' is one of the inputs"),
    ],
)
def test_files_of_a_run_differ(arguments, message, vggfeat):
    Path("my.toml").write_text("steps = 3")
    Path("in").mkdir()
    for name in ("in/a.png", "in/b.png"):
        shutil.copy("content.png", name)
    Path("to").mkdir()
    Path("to/a.png").symlink_to("../in/b.png")
    before = {path: path.read_bytes() for path in Path().rglob("*.*")}
    assert message in vggfeat("stylize", *arguments, *QUICK, code=2).stderr
    assert {path: path.read_bytes() for path in Path().rglob("*.*")} == before


def test_a_mask_on_the_style(vggfeat):
    white = torch.zeros(1, 3, 50, 50)
    white[..., :25] = 1
    write_picture("left.png", white)
    vggfeat("stylize", *PAIR, "--style-mask", "left.png=style.jpg", "-o", "a.png", *QUICK)
    vggfeat("stylize", *PAIR, "-o", "b.png", *QUICK)
    assert not torch.equal(pixels("a.png"), pixels("b.png"))
    assert '"role": "style mask", "file": "left.png"' in read_text("a.png")["vggfeat"]
    for mask, message in (
        ("left.png", "--style-mask left.png is not MASK=STYLE"),
        ("left.png=stile.jpg", "unknown style 'stile.jpg' of --style-mask: did you mean style.jpg?"),
        ("absent.png=style.jpg", "cannot read 'absent.png'"),
    ):
        assert message in vggfeat("stylize", *PAIR, "--style-mask", mask, *QUICK, code=2).stderr


@pytest.mark.parametrize("command", ["stylize", "dream", "invert", "texture", "show", "match", "compare", "sheet"])
def test_the_limit_of_pixels_is_an_option(command, vggfeat):
    arguments = (PAIR if command in {"stylize", "match", "compare", "sheet"} else PAIR[:1]) + (
        ("--layer", "relu1_1") if command == "show" else ()
    )
    result = vggfeat(command, *arguments, "--max-megapixels", 0.004, code=None)
    assert result.exit_code in {1, 2, 3}
    assert "80 x 60 = 4800 pixels, the limit is 4000 (max_pixels, or --max-megapixels, allows more)" in result.stderr
    assert read_picture("content.png").rgb.shape == (1, 3, 60, 80)  # the limit is the command's only
