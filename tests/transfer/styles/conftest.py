import pytest
import torch

from vggfeat import InstantStyles
from vggfeat.transfer.styles.network import StyleNetwork
from vggfeat.transfer.styles.widths import StyleWidths

WIDTHS = StyleWidths(5, 6, 8, blocks=2)


@pytest.fixture
def styles():
    """An untrained network of two styles whose scales, shifts and gates all differ."""
    network = StyleNetwork(["waves", "dots"], WIDTHS, seed=3)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, x in network.named_parameters():
            if name.endswith(("scale", "shift", "gate")):
                x.add_(torch.randn(x.shape, generator=generator) * 0.5)
    return InstantStyles(network.eval(), licence="MIT", recipe={"steps": 1})
