import pytest
import torch

from vggfeat.errors import InputError
from vggfeat.transfer.styles import blocks
from vggfeat.transfer.styles.widths import StyleWidths


@pytest.mark.parametrize("size", [(8, 8), (37, 50), (64, 41)])
@pytest.mark.parametrize("side", [4, 16, 24])
def test_blocks_give_the_whole_painting(styles, size, side):
    network, picture = styles.network, torch.rand(1, 3, *size)
    mix = network.mix({"waves": 1, "dots": 2})
    with torch.inference_mode():
        whole, parts = network(picture, mix), blocks.paint(network, picture, mix, side)
    assert torch.allclose(whole, parts, atol=1e-5)


def test_smaller_budgets_choose_smaller_blocks():
    widths = StyleWidths()
    whole = blocks.predict(widths, 2000, 3000)
    budgets = [whole, whole - 1, blocks.predict(widths, 2000, 3000, 256), blocks.predict(widths, 2000, 3000, 128)]
    assert [blocks.choose(widths, 2000, 3000, budget) for budget in budgets] == [None, 1024, 256, 128]
    assert blocks.choose(widths, 2000, 3000, None) is None


def test_too_little_memory_is_named():
    with pytest.raises(InputError, match=r"3000x2000 pixels take .* MB even in small blocks, 10 MB are allowed"):
        blocks.choose(StyleWidths(), 2000, 3000, 10_000_000)
