import pytest
import torch

from vggfeat import NearestNeighbourLoss
from vggfeat.losses import formulas


def test_is_the_weighted_distance_to_the_nearest(features, others):
    loss = NearestNeighbourLoss({"relu1_1": 2.0}, chunk=5, reduction="none")
    expected = 2 * formulas.nearest_cosine_distance(features["relu1_1"], others["relu1_1"])
    torch.testing.assert_close(loss(features, loss.target(others)), expected)


def test_positions_do_not_matter(features):
    loss = NearestNeighbourLoss(["relu1_1"])
    rolled = {"relu1_1": features["relu1_1"].roll((2, 3), (2, 3))}
    assert loss(rolled, loss.target(features)).item() == pytest.approx(0, abs=1e-6)


def test_chunks_of_the_target_give_the_same_neighbours(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(2, 4, 5, side, generator=generator, dtype=torch.float64) for side in (6, 7))
    whole = formulas.nearest_cosine_distance(x, y)
    monkeypatch.setattr(formulas, "CHUNK_BYTES", 900)
    torch.testing.assert_close(formulas.nearest_cosine_distance(x, y), whole)


@pytest.mark.parametrize("centre", [False, True])
def test_against_the_cosines_of_all_pairs(centre, features):
    """Without centring it is the loss of artistic radiance fields."""
    loss = NearestNeighbourLoss(["relu2_1"], centre=centre, chunk=3, reduction="none")
    style = torch.randn(1, 6, 5, 3, generator=torch.Generator().manual_seed(1))
    x, y = (list(z.flatten(2).unbind(2)) for z in (features["relu2_1"], style))
    mean = torch.stack(y).mean(0) if centre else 0
    each = [[torch.cosine_similarity(one - mean, other - mean) for other in y] for one in x]
    expected = torch.stack([1 - torch.stack(cosines).amax(0) for cosines in each]).mean(0)
    torch.testing.assert_close(loss(features, loss.target({"relu2_1": style})), expected)
