import pytest
import torch

from vggfeat import SlicedWassersteinLoss
from vggfeat.losses import formulas


def test_sliced_wasserstein_is_seeded(features, others):
    values = [
        loss(features, loss.target(others))
        for loss in (SlicedWassersteinLoss(["relu1_1"], seed=seed) for seed in (1, 1, 2))
    ]
    assert values[0] == values[1] != values[2]


def test_directions_drawn_in_inference_mode_serve_a_gradient():
    loss = SlicedWassersteinLoss(["x"])
    x = torch.rand(1, 4, 5, 5, requires_grad=True)
    with torch.inference_mode():
        loss({"x": x.detach()}, loss.target({"x": x.detach()}))
    loss({"x": x}, loss.target({"x": x.detach().flip(1)})).backward()
    assert x.grad is not None


@pytest.mark.parametrize("positions", [30, 21])
@pytest.mark.parametrize("limit", [1 << 26, 900])
def test_comparing_in_chunks_gives_the_same_value_and_gradient(positions, limit, monkeypatch):
    monkeypatch.setattr(formulas, "CHUNK_BYTES", limit)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 4, 5, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    loss = SlicedWassersteinLoss(["x"], projections=8)
    target = loss.target({"x": torch.randn(1, 4, 1, positions, generator=generator, dtype=torch.float64)})["x"]
    weights = torch.tensor([1.0, 3.0], dtype=torch.float64)
    chunked, whole = loss.compare(x, target, "x"), loss.distance(loss.summary(x), target)
    torch.testing.assert_close(chunked, whole)
    torch.testing.assert_close(*(torch.autograd.grad(values @ weights, x) for values in (chunked, whole)))
