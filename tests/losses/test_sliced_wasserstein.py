import torch

from vggfeat import SlicedWassersteinLoss


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
