import gc
from functools import cache

import pytest
import torch
import torchvision
from torchmetrics.image.dists import DeepImageStructureAndTextureSimilarity
from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity
from vggfeat.metrics import MeanDistance, MeanDISTS, MeanLPIPS

from vggfeat import DISTS, LPIPS, PerceptualLoss
from vggfeat.errors import InputError
from vggfeat.networks import weights


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


@pytest.fixture
def _torchmetrics_offline(monkeypatch):
    """Serve torchmetrics the networks from our weights."""

    @cache
    def network(name):
        with torch.device("meta"):  # the head is not needed, and takes long to draw
            model = getattr(torchvision.models, name)(weights=None)
        state, _ = weights.load(name)
        model.features.load_state_dict({key.removeprefix("features."): x for key, x in state.items()}, assign=True)
        return model

    monkeypatch.setattr(
        "torchmetrics.functional.image.lpips._get_tv_model_features", lambda name, *_: network(name).features
    )
    monkeypatch.setattr("torchmetrics.functional.image.dists.vgg16", lambda **_: network("vgg16"))


@pytest.mark.usefixtures("_torchmetrics_offline")
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda: MeanLPIPS("alex"), lambda: LearnedPerceptualImagePatchSimilarity("alex", normalize=True)),
        (MeanDISTS, DeepImageStructureAndTextureSimilarity),
    ],
)
def test_values_are_torchmetrics(ours, theirs, pairs):
    """Also over batches of several sizes."""
    ours, theirs = ours(), theirs()
    for metric in (ours, theirs):
        metric.update(pairs[0][:3], pairs[1][:3])
        metric.update(pairs[0][3:], pairs[1][3:])
    torch.testing.assert_close(ours.compute(), theirs.compute().detach(), rtol=1e-5, atol=1e-6)
    assert ours.higher_is_better is theirs.higher_is_better is False


def test_options_reach_the_criterion_and_torchmetrics(pairs):
    metric = MeanLPIPS("alex", version="0.0", channels="repeat", check="off", sync_on_compute=False)
    metric.update(pairs[0][:, :1], pairs[1][:, :1])
    expected = LPIPS("alex", version="0.0", channels="repeat")(pairs[0][:, :1], pairs[1][:, :1])
    torch.testing.assert_close(metric.compute(), expected)
    assert not metric.sync_on_compute
    with pytest.raises(ValueError, match="resise"):
        MeanDISTS(resise=64)


def test_values_of_frames_count_one_by_one(pairs):
    clip, other = (x[:6].unflatten(0, (2, 3)) for x in pairs)
    metric = MeanLPIPS("alex")
    metric.update(clip, other)
    torch.testing.assert_close(metric.compute(), LPIPS("alex")(pairs[0][:6], pairs[1][:6]))


def test_weighted_sums_accumulate(pairs):
    metric = MeanDistance(PerceptualLoss(["relu1_1"], pixel=1.0, reduction="none"))
    metric.update(*pairs)
    torch.testing.assert_close(metric.compute(), PerceptualLoss(["relu1_1"], pixel=1.0)(*pairs))
    with pytest.raises(InputError, match="needs one value a pair"):
        MeanDistance(PerceptualLoss(["relu1_1"], pixel=1.0))
