import os
import signal
import subprocess
import sys

import pytest
import torch
from click.testing import CliRunner, Result
from vggfeat_cli import main

from vggfeat import write_picture
from vggfeat.transfer.optimise import BoundedDescent, BoundedLBFGS
from vggfeat.transfer.visualize import SpectralAdam


@pytest.fixture
def vggfeat(tmp_path, monkeypatch, request):
    """Run the command in an empty folder, inside this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("vggfeat.features.allocation.hold", lambda: None)  # it is for the whole process

    def run(*arguments: object, code: int | None = 0) -> Result:
        result = CliRunner().invoke(main, [str(argument) for argument in arguments])
        if result.exit_code == 128 + signal.SIGTERM != code:  # the command took a SIGTERM that was meant for pytest
            request.session.shouldstop = "terminated"
        assert code is None or result.exit_code == code, result.output
        if code == 2:
            assert result.stderr.count("\n") == 1
            assert result.stderr.startswith("vggfeat: ")
            assert not result.stdout or "intact" in result.stdout
        return result

    return run


@pytest.fixture
def pictures(tmp_path):
    """A content of 80x60 and a style of 50x50, in the folder that commands run in."""
    generator = torch.Generator().manual_seed(0)
    for name, size in (("content.png", (60, 80)), ("style.jpg", (50, 50))):
        coarse = torch.rand(1, 3, 6, 6, generator=generator)
        write_picture(tmp_path / name, torch.nn.functional.interpolate(coarse, size, mode="bilinear"))


@pytest.fixture
def end_at(monkeypatch):
    """Raise an error, or send a signal, in the given step of any optimiser."""

    def prepare(number, end, patch=monkeypatch):
        steps = []
        for optimiser in (BoundedDescent, BoundedLBFGS, SpectralAdam):

            def fail_later(self, step=optimiser.step):
                steps.append(1)
                if len(steps) == number:
                    if isinstance(end, signal.Signals):
                        os.kill(os.getpid(), end)
                    else:
                        raise end
                step(self)

            patch.setattr(optimiser, "step", fail_later)

    return prepare


@pytest.fixture
def spawn(tmp_path):
    """Start the command as a process of its own, in an empty folder. It ends with the test at the latest."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", "from vggfeat_cli import main; main()", *map(str, arguments)]
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        with process:  # closes its pipes and waits for it
            process.kill()
