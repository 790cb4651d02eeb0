import torch

from vggfeat import CovarianceLoss


def test_a_shift_of_every_channel_is_its_square(features):
    loss = CovarianceLoss(["relu1_1"], reduction="none")
    moved = {name: x + 0.5 for name, x in features.items()}
    torch.testing.assert_close(loss(moved, loss.target(features)), torch.full((2,), 0.25), rtol=0, atol=1e-5)


def test_a_scale_of_one_channel(features):
    """The squared distance of Gaussians of one dimension: that of the means plus that of the deviations."""
    loss = CovarianceLoss(["x"])
    x = features["relu1_1"][:, :1].double()
    value = loss({"x": 3 * x}, loss.target({"x": x}))
    torch.testing.assert_close(value, 4 * (x.mean((1, 2, 3)) ** 2 + x.var((1, 2, 3), correction=0)).mean())
