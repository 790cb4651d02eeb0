from pathlib import Path

import pytest
import torch

from vggfeat import write_picture
from vggfeat.ui.limits import Limits, read_upload


@pytest.fixture
def folder(tmp_path):
    """Where uploads lie."""
    sent = tmp_path / "sent"
    sent.mkdir()
    return sent


@pytest.fixture
def send(folder):
    """Upload a picture of noise, as a page does, and read it."""

    def sent(name="photo.png", height=48, width=64, *, alpha=False, seed=0, limits=None):
        rgb = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))
        write_picture(folder / name, rgb, alpha=rgb[:, :1] if alpha else None)
        return read_upload({"path": str(folder / name)}, "picture", folder, limits or Limits())

    return sent


ASSETS = Path(__file__).parents[2] / "assets" / "images"
