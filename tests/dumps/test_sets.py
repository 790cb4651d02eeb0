import numpy as np
import pytest
import torch

import vggfeat
from vggfeat.dumps.coverage import coverage
from vggfeat.dumps.errors import StoreError
from vggfeat.dumps.frechet import frechet_interval, grouped_moments
from vggfeat.dumps.kernel_distance import kernel_distance
from vggfeat.dumps.sets import compare_sets
from vggfeat.errors import InputError, VggfeatError

from .conftest import QUICK, make_pictures


@pytest.fixture(scope="module")
def dumps(tmp_path_factory):
    """Two sets of pictures, and their dumps in several shards."""
    folder = tmp_path_factory.mktemp("sets")
    make_pictures(folder / "a", 24)
    for path in make_pictures(folder / "b", 40).iterdir():
        if int(path.stem) < 24:
            path.unlink()
    return [
        vggfeat.dump(folder / name, folder / f"out-{name}", **QUICK, reduce="mean,center", shard_size=7)
        for name in "ab"
    ]


@pytest.fixture
def features(dumps):
    return [np.asarray(dump["relu2_1", "center"], np.float64) for dump in dumps]


def test_the_frechet_distance_is_that_of_torch_fidelity(dumps, features):
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    found = dumps[0].compare(dumps[1], "relu2_1.center", measures=["frechet"]).frechet
    one, two = (fid_features_to_statistics(torch.tensor(x)) for x in features)
    assert found.value == pytest.approx(fid_statistics_to_metric(one, two, False)["frechet_inception_distance"], 1e-6)
    assert found.low < found.value < found.high


@pytest.mark.filterwarnings("ignore:The `disp` argument:DeprecationWarning")
def test_the_frechet_distance_is_that_of_pytorch_fid():
    from pytorch_fid.fid_score import calculate_frechet_distance

    generator = np.random.default_rng(0)
    features = [generator.normal(size=(80, 12)), generator.normal(size=(70, 12)) @ generator.normal(size=(12, 12)) + 1]
    found = frechet_interval(*(grouped_moments([x[:30], x[30:]], len(x), 0) for x in features))
    statistics = [part for x in features for part in (x.mean(0), np.cov(x, rowvar=False))]
    assert found.value == pytest.approx(calculate_frechet_distance(*statistics), rel=1e-9)


@pytest.mark.parametrize("seed", [2020, 7])
def test_kid_is_that_of_torch_fidelity(dumps, features, seed):
    from torch_fidelity.metric_kid import kid_features_to_metric

    options = {"subsets": 12, "subset_size": 8, "seed": seed}
    found = dumps[0].compare(dumps[1], "relu2_1.center", measures=["kid"], **options).kid
    expected = kid_features_to_metric(
        *map(torch.tensor, features), kid_subsets=12, kid_subset_size=8, rng_seed=seed, verbose=False
    )
    assert found.value == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-9)
    assert found.low < found.value < found.high


@pytest.mark.parametrize("k", [1, 3, 5])
def test_coverage_is_that_of_prdc_and_torch_fidelity(dumps, features, k, capsys):
    from prdc import compute_prdc
    from torch_fidelity.metric_prc import prc_features_to_metric

    found = dumps[0].compare(dumps[1], "relu2_1.center", measures=["coverage"], k=k)
    expected = compute_prdc(*features, nearest_k=k)
    capsys.readouterr()  # prdc prints
    assert 0 < expected["precision"] < 1
    for name, value in expected.items():
        interval = getattr(found, name)
        assert interval.value == pytest.approx(value, abs=1e-9)
        assert interval.low <= interval.value <= interval.high
    generated_first = [torch.tensor(x) for x in reversed(features)]
    other = prc_features_to_metric(*generated_first, prc_neighborhood=k, verbose=False)
    assert found.precision.value == pytest.approx(other["precision"], abs=1e-6)
    assert found.recall.value == pytest.approx(other["recall"], abs=1e-6)


class Rows:
    """An array in memory that is read like one of a dump."""

    layer, reduction = "relu2_1", "center"

    def __init__(self, values):
        self.values, self.shape, self.ids = values, values.shape, tuple(map(str, range(len(values))))

    def __len__(self):
        return len(self.values)

    def __getitem__(self, index):
        return self.values[index]


def test_sets_of_more_than_one_block(dumps, capsys):
    from prdc import compute_prdc
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    generator = np.random.default_rng(4)
    features = generator.normal(size=(2100, 6)), generator.normal(size=(2300, 6)) * 1.2 + 0.3
    found = compare_sets(*dumps, tuple(map(Rows, features)), measures=["frechet", "coverage"], k=3)
    for name, value in compute_prdc(*features, nearest_k=3).items():
        assert getattr(found, name).value == pytest.approx(value, abs=1e-9)
    capsys.readouterr()  # prdc prints
    one, two = (fid_features_to_statistics(torch.tensor(x)) for x in features)
    expected = fid_statistics_to_metric(one, two, False)["frechet_inception_distance"]
    assert found.frechet.value == pytest.approx(expected, 1e-6)


