import os
import signal
import subprocess

import pytest

import vggfeat
from vggfeat.dumps import processes
from vggfeat.dumps.engine import LocalEngine
from vggfeat.errors import VggfeatError

from .conftest import QUICK, hashes

OPTIONS = QUICK | {"shard_size": 2, "batch_size": 2, "statistics": True, "reduce": "full,mean"}


@pytest.mark.slow
def test_two_processes_write_what_one_does(pictures, tmp_path):
    vggfeat.dump(pictures, tmp_path / "one", **OPTIONS)
    vggfeat.dump(pictures, tmp_path / "two", **OPTIONS, engine=LocalEngine(0, devices=["cpu", "cpu"]))
    assert hashes(tmp_path / "one") == hashes(tmp_path / "two")


@pytest.mark.slow
def test_the_error_of_a_process_ends_the_run_and_the_others(pictures, tmp_path, monkeypatch):
    started, start = [], subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **rest: started.append(start(*args, **rest)) or started[-1])
    with pytest.raises(VggfeatError, match="there is no device 'cuda:63' here"):
        vggfeat.dump(pictures, tmp_path / "out", **OPTIONS, engine=LocalEngine(0, devices=["cpu", "cuda:63"]))
    assert len(started) == 2
    assert all(process.poll() is not None for process in started)


def test_a_process_that_dies_is_reported():
    """Each answers nothing: the second is killed."""
    with pytest.raises(VggfeatError, match=r"a process of the run ended early \(code -9\)"):
        _killed()


def _killed():
    real = processes.subprocess.Popen
    with pytest.MonkeyPatch.context() as patch:
        begun = []

        def sleeping(_command, **options):
            begun.append(real(["sleep", "60"], **options))
            if len(begun) == 2:
                os.kill(begun[1].pid, signal.SIGKILL)
            return begun[-1]

        patch.setattr(processes.subprocess, "Popen", sleeping)
        list(processes.compute_apart([(None, [1]), (None, [2])], 0))
