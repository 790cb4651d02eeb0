import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from vggfeat import vgg, write_picture
from vggfeat.transfer.record import read_record

QUICK = ("--size", 64, "--first-size", 32, "--steps", 2)


@pytest.fixture(autouse=True)
def pictures(tmp_path):
    coarse = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    write_picture(tmp_path / "in.png", torch.nn.functional.interpolate(coarse, (60, 80), mode="bilinear"))


def test_inverts_a_layer_and_says_where(vggfeat):
    assert vggfeat("invert", "in.png", "--layer", "relu3_1", *QUICK).stdout == "in-invert.png\n"
    assert read_record("in-invert.png").recipe.content_layers == {"relu3_1": 1.0}
    with Image.open("in-invert.png") as picture:
        assert picture.size == (64, 48)


def test_options_are_the_recipes(vggfeat):
    arguments = ("invert", "in.png", *QUICK, "-l", "relu2_2:2,pool2", "--network", "vgg16", "--tv", 0, "--json")
    summary = json.loads(vggfeat(*arguments).stdout)
    assert summary["recipe"]["content_layers"] == {"relu2_2": 2.0, "pool2": 1.0}
    assert set(summary["losses"]) == {"content", "total"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.png"], "cannot read 'absent.png'"),
        (["in.png", "--layer", "relu3_9"], "block 3 has relu3_1"),
        (["in.png", "-o", "in.png"], "the output 'in.png' is one of the inputs"),
        (["in.png", "--layer", "relu3_1:0"], "needs a content or a style layer with a weight above 0"),
    ],
)
def test_refusals(arguments, message, vggfeat):
    assert message in vggfeat("invert", *arguments, code=2).stderr
    assert not list(Path().glob("*-invert*"))


def test_a_network_without_the_layers_of_the_preset(vggfeat):
    torch.save(vgg("8,M,16", head=None, seed=0).state_dict(), "own.pth")
    arguments = ("--network", "8,M,16", "--weights", "own.pth", *QUICK)
    vggfeat("invert", "in.png", "-l", "relu2_1", *arguments, "-o", "out.png")
    assert read_record("out.png").recipe.content_layers == {"relu2_1": 1.0}
    found = vggfeat("invert", "in.png", *arguments, code=2)
    assert "relu4_2" in found.stderr
