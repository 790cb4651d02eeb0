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


def test_a_prepared_target_gives_the_same_value_and_gradient():
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(1, 6, 4, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    x.requires_grad_()
    loss = CovarianceLoss(["x"])
    found = []
    for target in (loss.summary(y), loss.prepared(loss.summary(y))):
        value = loss({"x": x}, {"x": target})
        found.append((value.detach(), *torch.autograd.grad(value, x)))
    torch.testing.assert_close(*found)


def test_a_step_decomposes_each_layer_once(monkeypatch):
    x = torch.randn(1, 6, 4, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    loss = CovarianceLoss(["x"])
    target = loss.target({"x": x.detach().flip(1)})
    plain, taken = torch.linalg.eigh, []
    monkeypatch.setattr(torch.linalg, "eigh", lambda matrix: taken.append(1) or plain(matrix))
    torch.autograd.grad(loss({"x": x}, target), x)
    assert len(taken) == 1
