import json
import signal
import subprocess
import sys

import pytest

from vggfeat import InstantStyles, StyleRecipe

TINY = (
    *("--content-layers", "relu1_1", "--style-layers", "relu1_1:2", "--crop", 32, "--style-size", 40),
    *("--squares", 1, "--evaluate-every", 2, "--width-full", 4, "--width-half", 4, "--width-quarter", 4),
    *("--blocks", 1, "--device", "cpu", "--photos", "content.png"),
)


@pytest.fixture(autouse=True)
def _pictures(pictures):
    """Every command finds `content.png` and `style.jpg`."""


def test_trains_and_paints(vggfeat, tmp_path):
    result = vggfeat(
        *("train-style", "style.jpg", "dots=content.png", "-o", "my.safetensors"),
        *(*TINY, "--steps", 3, "--licence", "CC0"),
    )
    assert result.stdout == "my.safetensors\n"
    assert [line.split(":")[0] for line in result.stderr.splitlines()] == ["step 2/3", "step 3/3"]
    styles = InstantStyles.load("my.safetensors")
    assert (styles.names, styles.licence) == (("style", "dots"), "CC0")
    assert styles.recipe["style_layers"] == {"relu1_1": 2}
    assert (tmp_path / "my.preview.png").exists()
    assert not (tmp_path / "my.checkpoint.pt").exists()
    vggfeat("stylize", "content.png", "--fast", "my.safetensors:dots", "-o", "out.png")


def test_a_style_is_added_with_the_widths_of_the_file(vggfeat):
    vggfeat("train-style", "style.jpg", "-o", "one.safetensors", *TINY, "--steps", 1, "--quiet")
    tiny = [str(option) for option in TINY]
    for name in ("--width-full", "--width-half", "--width-quarter", "--blocks"):
        del tiny[tiny.index(name) : tiny.index(name) + 2]
    arguments = ("train-style", "new=content.png", "--add-to", "one.safetensors", "-o", "two.safetensors")
    result = vggfeat(*arguments, *tiny, "--steps", 1, "--json", "--quiet")
    assert json.loads(result.stdout)["styles"] == ["style", "new"]
    assert "has a style style already" in vggfeat(*arguments[:1], "style.jpg", *arguments[2:], *tiny, code=2).stderr


@pytest.mark.slow
def test_an_interrupted_run_is_resumed(vggfeat, tmp_path):
    options = [str(option) for option in (*TINY, "--steps", 100000, "--evaluate-every", 1, "--patience", 0)]
    command = [sys.executable, "-m", "vggfeat_cli", "train-style", "style.jpg", "-o", "my.safetensors", *options]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr.readline().startswith("step 1/100000")
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=60)[1]
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert "'my.checkpoint.pt' holds the run; --resume continues from it" in rest
    assert "holds a run: resume it" in vggfeat("train-style", "style.jpg", "-o", "my.safetensors", *TINY, code=2).stderr
    arguments = ("train-style", "style.jpg", "-o", "my.safetensors", *TINY, "--evaluate-every", 1, "--resume")
    vggfeat(*arguments, "--steps", 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("style.jpg", "-o", "my.pt"), "must end in .safetensors"),
        (("style.jpg", "style=content.png", "-o", "my.safetensors"), "two styles are called style"),
        (("stile.jpg", "-o", "my.safetensors"), "no such file; did you mean 'style.jpg'?"),
        (("style.jpg", "-o", "none/my.safetensors"), "no such folder"),
        (("style.jpg", "-o", "my.safetensors", "--style-layers", "relu9_9"), "relu9_9"),
        (("style.jpg", "-o", "my.safetensors", "--steps", "0"), "steps is 0"),
        (("style.jpg", "-o", "my.safetensors", "--photos", "none"), "there is no photograph or folder 'none'"),
        (("style.jpg", "-o", "my.safetensors", "--add-to", "none.safetensors"), "no such file"),
    ],
)
def test_mistakes_are_said_in_one_line(vggfeat, arguments, message, tmp_path):
    assert message in vggfeat("train-style", *arguments, code=2).stderr
    assert not list(tmp_path.glob("my.*"))


def test_every_field_of_a_recipe_is_an_option_with_its_default(vggfeat):
    text = " ".join(vggfeat("train-style", "--help").output.split())
    assert f"[default: {StyleRecipe().steps}]" in text
    assert "[default: relu1_2,relu2_2,relu3_3,relu4_1]" in text
