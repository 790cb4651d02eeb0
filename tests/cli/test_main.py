import importlib
import os
import subprocess
import sys
import time

import click
import pytest
from vggfeat_cli import main


def test_every_command_has_help_that_fits(vggfeat):
    for name in main.list_commands(click.Context(main)):
        assert "Usage" in vggfeat(name, "--help").output
        assert name in vggfeat("--help").output


def test_help_says_what_every_command_is_for(vggfeat):
    listed = " ".join(vggfeat("--help").output.split())
    for name in main.list_commands(click.Context(main)):
        module = importlib.import_module(f"vggfeat_cli.{name.replace('-', '_')}")
        first = module.__doc__.partition("\n")[0]
        assert first.startswith(f"`vggfeat {name}`: ")
        purpose = first.partition(": ")[2]
        assert f"{name} {purpose[0].upper()}{purpose[1:]}" in listed


@pytest.mark.parametrize(("arguments", "limit"), [(["--help"], 0.3), (["layers", "vgg19"], 0.5)])
def test_answers_at_once_and_without_torch(arguments, limit, spawn):
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        process = spawn(*arguments)
        process.communicate()
        seconds.append(time.perf_counter() - began)
        assert process.returncode == 0
    assert min(seconds) < limit  # the least disturbed of five


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["stylise"], "unknown command 'stylise': did you mean stylize"),
        (["layers", "--sixe", "3"], "No such option"),
        (["layers", "--size", "x"], "'x' is not a valid integer"),
        (["stylize", "a.jpg"], "there is no style for 'a.jpg'"),
    ],
)
def test_misuse_is_one_line(arguments, message, vggfeat):
    assert message in vggfeat(*arguments, code=2).stderr


def test_version(vggfeat):
    assert vggfeat("--version").output.startswith("vggfeat, version ")


def test_debug_shows_where(vggfeat, spawn):
    assert "Traceback" not in vggfeat("layers", "vgg12", code=2).stderr
    _, stderr = spawn("layers", "vgg12", "--debug").communicate()
    assert "Traceback" in stderr


def test_an_internal_error_is_one_line(vggfeat, monkeypatch):
    monkeypatch.setattr("vggfeat.networks.arch.sized_layers", lambda *_: 1 / 0)
    stderr = vggfeat("layers", code=1).stderr
    assert stderr == "vggfeat: internal error, ZeroDivisionError: division by zero (--debug shows where)\n"


def test_names_that_standard_output_cannot_encode_are_escaped(tmp_path):
    (tmp_path / "写真.toml").write_text("steps = 3")
    code = "from vggfeat_cli import main; main(['recipe', '写真.toml'])"
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, cwd=tmp_path, env=environment, check=True
    )
    assert b"\\u5199\\u771f" in result.stdout


def test_ctrl_c_while_the_command_loads_is_no_traceback():
    code = (
        "import sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'click': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "from vggfeat_cli import main"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (process.returncode, process.stderr) == (130, "")
