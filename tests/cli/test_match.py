import json
from pathlib import Path

import pytest
import torch

from vggfeat import match, read_picture, write_picture
from vggfeat.explore.pages.matches import side_by_side
from vggfeat.pictures import images


@pytest.fixture(autouse=True)
def pictures(vggfeat):  # noqa: ARG001 (which makes the folder)
    noise = torch.rand(1, 3, 24, 32, generator=torch.Generator().manual_seed(0))
    picture = images.resize(noise, 96, 128)
    write_picture("a.png", picture)
    write_picture("b.png", picture[..., 8:88, 16:112])


def test_a_picture_of_lines(vggfeat):
    found = match("a.png", "b.png")
    assert len(found) > 20
    assert vggfeat("match", "a.png", "b.png").stdout == f"{len(found)} matches, drawn in a-b-match.png\n"
    page = side_by_side(found, read_picture("a.png").rgb, read_picture("b.png").rgb)
    assert (read_picture("a-b-match.png").rgb - page).abs().max() < 0.51 / 255
    assert vggfeat("match", "a.png", "b.png").stdout.endswith("a-b-match-2.png\n")


def test_files(vggfeat):
    result = vggfeat(
        "match", "a.png", "b.png", "--json", "m.json", "--csv", "m.csv", "--limit", 9, "--layer", "relu3_1"
    )
    found = match("a.png", "b.png", "relu3_1").best(9)
    assert result.stdout == "9 matches\n"
    assert json.loads(Path("m.json").read_text()) == json.loads(found.as_json())
    assert Path("m.csv").read_text() == found.as_csv()
    assert {path.name for path in Path().iterdir()} == {"a.png", "b.png", "m.json", "m.csv"}


def test_dash_prints(vggfeat):
    options = ["--no-refine", "--ratio", 0.9, "--network", "vgg19", "--size", 100]
    printed = vggfeat("match", "a.png", "b.png", "--csv", "-", "-o", "m.png", *options).stdout
    assert printed == match("a.png", "b.png", network="vgg19", refine=False, ratio=0.9, size=100).as_csv()
    assert Path("m.png").exists()


def test_several_pictures_of_lines(vggfeat):
    vggfeat("match", "a.png", "b.png", "-o", "none.png", "--lines", 0)
    vggfeat("match", "a.png", "b.png", "-o", "some.png", "--lines", 20)
    assert Path("none.png").read_bytes() != Path("some.png").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.png", "absent.png"], "cannot read 'absent.png': no such file"),
        (["a.png", "b.png", "-l", "relu4_*"], "'relu4_*' names 3 layers of vgg16"),
        (["a.png", "b.png", "--ratio", "2"], "the ratio is 2: it must be above 0 and at most 1"),
        (["a.png", "b.png", "--size", "7"], "too small for relu4_2"),
        (["a.png", "b.png", "--limit", "0"], "0 is not in the range x>=1"),
        (["a.png", "b.png", "-o", "b.png"], "the output 'b.png' is one of the inputs"),
        (["a.png", "b.png", "--csv", "a.png"], "the output 'a.png' is one of the inputs"),
        (["a.png", "b.png", "--json", "no/m.json"], "cannot write 'no/m.json': no such folder"),
        (["a.png", "b.png", "--json", "m", "--csv", "m"], "--json and --csv are both 'm'"),
        (["a.png", "b.png", "--json", "-", "--csv", "-"], "--json and --csv cannot both go to '-'"),
        (["a.png", "b.png", "-o", "m.bmp"], "unknown ending '.bmp'"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(arguments, message, vggfeat):
    before = {path: path.read_bytes() for path in Path().iterdir()}
    assert message in vggfeat("match", *arguments, code=2).stderr
    assert {path: path.read_bytes() for path in Path().iterdir()} == before
