import pytest
import torch

from vggfeat import GramLoss
from vggfeat.losses import formulas


@pytest.mark.parametrize("divide_by", ["hw", "chw", "none"])
def test_style_is_the_mean_square_of_gram_matrices(divide_by, features, others):
    loss = GramLoss(["relu1_1"], divide_by=divide_by)
    grams = [formulas.gram(x["relu1_1"], divide_by=divide_by) for x in (features, others)]
    torch.testing.assert_close(loss(features, loss.target(others)), torch.nn.functional.mse_loss(*grams))


def test_conventions_differ_by_the_square_of_the_channels(features, others):
    hw, chw = (GramLoss(["relu2_1"], divide_by=name) for name in ("hw", "chw"))
    torch.testing.assert_close(
        chw(features, chw.target(others)), hw(features, hw.target(others)) / features["relu2_1"].shape[1] ** 2
    )


def test_one_target_serves_a_batch(features):
    loss = GramLoss(["relu1_1"], reduction="none")
    target = loss.target({name: x[:1] for name, x in features.items()})
    assert loss(features, target).shape == (2,)
    assert loss(features, target)[0] == pytest.approx(0.0, abs=1e-9)
