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


def test_folders_and_several_pictures(vggfeat):
    Path("in").mkdir()
    for number in (1, 2, 10):
        write_picture(f"in/{number}.png", torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(number)))
    Path("in/3.png").write_bytes(b"damaged")
    quick = ("--layer", "relu1_1", "--octaves", 1, "--steps", 1, "--size", 32)
    write_picture("guide.png", torch.rand(1, 3, 32, 32))
    result = vggfeat("dream", "in", "-o", "out", *quick, "--guide", "guide.png", code=3)
    told = [line for line in result.stderr.splitlines() if "/4 in" in line]
    assert told == [f"{place}/4 in/{name}.png" for place, name in enumerate((1, 2, 3, 10), 1)]
    assert sorted(path.name for path in Path("out").iterdir()) == ["1.png", "10.png", "2.png"]
    assert vggfeat("dream", "in", "-o", "out", *quick, code=3).stderr.count("already painted") == 3
    vggfeat("dream", "in/1.png", "in/2.png", "-o", "two.png/", *quick)
    assert sorted(path.name for path in Path("two.png").iterdir()) == ["1.png", "2.png"]
    vggfeat("dream", "in/1.png", "-o", "one.png", *quick, "--guide", "guide.png")
    assert Path("one.png").read_bytes() != Path("two.png/1.png").read_bytes()
    for arguments, message in (
        (("in",), "several contents need -o DIR"),
        (("in", "-o", "in"), "is the folder of the contents"),
        (("in", "-o", "new", "--plot", "plot.png"), "--plot and --save-every are for a single picture"),
        (("in/1.png", "-o", "guide.png", "--guide", "guide.png"), "is one of the inputs"),
        (("in/1.png", "--guide", "absent.png"), "cannot read 'absent.png'"),
    ):
        assert message in vggfeat("dream", *arguments, *quick, code=2).stderr
