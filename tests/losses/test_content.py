import pytest
import torch

from vggfeat import ContentLoss


def test_content_is_the_weighted_mean_square(features, others):
    loss = ContentLoss({"relu1_1": 2.0, "relu2_1": 0.5}, reduction="none")
    theirs = sum(
        weight * torch.nn.functional.mse_loss(features[name], others[name], reduction="none").mean((1, 2, 3))
        for name, weight in (("relu1_1", 2.0), ("relu2_1", 0.5))
    )
    torch.testing.assert_close(loss(features, loss.target(others)), theirs)
    mean = ContentLoss({"relu1_1": 2.0, "relu2_1": 0.5})
    torch.testing.assert_close(mean(features, mean.target(others)), theirs.mean())


DISTANCES = {
    "l1": torch.nn.functional.l1_loss,
    "huber": torch.nn.functional.huber_loss,
    "charbonnier": lambda x, y: ((x - y) ** 2 + 1e-6).sqrt().mean(),
    "cosine": lambda x, y: (1 - torch.cosine_similarity(x, y, dim=1)).mean(),
}


@pytest.mark.parametrize("distance", DISTANCES)
def test_content_distances(distance, features, others):
    loss = ContentLoss(["relu1_1"], distance=distance)
    theirs = DISTANCES[distance](features["relu1_1"], others["relu1_1"])
    torch.testing.assert_close(loss(features, loss.target(others)), theirs, rtol=1e-5, atol=1e-6)
