"""`--mean`, `--std` and `--channels` of the commands that take weights."""

import json
import warnings
from pathlib import Path

import pytest
import torch

from vggfeat import read_picture, recipe, vgg, write_picture
from vggfeat.explore import view
from vggfeat.explore.pages.layers import sheet
from vggfeat.networks import weights

PLAN = "8,M,8,M,8,M,8,8,M,8"
CAFFE = ("--mean", "123.68,116.779,103.939", "--std", "1,1,1", "--channels", "bgr")
PYTHON = {"mean": (123.68, 116.779, 103.939), "std": (1, 1, 1), "input_order": "bgr"}
NETWORK = ("--network", PLAN, "--weights", "caffe.pth")
COMMANDS = {
    "show": ("in.png", "--layer", "relu2_1"),
    "match": ("in.png", "in.png", "--layer", "relu2_1"),
    "dream": ("in.png", "--layer", "relu2_1", "--size", 32, "--octaves", 1, "--steps", 1),
    "stylize": ("in.png", "in.png", "--size", 32, "--steps", 1, "--style-layers", "relu1_1"),
    "texture": ("in.png", "--size", 32, "--steps", 1, "--style-layers", "relu1_1"),
    "invert": ("in.png", "--layer", "relu2_1", "--size", 32, "--steps", 1),
    "visualize": ("--layer", "relu2_1", "--channel", 1, "--size", 32, "--steps", 1),
    "dump": ("in.png", "--layers", "relu2_1", "--resize", "none", "--workers", 0),
}  # fmt: skip


@pytest.fixture(autouse=True)
def inputs(vggfeat):  # noqa: ARG001 (which makes the folder)
    write_picture("in.png", torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    torch.save(vgg(PLAN, head="gap", num_classes=3, seed=0).state_dict(), "caffe.pth")


@pytest.mark.parametrize("command", COMMANDS)
def test_the_options_reach_the_network_and_are_recorded(command, vggfeat, monkeypatch):
    asked = []
    load = weights.load

    def recorded(*arguments, **options):
        asked.append(options)
        return load(*arguments, **options)

    monkeypatch.setattr(weights, "load", recorded)
    output = "out" if command == "dump" else "out.png"
    vggfeat(command, *COMMANDS[command], *NETWORK, *CAFFE, "-o", output, "--device", "cpu")
    assert {name: value for name, value in asked[0].items() if name in PYTHON} == PYTHON
    if command == "dump":
        about = json.loads(Path("out/run.json").read_text())["fingerprint"]["weights"]
        assert (about["input_order"], about["std"]) == ("bgr", [1 / 255] * 3)
    elif command in ("stylize", "texture", "invert"):
        assert recipe("out.png").preprocessing == PYTHON
        Path("out.toml").write_text(vggfeat("recipe", "out.png").stdout)
        assert recipe("out.toml").preprocessing == PYTHON
        # A picture's recipe is used again, and an option overrides it.
        vggfeat(
            command, *COMMANDS[command], "--recipe", "out.toml", "--mean", "1,2,3", "-o", "again.png", "--device", "cpu"
        )
        assert recipe("again.png").preprocessing == PYTHON | {"mean": (1, 2, 3)}
    elif command == "dream":
        error = vggfeat("recipe", "out.png", code=2).stderr
        for option in ("--mean 123.68,116.779,103.939", "--std 1.0,1.0,1.0", "--input-order bgr"):
            assert option in error
        assert "None" not in error


def test_show_spells_it_channels_too(vggfeat):
    vggfeat("show", "in.png", "-l", "relu2_1", *NETWORK, *CAFFE, "-o", "out.png")
    expected = sheet(view.inspect("in.png", "relu2_1", PLAN, weights="caffe.pth", **PYTHON))
    assert (read_picture("out.png").rgb - expected).abs().max() < 0.51 / 255
    vggfeat(
        "show", "in.png", "-l", "relu2_1", *NETWORK, *CAFFE[:4], "--input-order", "bgr", "--channels", 3, "-o", "o.png"
    )
    assert "contradicts" in vggfeat("show", "in.png", "-l", "relu2_1", *CAFFE, "--input-order", "rgb", code=2).stderr


def test_classification(vggfeat):
    plain, caffe = (
        json.loads(vggfeat("classify", "in.png", *NETWORK, *options, "--json").stdout) for options in ((), CAFFE)
    )
    assert plain != caffe


def test_training_starts_from_it(vggfeat):
    for name in ("a", "b"):
        for number in range(4):
            Path(f"data/{name}").mkdir(parents=True, exist_ok=True)
            write_picture(f"data/{name}/{number}.png", torch.rand(1, 3, 16, 16))
    options = ("--data", "data", "--network", PLAN, "--size", 16, "--epochs", 1, "--batch-size", 4, "--quiet")
    assert "there are none" in vggfeat("train", *options, *CAFFE, "-o", "run", code=2).stderr
    vggfeat("train", *options, *CAFFE, "--from", "caffe.pth", "-o", "run", "--device", "cpu")
    state, entry = weights.load(PLAN, "run/best.safetensors")
    assert entry.std == weights.BYTE_STD
    assert "RGB" in vggfeat("dump", "in.png", "--layers", "relu1_1", "--network", PLAN, "--weights",
                            "run/best.safetensors", "--channels", "bgr", "-o", "out", code=2).stderr  # fmt: skip
    assert state["features.0.weight"].shape == (8, 3, 3, 3)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--mean", "0.5"), "'0.5' is not three numbers R,G,B such as 0.485,0.456,0.406"),
        (("--mean", "a,b,c"), "'a,b,c' is not three numbers"),
        (("--mean", "123,117,104"), "which is for images in 0-255, and there is no std"),
        (("--std", "0,1,1"), "it must be finite and above 0"),
        (("--channels", "brg"), "brg"),
        (
            ("--weights", "default", "--network", "vgg16", "--channels", "bgr"),
            "read RGB: input_order='bgr' is only for",
        ),
    ],
)
def test_what_cannot_be(options, reason, vggfeat):
    for command in ("show", "dump", "stylize", "dream"):
        others = [*COMMANDS[command]]
        if "vgg16" in options and command == "stylize":
            others = others[:4]
        vggfeat(command, *others, *NETWORK, *options, "-o", "out.png", code=2)
        assert not Path("out.png").exists()
    assert reason in vggfeat("match", *COMMANDS["match"], *NETWORK, *options, code=2).stderr


def test_a_warning_is_one_line(vggfeat):
    with pytest.warns(
        UserWarning, match="the weights 'caffe.pth' read BGR, but mean and std are not both given"
    ) as seen:
        vggfeat("show", "in.png", "-l", "relu2_1", *NETWORK, "--channels", "bgr", "-o", "out.png")
    text = warnings.formatwarning(seen[0].message, UserWarning, "show.py", 1)
    assert text.startswith("vggfeat: warning: the weights 'caffe.pth' read BGR")
    assert text.count("\n") == 1
