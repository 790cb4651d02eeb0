import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from vggfeat import write_picture
from vggfeat.pictures.images import read_text

QUICK = ("--size", 64, "--octaves", 2, "--steps", 2)


@pytest.fixture(autouse=True)
def pictures(tmp_path):
    coarse = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    write_picture(tmp_path / "in.png", torch.nn.functional.interpolate(coarse, (60, 80), mode="bilinear"))


def test_dreams_and_says_where(vggfeat):
    result = vggfeat("dream", "in.png", *QUICK, "--layer", "relu3_1:5")
    assert result.stdout == "in-dream.png\n"
    assert [line.split(",")[0] for line in result.stderr.splitlines()] == ["stage 1/2: 46x34", "stage 2/2: 64x48"]
    with Image.open("in-dream.png") as picture:
        assert picture.size == (64, 48)
    assert json.loads(read_text("in-dream.png")["vggfeat-dream"])["layer"] == "relu3_1:5"


def test_json_summary(vggfeat):
    summary = json.loads(vggfeat("dream", "in.png", *QUICK, "--json", "-o", "out.jpg").stdout)
    assert (summary["output"], summary["width"], summary["layer"]) == ("out.jpg", 64, "relu4_3")
    assert summary["losses"]["dream"] < 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.png"], "cannot read 'absent.png'"),
        (["in.png", "--layer", "relu3_9"], "block 3 has relu3_1"),
        (["in.png", "--layer", "relu3_1:256"], "has the channels 0 to 255, not '256'"),
        (["in.png", "--octaves", "0"], "octaves is 0: it must be a whole number between 1 and 20"),
        (["in.png", "--rate", "nan"], "rate is nan"),
        (["in.png", "-o", "in.png"], "the output 'in.png' is one of the inputs"),
    ],
)
def test_refusals(arguments, message, vggfeat):
    assert message in vggfeat("dream", *arguments, code=2).stderr
    assert not list(Path().glob("*-dream*"))
