import json
from pathlib import Path

import pytest
import torch
from PIL import Image

SHALLOW = ("--style-layers", "relu1_1,relu2_1", "--content-layers", "relu2_1")
QUICK = (*SHALLOW, "--size", 64, "--first-size", 32, "--steps", 5)
pytestmark = pytest.mark.usefixtures("pictures")


def milliseconds(read):
    """Of a whole animation: frames that are equal are stored once, and stay longer."""
    total = 0
    for number in range(read.n_frames):
        read.seek(number)
        total += read.info["duration"]
    return total


@pytest.mark.parametrize(("every", "count"), [(1, 11), (3, 5), (5, 3)])
def test_frames_of_one_size_from_the_start_to_the_last_step(every, count, vggfeat):
    result = vggfeat("animate", "content.png", "style.jpg", *QUICK, "--every", every, "--fps", 10, "--json")
    summary = json.loads(result.stdout)
    assert (summary["output"], summary["frames"]) == ("content-style.gif", count)
    with Image.open("content-style.gif") as read:
        assert read.size == (64, 48)
        assert milliseconds(read) == 100 * count + 2000


def test_the_last_frame_is_what_stylize_paints(vggfeat):
    vggfeat("animate", "content.png", "style.jpg", *QUICK, "-o", "out.webp")
    vggfeat("stylize", "content.png", "style.jpg", "--recipe", "preview", *QUICK, "-o", "out.png")
    with Image.open("out.webp") as read, Image.open("out.png") as one:
        read.seek(read.n_frames - 1)
        last, painted = (torch.tensor(list(x.convert("RGB").tobytes())).float() for x in (read, one))
    assert (last - painted).abs().mean() < 8


def test_ctrl_c_writes_the_frames_there_are(vggfeat, end_at):
    end_at(8, KeyboardInterrupt)
    result = vggfeat("animate", "content.png", "style.jpg", *QUICK, "-o", "out.gif", code=130)
    assert "interrupted: 'out.gif' holds 8 frames" in result.stderr
    with Image.open("out.gif") as read:
        assert milliseconds(read) == 2670


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.png", "style.jpg"], "cannot read 'absent.png'"),
        (["content.png", "style.jpg", "-o", "out.png"], "unknown ending '.png': choose from .mp4"),
        (["content.png", "style.jpg", "--fps", "0"], "--fps"),
    ],
)
def test_refusals(arguments, message, vggfeat):
    assert message in vggfeat("animate", *arguments, code=2).stderr
    assert not list(Path().glob("*-style*"))
