"""A painting that is interrupted over and over is the painting of a run that was left alone."""

import random
import signal
import time

import pytest
import torch

from vggfeat import write_picture

ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
OPTIONS = ("--size", 80, "--first-size", 40, "--steps", 60, "--quiet", "--checkpoint-every", 0)


@pytest.mark.slow
@pytest.mark.parametrize("optimiser", ["lbfgs", "adam"])
def test_six_interruptions_at_random_moments_change_nothing(optimiser, spawn, tmp_path):
    draw = random.Random(f"interruptions {optimiser}")
    generator = torch.Generator().manual_seed(0)
    for name in ("content.png", "style.png"):
        coarse = torch.rand(1, 3, 8, 8, generator=generator)
        write_picture(tmp_path / name, torch.nn.functional.interpolate(coarse, (64, 80), mode="bilinear"))
    command = ("stylize", "content.png", "style.png", *OPTIONS, "--optimiser", optimiser)
    finish(spawn(*command, "-o", "whole.png"))
    kept = tmp_path / "run.ckpt"

    def start():
        """Go on from where the last process was ended; without a recipe, which is in the checkpoint."""
        part = ("--checkpoint", kept.name, "-o", "part.png")
        if not kept.exists():
            return spawn(*command, *part)
        return spawn(*command[:3], "--quiet", "--checkpoint-every", 0, "--resume", kept.name, *part)

    ends = [ENDS[number % 3] for number in range(6)]
    draw.shuffle(ends)
    for number, end in enumerate(ends):
        process = start()
        loading = number in (1, 4)  # twice before the first step
        if not loading:
            wait_for_writes(kept, draw.randint(1, 8), process)
        time.sleep(draw.uniform(0, 1.5 if loading else 0.1))
        assert process.poll() is None, process.communicate()
        process.send_signal(end)
        _, stderr = process.communicate(timeout=600)
        assert process.returncode in {128 + end, -end}, stderr
        assert "Traceback" not in stderr
    finish(start())
    assert (tmp_path / "part.png").read_bytes() == (tmp_path / "whole.png").read_bytes()
    assert not list(tmp_path.glob(".vggfeat*"))


def finish(process):
    _, stderr = process.communicate(timeout=600)
    assert process.returncode == 0, stderr


def wait_for_writes(path, count, process):
    """Return once the file at `path` was replaced `count` times."""

    def seen():
        return path.stat().st_ino if path.exists() else None

    before = seen()
    while count:
        assert process.poll() is None, process.communicate()
        if (now := seen()) != before:
            before, count = now, count - 1
        time.sleep(0.002)