def test_pictures_in_both_sets_lie_on_the_balls_that_reach_to_them():
    generator = np.random.default_rng(3)
    a = generator.normal(size=(30, 50)) + 10
    b = np.concatenate([a[5:15], generator.normal(size=(8, 50)) + 10])
    exact = ((a[:, None] - b) ** 2).sum(2)
    radii = [np.sort(((x[:, None] - x) ** 2).sum(2), axis=1)[:, 2] for x in (a, b)]
    inside = exact < radii[0][:, None]
    assert (exact == radii[0][:, None]).any()
    found = coverage(lambda: iter([(0, a[:7]), (7, a[7:])]), lambda: iter([(0, b)]), (30, 18), k=2)
    assert found.precision.value == inside.any(0).mean()
    assert found.recall.value == (exact < radii[1]).any(1).mean()
    assert found.density.value == pytest.approx(inside.sum(0).mean() / 2)
    assert found.coverage.value == inside.any(1).mean()


def test_intervals_hold_what_they_promise():
    """The intervals of 40 samples contain the true distance of two Gaussians about as often as they say."""
    generator = np.random.default_rng(0)
    draw = lambda count: (generator.normal(size=(count, 4)), generator.normal(size=(count, 4)) * 1.5 + 0.5)  # noqa: E731
    truth = 4 * 0.5**2 + 4 * 0.5**2
    kid = kernel_distance(*(rows.__getitem__ for rows in draw(3000)), (3000, 3000), subsets=1, size=3000, seed=0).value
    hits = np.zeros(2)
    for seed in range(40):
        a, b = draw(300)
        found = frechet_interval(*(grouped_moments([x[:100], x[100:]], 300, seed) for x in (a, b)))
        hits[0] += found.low <= truth <= found.high
        found = kernel_distance(a.__getitem__, b.__getitem__, (300, 300), subsets=20, size=100, seed=seed)
        hits[1] += found.low <= kid <= found.high
    assert (hits >= 33).all()
    assert (hits < 40).any()


def test_a_set_is_at_no_distance_from_itself(dumps):
    found = dumps[0].compare(dumps[0], "relu2_1.mean")
    assert found.frechet.value == pytest.approx(0, abs=1e-9)
    assert found.precision.value == found.recall.value == found.coverage.value == 1
    assert found.counts == (24, 24)
    assert list(found.measures()) == ["frechet", "kid", "precision", "recall", "density", "coverage"]
    assert found.as_dict()["measures"]["coverage"]["value"] == 1


def test_what_cannot_be_compared_is_refused(dumps, tmp_path):
    pictures = make_pictures(tmp_path / "in", 3)
    one = vggfeat.dump(pictures, tmp_path / "seed", **QUICK, reduce="mean", seed=5)
    with pytest.raises(InputError, match="cannot be compared: their weights differ"):
        dumps[0].compare(one, "relu1_1.mean")
    sharper = vggfeat.dump(pictures, tmp_path / "size", **QUICK | {"resize": 40}, reduce="mean")
    assert dumps[0].compare(sharper, "relu1_1.mean", k=1).notes == (
        "resize differs: 32 and 40",
        "crop differs: 32 and 40",
    )
    for options, message in (
        ({"k": 16}, "k is 16: it must be between 1 and 15 for 16 pictures"),
        ({"subset_size": 17}, "subset_size is 17: it must be between 2 and 16"),
        ({"subsets": 0}, "subsets is 0"),
        ({"measures": ["fid"]}, "unknown measure 'fid': did you mean kid"),
    ):
        with pytest.raises(VggfeatError, match=message):
            dumps[0].compare(dumps[1], "relu1_1.mean", **options)
    single = vggfeat.dump(pictures / "000.png", tmp_path / "single", **QUICK, reduce="mean")
    with pytest.raises(StoreError, match="has 1 pictures: a comparison of sets needs at least 2"):
        single.compare(dumps[0], "relu1_1.mean")
    shard = dumps[1].path / "relu1_1.mean" / "000001.npy"
    kept = shard.read_bytes()
    rows = np.load(shard)
    rows[2, 0] = np.nan
    np.save(shard, rows)
    broken = vggfeat.open_dump(dumps[1].path)
    for measure in ("frechet", "kid", "coverage"):
        with pytest.raises(InputError, match=f"the features of '{broken.ids[9]}' in relu1_1.mean are infinite or NaN"):
            dumps[0].compare(broken, "relu1_1.mean", measures=[measure])
    shard.write_bytes(kept)
