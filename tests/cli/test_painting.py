"""What ends a run of `vggfeat texture`, `invert` or `dream` before its end."""

import pytest
import torch

from vggfeat import read_picture, write_picture
from vggfeat.transfer.optimise import BoundedDescent, BoundedLBFGS

COMMANDS = {
    "texture": ("--size", 64, "--first-size", 32, "--steps", 3),
    "dream": ("--size", 64, "--octaves", 2, "--layer", "relu3_1", "--steps", 3),
    "invert": ("--size", 64, "--first-size", 32, "--steps", 3),
}


@pytest.fixture(autouse=True)
def picture(tmp_path):
    coarse = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    write_picture(tmp_path / "in.png", torch.nn.functional.interpolate(coarse, (64, 64), mode="bilinear"))


@pytest.fixture
def end_at(monkeypatch):
    """Let an error come at so many steps of either optimiser."""

    def prepare(number, error):
        steps = []
        for optimiser in (BoundedDescent, BoundedLBFGS):

            def fail_later(self, step=optimiser.step):
                steps.append(1)
                if len(steps) == number:
                    raise error
                step(self)

            monkeypatch.setattr(optimiser, "step", fail_later)

    return prepare


@pytest.mark.parametrize("command", COMMANDS)
def test_ctrl_c_saves_the_picture_as_it_stands(command, vggfeat, end_at):
    end_at(5, KeyboardInterrupt)
    result = vggfeat(command, "in.png", *COMMANDS[command], "-o", "out.png", code=130)
    assert "interrupted: 'out.png' holds the picture after" in result.stderr
    assert read_picture("out.png").rgb.shape == (1, 3, 64, 64)


def test_ctrl_c_before_the_first_step_saves_nothing(vggfeat, end_at, tmp_path):
    end_at(1, KeyboardInterrupt)
    result = vggfeat("texture", "in.png", *COMMANDS["texture"], "-o", "out.png", code=130)
    assert "interrupted before the first step: nothing was saved" in result.stderr
    assert not (tmp_path / "out.png").exists()


def test_an_error_on_the_way_saves_what_was_painted(vggfeat, end_at):
    end_at(2, MemoryError)
    result = vggfeat("texture", "in.png", *COMMANDS["texture"], "-o", "out.png", code=None)
    assert result.exit_code == 2
    assert "out of memory at 32x32 pixels" in result.stderr
    assert read_picture("out.png").rgb.shape == (1, 3, 32, 32)
