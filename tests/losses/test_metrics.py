import gc

import pytest
import torch

from vggfeat import DISTS, LPIPS
from vggfeat.errors import InputError
from vggfeat.losses.metrics import MeanDistance


@pytest.fixture(scope="module")
def pairs():
    return torch.rand(2, 7, 3, 40, 40, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("make", [lambda: LPIPS("alex", reduction="none"), lambda: DISTS(reduction="none")])
def test_mean_over_batches_of_any_size(make, pairs):
    criterion = make()
    metric = MeanDistance(criterion)
    for part in (slice(0, 4), slice(4, 7)):
        metric.update(pairs[0][part], pairs[1][part])
    torch.testing.assert_close(metric.compute(), criterion(*pairs).mean())
    metric.reset()
    metric.update(pairs[0][:1], pairs[1][:1])
    torch.testing.assert_close(metric.compute(), criterion(pairs[0][:1], pairs[1][:1]).mean())


@pytest.mark.slow
def test_memory_does_not_grow_with_the_pairs():
    """Of 10,000 pairs, after the first hundred nothing more is held."""
    criterion = LPIPS("alex", reduction="none", check="off")
    criterion.forward = lambda prediction, target: (prediction - target).mean((1, 2, 3))  # what is kept is the metric's
    metric = MeanDistance(criterion)
    batch = torch.rand(2, 100, 3, 4, 4)
    held = []
    for _ in range(100):
        metric.update(*batch)
        held.append(sum(issubclass(type(item), torch.Tensor) for item in gc.get_objects()))
    assert max(held[1:]) <= held[0]
    assert metric.count == 10_000


def test_needs_one_value_a_pair():
    with pytest.raises(InputError, match="needs one value a pair"):
        MeanDistance(LPIPS("alex"))
    with pytest.raises(InputError, match="needs one value a pair"):
        MeanDistance(LPIPS("alex", spatial=True, reduction="none"))


def test_before_the_first_pair():
    metric = MeanDistance(LPIPS("alex", reduction="none"))
    with pytest.warns(UserWarning, match="before the ``update``"):
        assert metric.compute().isnan()
