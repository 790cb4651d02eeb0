import pytest
import torch

from vggfeat import ContextualLoss
from vggfeat.losses import formulas


def test_is_minus_the_logarithm_of_the_similarity(features, others):
    loss = ContextualLoss({"relu1_1": 2.0}, bandwidth=0.2, reduction="none")
    similarity = formulas.contextual_similarity(features["relu1_1"], others["relu1_1"], bandwidth=0.2)
    torch.testing.assert_close(loss(features, loss.target(others)), -2 * similarity.log())


def test_bandwidth_counts(features, others):
    sharp, wide = (ContextualLoss(["relu1_1"], bandwidth=bandwidth) for bandwidth in (0.1, 1.0))
    target = sharp.target(others)
    assert sharp(features, target).item() != pytest.approx(wide(features, target).item(), rel=0.1)
