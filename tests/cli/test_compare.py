import csv
import io
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from vggfeat_cli._progress import bar

from vggfeat import __version__, compare, write_picture
from vggfeat.networks import weights
from vggfeat.pairs.measure import DEFAULT_METRICS, METRICS, Measures
from vggfeat.pictures import images

QUICK = ("--metric", "psnr,lpips-alex")


@pytest.fixture(autouse=True)
def pictures(tmp_path):
    """Folders `a` and `b` of two pairs, of which `a` also has a picture alone."""
    generator = torch.Generator().manual_seed(0)
    for name in ("a/one.png", "b/one.jpg", "a/sub/two.png", "b/sub/two.png", "a/lone.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_picture(tmp_path / name, images.resize(torch.rand(1, 3, 8, 8, generator=generator), 48, 64))


def device() -> str:
    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"


def test_two_pictures(vggfeat):
    lines = vggfeat("compare", "a/one.png", "b/one.jpg").stdout.splitlines()
    values = compare("a/one.png", "b/one.jpg").mean
    assert lines[0].split() == ["pair", *DEFAULT_METRICS]
    assert lines[1].split() == ["one.png", *(f"{value:.4f}" for value in values.values())]
    assert lines[2] == ""
    assert lines[3].startswith("lpips-vgg: LPIPS (Zhang et al. 2018)")
    digits = weights.find_entry("vgg16").sha256[:12]
    assert f"net vgg16, weights imagenet1k_v1, sha256 {digits}, version 0.1, heads lpips " in lines[3]
    assert lines[-1] == f"pictures in [0, 1], not resized, float32 on {device()}, vggfeat {__version__}"


def test_two_folders(vggfeat):
    result = vggfeat("compare", "a", "b", *QUICK)
    lines = result.stdout.splitlines()
    found = compare("a", "b", ("psnr", "lpips-alex"))
    assert [line.split()[0] for line in lines[1:3]] == ["one.png", "sub/two.png"]
    assert lines[3].split() == ["mean", "of", "2", *(f"{value:.4f}" for value in found.mean.values())]
    assert result.stderr == "unmatched: 'a/lone.png': no counterpart in 'b'\n1 unmatched\n"


def test_columns_stay_aligned_where_a_value_is_infinite(vggfeat):
    lines = vggfeat("compare", "a", "a", "--metric", "psnr,ssim").stdout.splitlines()
    assert lines[0].endswith("psnr    ssim")
    assert lines[1].endswith(" inf  1.0000")
    assert len({len(line) for line in lines[:5]}) == 1


def test_the_mean_says_what_it_leaves_out(vggfeat):
    Path("b/one.jpg").unlink()
    Path("b/one.png").write_bytes(Path("a/one.png").read_bytes())
    lines = vggfeat("compare", "a", "b", "--metric", "psnr").stdout.splitlines()
    values = [line.split()[-1] for line in lines[1:4]]
    assert values[0] == "inf"
    assert values[1] == values[2] != "inf"
    assert "psnr is infinite for 1 of 2 pairs, which are left out of its mean" in lines


@pytest.mark.skipif(os.name == "nt", reason="names there are text")
def test_every_pair_has_its_row_whatever_its_name(vggfeat):
    for name in (b"\xff.png", b"\xfe.png", b"x\n\x1b[2J.png", "\u202egnp.png".encode()):
        for folder in (b"a/", b"b/"):
            os.link(b"a/sub/two.png", folder + name)
    os.link("a/one.png", "a/lone\x1b.png")
    Path("a/bad\r.png").touch()
    Path("b/bad\r.png").touch()
    result = vggfeat("compare", "a", "b", "--metric", "psnr", "--json", "all.json", "--csv", "all.csv", code=3)
    lines = result.stdout.splitlines()
    assert sorted(line.split()[0] for line in lines[1:7]) == [
        *(r"\u202egnp.png", "one.png", "sub/two.png", r"x\n\x1b[2J.png", "\ufffd.png", "\ufffd.png")
    ]
    assert lines[7].startswith("mean of 6 ")
    assert r"unmatched: 'a/lone\x1b.png': " in result.stderr
    assert r"failed: 'bad\r.png': cannot read 'a/bad\r.png'" in result.stderr
    names = ["one.png", "sub/two.png", "x\n\x1b[2J.png", "\u202egnp.png", "\ufffd.png", "\ufffd.png"]
    assert [row["pair"] for row in json.loads(Path("all.json").read_text())["pairs"]] == names
    with Path("all.csv").open(newline="") as file:
        assert [row["pair"] for row in csv.DictReader(file)] == [*names, "bad\r.png", "mean"]


def test_an_error_shows_no_control_characters(vggfeat):
    stderr = vggfeat("compare", "a", "\x1b[2J\u202e", code=2).stderr
    assert stderr.startswith(r"vggfeat: 'a' is a folder and '\x1b[2J\u202e' is not there")


def test_a_bad_pair_is_reported_and_the_exit_code_tells(vggfeat):
    for folder in ("a", "b"):
        Path(folder, "bad.png").write_text("no picture")
    result = vggfeat("compare", "a", "b", *QUICK, "--json", "all.json", code=3)
    assert "mean of 2" in result.stdout
    assert "failed: 'bad.png': cannot read 'a/bad.png': it is not a picture" in result.stderr
    assert result.stderr.endswith("1 of 3 pairs failed\n")
    assert [row["pair"] for row in json.loads(Path("all.json").read_text())["failed"]] == ["bad.png"]


def test_all_bad(vggfeat):
    Path("c").mkdir()
    Path("c/one.png").write_text("no picture")
    result = vggfeat("compare", "a", "c", *QUICK, code=3)
    assert result.stderr.endswith("1 of 1 pairs failed\n")
    assert not result.stdout.startswith("pair")


def test_files(vggfeat):
    Path("all.json").write_text("old")
    vggfeat("compare", "a", "b", *QUICK, "--json", "all.json", "--csv", "all.csv")
    found = compare("a", "b", ("psnr", "lpips-alex"))
    content = json.loads(Path("all.json").read_text())
    assert content == json.loads(found.as_json())
    with Path("all.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["psnr"]) for row in rows] == [*(row.values["psnr"] for row in found.rows), found.mean["psnr"]]
    assert sorted(path.name for path in Path().iterdir()) == ["a", "all.csv", "all.json", "b"]


@pytest.mark.skipif(not Path("/dev/fd").is_dir(), reason="no names for what is open")
def test_what_is_open_already_is_no_file_to_replace(vggfeat):
    with Path("kept").open("w") as kept:
        Path("link").symlink_to(f"/dev/fd/{kept.fileno()}")
        for name in ("link", f"/dev/fd/{kept.fileno()}", "/dev/stdout", "/dev/null"):
            stderr = vggfeat("compare", "a", "b", *QUICK, "--json", name, code=2).stderr
            assert stderr == f"vggfeat: cannot write '{name}': it is not a regular file (- prints)\n"
    assert Path("kept").read_text() == ""


def test_a_file_in_the_folder_that_heat_maps_make(vggfeat):
    vggfeat("compare", "a", "b", *QUICK, "--heatmap", "new/heat", "--json", "new/all.json", "--csv", "new/heat/all.csv")
    assert json.loads(Path("new/all.json").read_text())["pairs"]
    assert Path("new/heat/all.csv").read_text()


def test_dash_prints(vggfeat):
    assert json.loads(vggfeat("compare", "a", "b", *QUICK, "--json", "-").stdout)["mean"]["psnr"] > 0
    assert vggfeat("compare", "a", "b", *QUICK, "--csv", "-").stdout.startswith("pair,a,b,width,height,psnr,")
    assert not Path("-").exists()


def test_layers(vggfeat):
    lines = vggfeat("compare", "a", "b", *QUICK, "--layers", "--csv", "all.csv").stdout.splitlines()
    mean = compare("a", "b", ("psnr", "lpips-alex"), layers=True).mean
    start = lines.index("") + 1
    assert lines[start].split() == ["layer", "mean"]
    assert lines[start + 1].split() == ["lpips-alex/relu1_1", f"{mean['lpips-alex/relu1_1']:.4f}"]
    assert lines[start + 6] == ""
    assert "lpips-alex/relu3_3" in Path("all.csv").read_text().partition("\n")[0]


def test_an_empty_name_among_metrics_is_none(vggfeat):
    lines = vggfeat("compare", "b", "b", "--metric", "psnr, ,").stdout.splitlines()
    assert lines[0].split() == ["pair", "psnr"]


def test_resize_is_named(vggfeat):
    output = vggfeat("compare", "a", "b", *QUICK, "--resize", "40x36", "--json", "all.json").stdout
    assert "resized to 40x36," in output
    assert json.loads(Path("all.json").read_text())["pairs"][0]["width"] == 40
    assert "resized to shorter side 32," in vggfeat("compare", "a", "b", *QUICK, "--resize", "32").stdout


def test_heat_maps(vggfeat):
    assert "heat maps: lpips-alex, spatial, from 0 in black to 0.8 in white" in (
        vggfeat("compare", "a", "b", *QUICK, "--heatmap", "heat").stdout
    )
    assert {str(path) for path in Path("heat").rglob("*.png")} == {"heat/one.png", "heat/sub/two.png"}
    with Image.open("heat/one.png") as heat:
        assert heat.size == (64, 48)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_bar_on_a_terminal_alone(vggfeat, monkeypatch):
    assert vggfeat("compare", "b", "b", *QUICK).stderr == ""
    monkeypatch.setenv("TERM", "xterm")
    shown = []
    for quiet in (True, False):
        monkeypatch.setattr("sys.stderr", Terminal())
        with bar("comparing", quiet=quiet, total=2) as update:
            update(completed=1)
            update(completed=2)
        shown.append(sys.stderr.getvalue())
    assert shown[0] == ""
    assert "2/2" in shown[1]


def test_without_a_terminal_a_line_a_minute_is_printed(monkeypatch):
    clock = itertools.count(0, 25)  # each look at the clock is 25 seconds after the last
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    for unit, lines in ((True, "comparing: 3 of 8\ncomparing: 6 of 8\n"), (False, "comparing: 38%\ncomparing: 75%\n")):
        monkeypatch.setattr("sys.stderr", io.StringIO())
        with bar("comparing", quiet=False, total=8, unit=unit) as update:
            for number in range(1, 8):
                update(completed=number)
        assert sys.stderr.getvalue() == lines
    with bar("comparing", quiet=True) as update:
        update(completed=next(clock) * 100)
    assert sys.stderr.getvalue() == lines


def test_help_names_the_metrics_without_torch(vggfeat):
    text = "".join(vggfeat("compare", "--help").output.split())  # lines break at hyphens, too
    assert all(name in text for name in METRICS)
    assert f"[default:{','.join(DEFAULT_METRICS)}]" in text
    assert "Transparencyisignored" in text
    code = "import sys; from vggfeat_cli import compare; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a", "absent"], "'a' is a folder and 'absent' is not there: compare two pictures or two folders"),
        (["a", "b/one.jpg"], "'a' is a folder and 'b/one.jpg' is not a folder"),
        (["a/one.png", "absent.png"], "cannot read 'absent.png': no such file"),
        (["a", "b/sub"], "no picture of 'a' (lone.png, one.png, ...) has the name of one of 'b/sub' (two.png, ...)"),
        (
            ["a/one.png", "small.png"],
            "'a/one.png' is 64x48 and 'small.png' 20x16 pixels, both must have the same size: pass --resize 20x16",
        ),
        (["a/one.png", "text.png"], "cannot read 'text.png': it is not a picture"),
        (["a", "b", "--metric", "lpips"], "unknown metric 'lpips': did you mean lpips-vgg"),
        (["a", "b", "--metric", ""], "no metric to compare by: choose from lpips-vgg"),
        (["a", "b", "--metric", "psnr", "--layers"], "no layers in psnr: known for lpips-vgg"),
        (["a", "b", "--json", ""], "an output has an empty name; - prints it"),
        (["a", "b", "--resize", "\u0663\u0662"], "is neither a number of pixels nor WIDTHxHEIGHT"),
        (["a", "b", "--resize", "9" * 5000], "is neither a number of pixels nor WIDTHxHEIGHT"),
        (["a", "b", "--resize", "999999999"], "resize is 999999999: that makes 999999998000000001 pixels"),
        (["a", "b", "--resize", "4x"], "'4x' is neither a number of pixels nor WIDTHxHEIGHT"),
        (["a", "b", "--resize", "0"], "resize is 0: it must be a whole number of at least 1"),
        (["a", "b", "--json", "no/all.json"], "cannot write 'no/all.json': no such folder"),
        (["a", "b", "--csv", "a"], "cannot write 'a': it is a folder"),
        (["a", "b", "--csv", "a/one.png"], "the output 'a/one.png' is one of the inputs"),
        (["a", "b", "--csv", "x", "--json", "./x"], "--json and --csv are both 'x': give each a file of its own"),
        (["a", "b", "--json", "-", "--csv", "-"], "--json and --csv cannot both go to '-'"),
        (["a", "b", "--csv", "a/lone.png"], "the output 'a/lone.png' is one of the inputs"),
        (["a", "b", "--json", "link.json"], "the output 'link.json' is one of the inputs"),
        (["a", "b", "--json", "loop.json"], "cannot write 'loop.json': it is not a regular file"),
        (
            ["a", "b", "--heatmap", "b"],
            "heat maps inside 'b' would be compared next time: choose a folder outside",
        ),
        (["a", "b", "--heatmap", "heat", "--json", "heat/one.png"], "--json and a heat map are both"),
        (["a", "b", "--heatmap", "heat", "--csv", "heat/../heat/sub/two.png"], "--csv and a heat map are both"),
        (["a", "b", "--heatmap", "heat", "--csv", "heat"], "cannot write 'heat': it is a folder"),
        (["a", "b", "--heatmap", "heat", "--csv", "heat/sub"], "cannot write 'heat/sub': it is a folder"),
        (["a", "b", "--heatmap", "heat", "--csv", "heat/no/all.csv"], "cannot write 'heat/no/all.csv': no such folder"),
        (["a", "b", "--heatmap", "text.png"], "cannot make the folder 'text.png"),
        (["a", "b", "--device", "gpu"], "unknown device 'gpu'"),
        (["a", "b", "--batch-size", "0"], "0 is not in the range x>=1"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(arguments, message, vggfeat):
    Path("text.png").write_text("no picture")
    write_picture("small.png", torch.rand(1, 3, 16, 20))
    Path("link.json").symlink_to("a/lone.png")
    Path("loop.json").symlink_to("loop.json")
    before = {path: path.is_file() and path.read_bytes() for path in Path().rglob("*")}
    assert message in vggfeat("compare", *arguments, code=2).stderr
    assert {path: path.is_file() and path.read_bytes() for path in Path().rglob("*")} == before


def test_what_cannot_be_written_after_all_is_one_line(vggfeat, monkeypatch):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", refuse)
    result = vggfeat("compare", "b", "b", *QUICK, "--json", "all.json", code=1)
    assert result.stderr == "vggfeat: cannot write 'all.json': no space left on device\n"
    assert sorted(path.name for path in Path().iterdir()) == ["a", "b"]


@pytest.fixture
def interrupted(monkeypatch):
    """Let Ctrl-C come when so many batches are done."""

    def after(batches):
        call = Measures.__call__
        calls = iter(range(batches))

        def measure(*arguments):
            if next(calls, None) is None:
                raise KeyboardInterrupt
            return call(*arguments)

        monkeypatch.setattr(Measures, "__call__", measure)

    return after


def test_ctrl_c_keeps_what_was_done(vggfeat, interrupted):
    interrupted(1)
    outputs = ("--json", "all.json", "--csv", "all.csv")
    result = vggfeat("compare", "a", "b", *QUICK, "--batch-size", 1, *outputs, code=130)
    assert result.stderr.splitlines()[-1] == (
        "interrupted after 1 of 2 pairs, saved in 'all.json' and 'all.csv' and marked as incomplete"
    )
    assert result.stdout.splitlines()[1].startswith("one.png")
    content = json.loads(Path("all.json").read_text())
    assert content["complete"] is False
    assert [row["pair"] for row in content["pairs"]] == ["one.png"]
    with Path("all.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["pair"] for row in rows] == ["one.png", "mean"]
    assert json.loads(rows[-1]["metadata"])["complete"] is False


def test_ctrl_c_keeps_what_was_done_on_standard_output(vggfeat, interrupted):
    interrupted(1)
    result = vggfeat("compare", "a", "b", *QUICK, "--batch-size", 1, "--json", "-", code=130)
    assert json.loads(result.stdout)["complete"] is False
    assert result.stderr.splitlines()[-1] == "interrupted after 1 of 2 pairs"


def test_ctrl_c_before_anything_was_done(vggfeat, interrupted):
    interrupted(0)
    result = vggfeat("compare", "a", "b", *QUICK, "--json", "all.json", code=130)
    assert result.output == "interrupted before there was anything to save\n"
    assert not Path("all.json").exists()


@pytest.mark.slow
def test_ctrl_c_of_a_process(spawn, tmp_path):
    for name in range(400):
        for folder in ("a", "b"):
            (tmp_path / folder / f"{name}.png").write_bytes((tmp_path / "a" / "one.png").read_bytes())
    process = spawn("compare", "a", "b", *QUICK, "--heatmap", "heat", "--batch-size", 1, "--json", "all.json")
    while not (tmp_path / "heat" / "1.png").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=600)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    content = json.loads((tmp_path / "all.json").read_text())
    assert content["complete"] is False
    assert 0 < len(content["pairs"]) < 400
    assert stderr.splitlines()[-1].startswith(
        f"interrupted after {len(content['pairs'])} of 402 pairs, saved in 'all.json'"
    )


@pytest.fixture
def clips(tmp_path):
    """Folders `painted` and `original` of three frames each that move to the left by two pixels."""
    wide = images.resize(torch.rand(1, 3, 6, 8, generator=torch.Generator().manual_seed(0)), 40, 60)
    for number in range(3):
        frame = wide[..., 2 * number : 2 * number + 48]
        for name, offset in (("painted", 0.1 * (number % 2)), ("original", 0)):
            (tmp_path / name).mkdir(exist_ok=True)
            write_picture(tmp_path / name / f"{number}.png", (frame * 0.8 + offset).clamp(0, 1))


@pytest.mark.usefixtures("clips")
def test_two_clips(vggfeat):
    pytest.importorskip("skimage")
    result = vggfeat("compare", "--video", "painted", "original", "--metric", "warping-error", "--json", "all.json")
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["pair", "warping-error", "warping-error-long"]
    values = [list(map(float, line.split()[2:])) for line in lines[1:3]]
    assert values[0] == pytest.approx([0.01, 0.01], rel=0.3)
    assert values[1][1] < 0.003  # the third frame is as bright as the first
    assert lines[3].startswith("mean of 2")
    assert "warping error (Lai et al. 2018) against the frame before" in result.stdout
    saved = json.loads(Path("all.json").read_text())
    assert saved["complete"]
    assert [pair["pair"] for pair in saved["pairs"]] == ["frame 2", "frame 3"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--video", "--layers"), "--video cannot be combined with --layers"),
        (("--video", "--heatmap", "maps"), "--video cannot be combined with --heatmap"),
        (("--video", "--metric", "psnr"), "unknown metric of clips 'psnr'"),
        (("--video", "--flow", "tvl2"), "unknown flow 'tvl2': did you mean tvl1"),
        (("--flow", "ilk"), "--flow needs --video"),
    ],
)
@pytest.mark.usefixtures("clips")
def test_options_of_clips(arguments, message, vggfeat):
    assert message in vggfeat("compare", "painted", "original", *arguments, code=2).stderr


def test_a_video_file_needs_the_option(vggfeat):
    assert "'a.mp4' is a clip: add --video" in vggfeat("compare", "a.mp4", "b.mp4", code=2).stderr
