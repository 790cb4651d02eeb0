"""The limits of picture formats are checked before the work, and a picture that cannot be saved is saved elsewhere."""

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from vggfeat import read_picture, write_picture
from vggfeat.transfer.optimise import BoundedLBFGS

SHALLOW = ("--style-layers", "relu1_1", "--first-size", 16, "--steps", 2)
CONTENT = ("--content-layers", "relu1_1")
PAINTING = {
    "stylize": ("in.png", "style.png", *SHALLOW, *CONTENT),
    "texture": ("style.png", *SHALLOW),
    "invert": ("in.png", "--layer", "relu1_1", "--first-size", 16, "--steps", 2),
    "dream": ("in.png", "--layer", "relu1_1", "--octaves", 1, "--steps", 2),
    "visualize": ("--layer", "relu1_1", "--channel", 1, "--steps", 2),
    "sheet": ("in.png", "style.png", *SHALLOW, *CONTENT, "--style-weights", 1, "--style-scales", 1),
    "animate": ("in.png", "style.png", *SHALLOW, *CONTENT),
}
DRAWING = {"show": ("in.png", "-l", "relu1_1"), "match": ("in.png", "style.png")}


@pytest.fixture(autouse=True)
def pictures(tmp_path):
    coarse = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    for name in ("in.png", "style.png"):
        write_picture(tmp_path / name, torch.nn.functional.interpolate(coarse, (48, 48), mode="bilinear"))


@pytest.mark.parametrize("command", PAINTING)
def test_a_size_that_the_format_cannot_hold_is_refused_before_painting(command, vggfeat, end_at):
    end_at(1, AssertionError("it has begun"))
    write_picture("in.png", torch.rand(1, 3, 4, 16400))
    size = {"texture": "16400x16", "visualize": 4096}.get(command, 16400)
    more = ("--count", 5) if command == "visualize" else ()
    arguments = (*PAINTING[command], *more, "--size", size, "-o", "out.webp")
    assert "holds at most 16383 pixels a side, not" in vggfeat(command, *arguments, code=2).stderr
    assert not list(Path().glob("out*"))


@pytest.mark.parametrize("command", [*PAINTING, *DRAWING])
def test_a_picture_that_cannot_be_encoded_is_saved_as_png(command, vggfeat, monkeypatch):
    save = Image.Image.save

    def refuse(self, file, form=None, **options):
        if form == "WEBP" or str(file).endswith(".webp"):
            raise ValueError("encoding error 6")
        save(self, file, form, **options)

    monkeypatch.setattr(Image.Image, "save", refuse)
    size = () if command == "match" else ("--size", 48)
    arguments = ({**PAINTING, **DRAWING}[command], size, ("-o", "out.webp"))
    result = vggfeat(command, *(word for part in arguments for word in part), code=None)
    assert result.exit_code == 2
    last = result.stderr.splitlines()[-1]
    assert last.startswith("vggfeat: cannot write 'out.webp': ")
    assert last.endswith("(encoding error 6); it is saved as 'out.png'")
    with Image.open("out.png") as saved:
        saved.load()
        assert (getattr(saved, "n_frames", 1) > 1) == (command == "animate")
    assert not list(Path().glob("out-*"))


def test_a_folder_that_is_gone_costs_no_picture(vggfeat, monkeypatch):
    Path("gone").mkdir()
    step = BoundedLBFGS.step
    monkeypatch.setattr(BoundedLBFGS, "step", lambda self: shutil.rmtree("gone", ignore_errors=True) or step(self))
    arguments = (*PAINTING["invert"], "-o", "gone/out.png", "--quiet", "--checkpoint", "run.ckpt")
    assert f"it is saved as '{Path('out.png').resolve()}'" in vggfeat("invert", *arguments, code=2).stderr
    assert read_picture("out.png").rgb.shape == (1, 3, 48, 48)
    assert Path("run.ckpt").exists()


@pytest.mark.parametrize("command", ["stylize", "invert", "dream"])
def test_what_a_format_leaves_out_is_said(command, vggfeat):
    write_picture("in.png", torch.rand(1, 3, 32, 32), alpha=torch.full((1, 1, 32, 32), 0.5), bits=16)
    lines = {
        "out.jpg": ["JPEG has no transparency: 'out.jpg' will be opaque", "JPEG has 8 bits a channel: 'out.jpg' will"],
        "out.webp": ["WEBP has 8 bits a channel: 'out.webp' will be rounded from 16"],
        "out.tif": [],
    }
    for output, expected in lines.items():
        stderr = vggfeat(command, *PAINTING[command], "-o", output).stderr
        told = [line for line in stderr.splitlines() if "out." in line]
        assert [line[: len(wanted)] for line, wanted in zip(told, expected, strict=True)] == expected
    assert vggfeat(command, *PAINTING[command], "-o", "out.jpg", "--quiet").stderr == ""
