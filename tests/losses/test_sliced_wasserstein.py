from vggfeat import SlicedWassersteinLoss


def test_sliced_wasserstein_is_seeded(features, others):
    values = [
        loss(features, loss.target(others))
        for loss in (SlicedWassersteinLoss(["relu1_1"], seed=seed) for seed in (1, 1, 2))
    ]
    assert values[0] == values[1] != values[2]
