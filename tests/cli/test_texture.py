import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from vggfeat import write_picture
from vggfeat.transfer.record import read_record

QUICK = ("--style-layers", "relu1_1,relu2_1", "--first-size", 32, "--steps", 2)


@pytest.fixture(autouse=True)
def pictures(tmp_path):
    coarse = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    write_picture(tmp_path / "style.jpg", torch.nn.functional.interpolate(coarse, (60, 60), mode="bilinear"))


def test_makes_a_texture_and_says_where(vggfeat):
    result = vggfeat("texture", "style.jpg", "--size", "64x48", *QUICK)
    assert result.stdout == "style-texture.png\n"
    assert [line.split(",")[0] for line in result.stderr.splitlines()] == ["stage 1/2: 32x24", "stage 2/2: 64x48"]
    with Image.open("style-texture.png") as picture:
        assert picture.size == (64, 48)
    vggfeat("texture", "style.jpg", "--size", "48", *QUICK, "--quiet")
    with Image.open("style-texture-2.png") as picture:
        assert picture.size == (48, 48)


def test_the_picture_says_how_it_was_made(vggfeat):
    result = vggfeat("texture", "style.jpg", "--size", "64x48", "--seamless", *QUICK, "--json", "-o", "a.png")
    summary = json.loads(result.stdout)
    assert (summary["width"], summary["height"], summary["seamless"]) == (64, 48, True)
    found = read_record("a.png")
    assert (found.recipe.edges, found.recipe.steps) == ("wrap", 2)
    assert [(item.role, item.file) for item in found.inputs] == [("style", "style.jpg")]
    vggfeat("texture", "style.jpg", "--size", "64x48", "--recipe", "a.png", "-o", "b.png")
    assert Image.open("a.png").tobytes() == Image.open("b.png").tobytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.jpg"], "cannot read 'absent.jpg'"),
        (["style.jpg", "--size", "big"], "'big' is neither a number of pixels nor WIDTHxHEIGHT"),
        (["style.jpg", "--size", "0x64"], "width is 0: it must be a whole number of at least 1"),
        (["style.jpg", "-o", "style.jpg"], "the output 'style.jpg' is one of the inputs"),
        (["style.jpg", "-o", "out.gif"], "unknown ending '.gif'"),
        (["style.jpg", "--style-layers", "relu1_9"], "block 1 has relu1_1, relu1_2"),
        (["style.jpg", "--seamless", "--margin", "0"], "edges wrap needs a margin"),
    ],
)
def test_refusals(arguments, message, vggfeat):
    assert message in vggfeat("texture", *arguments, code=2).stderr
    assert not list(Path().glob("*-texture*"))
