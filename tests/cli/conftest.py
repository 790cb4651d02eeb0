import signal
import subprocess
import sys

import pytest
from click.testing import CliRunner, Result
from vggfeat_cli import main


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
