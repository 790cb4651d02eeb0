import numpy as np
import pytest
import torch
from PIL import Image

from vggfeat import open_dump, write_picture


@pytest.fixture
def dumped(vggfeat, tmp_path):
    import vggfeat as package

    (tmp_path / "in").mkdir()
    for number in range(5):
        noise = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(number))
        write_picture(tmp_path / "in" / f"{number}.png", noise)
    options = {"network": "vgg11", "layers": "relu1_1,relu2_1", "weights": None, "resize": 32, "device": "cpu"}
    package.dump("in", "out", reduce="mean", statistics=True, cka=True, workers=0, **options)
    package.dump("in", "plain", reduce="mean", workers=0, **options)
    return vggfeat


BLUE = (0, 114, 178)


def chart():
    with Image.open("chart.png") as image:
        return image.copy()


def longest_bars(picture):
    """The lengths in pixels of the blue bars of a chart, from top to bottom."""
    blue = (np.asarray(picture) == BLUE).all(2)
    lengths = blue.sum(1)
    starts = np.flatnonzero((lengths > 0) & (np.roll(lengths, 1) == 0))
    return [int(lengths[start + 3]) for start in starts]


def test_a_chart_of_the_layers(dumped):
    table = dumped("dump-stats", "out").stdout
    assert dumped("dump-stats", "out", "--plot", "chart.png").stdout == table
    image = chart()
    assert image.width > 2 * 640 + 100  # two charts of bars, and CKA
    zeros = [float(each.zeros.mean()) for each in open_dump("out").statistics().values()]
    bars = longest_bars(image.crop((0, 0, 640, image.height)))
    assert len(bars) == 2
    assert bars[0] / bars[1] == pytest.approx(zeros[0] / zeros[1], rel=0.03)


def test_a_chart_of_the_channels(dumped):
    dumped("dump-stats", "out", "--layer", "relu2_1", "--plot", "chart.png")
    assert chart().size == (1280, 400)


def test_nothing_to_draw_is_told(dumped):
    assert "has no statistics" in dumped("dump-stats", "plain", "--plot", "chart.png", code=2).stderr
    assert "unknown ending '.gif'" in dumped("dump-stats", "out", "--plot", "chart.gif", code=2).stderr
