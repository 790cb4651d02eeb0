import numpy as np
import pytest

import vggfeat
from vggfeat.dumps.rdms import compare_rdms
from vggfeat.dumps.representations import explain, similarities
from vggfeat.dumps.rsa import explain_rdms, noise_ceiling
from vggfeat.dumps.statistics import distances, linear_cka
from vggfeat.errors import InputError, RecipeError

from .conftest import QUICK

# Our names of rsatoolbox's methods.
METHODS = {"spearman": "spearman", "tau-a": "tau-a", "cosine": "cosine", "pearson": "corr", "whitened": "cosine_cov"}

pytestmark = pytest.mark.filterwarnings("ignore:.*rsatoolbox.*", "ignore:Noise ceiling for tau based on averaged ranks")


def rdms(count, size, *, ties=False, seed=0):
    points = np.random.default_rng(seed).normal(size=(count, size, 4)) + np.arange(size)[:, None] * 0.2
    found = ((points[:, :, None] - points[:, None]) ** 2).sum(3)
    return np.round(found) if ties else found


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_similarities_and_ceilings_are_those_of_rsatoolbox(method, ties):
    from rsatoolbox.inference.noise_ceiling import boot_noise_ceiling
    from rsatoolbox.rdm import RDMs, compare

    data = rdms(5, 12, ties=ties)
    expected = compare(RDMs(data[:1]), RDMs(data[1:]), METHODS[method])[0]
    assert 0 < expected.min() < expected.max() < 1
    assert [compare_rdms(data[0], other, method) for other in data[1:]] == pytest.approx(expected, abs=1e-12)
    assert noise_ceiling(data, method) == pytest.approx(boot_noise_ceiling(RDMs(data), METHODS[method]), abs=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_samples_with_replacement_are_compared_as_by_rsatoolbox(method):
    """Which marks pairs of a picture with itself as NaN, and leaves them out."""
    from rsatoolbox.rdm import RDMs, compare

    pictures = np.sort(np.random.default_rng(2).integers(0, 12, 12))
    again = (pictures[:, None] == pictures) & ~np.eye(12, dtype=bool)
    assert again.any()
    a, b = (rdm[np.ix_(pictures, pictures)] for rdm in rdms(2, 12))
    expected = compare(*(RDMs(np.where(again, np.nan, rdm)[None]) for rdm in (a, b)), METHODS[method])
    assert compare_rdms(a, b, method, pictures=pictures) == pytest.approx(expected.item(), abs=1e-12)


@pytest.mark.parametrize("distance", ["correlation", "euclidean"])
def test_distances_are_those_of_rsatoolbox(distance):
    from rsatoolbox.data import Dataset
    from rsatoolbox.rdm import calc_rdm

    rows = np.random.default_rng(0).normal(size=(9, 50)) + 100
    expected = calc_rdm(Dataset(rows), method=distance).get_matrices()[0]
    assert np.allclose(distances(rows, distance, columns=7), expected, rtol=1e-6)


def test_cosine_distances():
    rows = np.random.default_rng(0).normal(size=(9, 50)) + 1
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    expected = 1 - unit @ unit.T
    np.fill_diagonal(expected, 0)
    assert np.allclose(distances(rows, "cosine", columns=7), expected, atol=1e-7)


def test_unbiased_cka_is_that_of_its_definition():
    """Song et al. (2012), equation 5, written out."""

    def hsic(k, m):
        n, one = len(k), np.ones(len(k))
        k, m = (x - np.diag(np.diag(x)) for x in (k, m))
        total = np.trace(k @ m) + (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
        return (total - 2 / (n - 2) * (one @ k @ m @ one)) / (n * (n - 3))

    generator = np.random.default_rng(0)
    x = generator.normal(size=(20, 30)) + 5
    y = x[:, :10] @ generator.normal(size=(10, 25)) + generator.normal(size=(20, 25))
    k, m = x @ x.T, y @ y.T
    expected = hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m))
    _, matrix = linear_cka({"x": [x[:9], x[9:]], "y": [y[:9], y[9:]]}, unbiased=True)
    assert matrix == pytest.approx(np.array([[1, expected], [expected, 1]]), abs=1e-9)
    noise = {name: [generator.normal(size=(20, 500))] for name in "ab"}
    assert linear_cka(noise)[1][0, 1] > 0.9
    assert abs(linear_cka(noise, unbiased=True)[1][0, 1]) < 0.2
    assert np.isnan(linear_cka({"x": [x[:3]], "y": [y[:3]]}, unbiased=True)[1][0, 1])


def test_inference_tells_a_model_from_noise():
    truth, other = rdms(2, 20, seed=1)
    subjects = np.stack([truth + noise for noise in rdms(3, 20, seed=3)])
    found = explain_rdms({"right": truth, "wrong": other[::-1, ::-1]}, subjects, bootstrap=100, permutations=100)
    right, wrong = found.scores
    assert right.similarity.value == pytest.approx(np.mean([compare_rdms(truth, each) for each in subjects]))
    assert right.similarity.low < right.similarity.value < right.similarity.high
    assert right.p == pytest.approx(1 / 101)
    assert right.similarity.value > wrong.similarity.value
    assert found.ceiling[0] < found.ceiling[1]
    assert explain_rdms({"right": truth}, subjects, bootstrap=50, permutations=20, seed=1) == explain_rdms(
        {"right": truth}, subjects, bootstrap=50, permutations=20, seed=1
    )


def test_p_values_of_unrelated_rdms_are_uniform():
    found = [
        explain_rdms({"a": rdms(1, 8, seed=2 * n)[0] * 1.0}, rdms_of_noise(n), bootstrap=0, permutations=99).scores[0].p
        for n in range(60)
    ]
    assert 0.35 < np.mean(found) < 0.65
    assert np.isnan(explain_rdms({"a": rdms(1, 8)[0]}, rdms_of_noise(1), bootstrap=0).scores[0].similarity.low)


def rdms_of_noise(seed):
    points = np.random.default_rng(1000 + seed).normal(size=(8, 4))
    return ((points[:, None] - points) ** 2).sum(2)


@pytest.fixture
def dump(pictures, tmp_path):
    return vggfeat.dump(pictures, tmp_path / "out", **QUICK, reduce="mean,relu1_1:center", shard_size=4)


def test_the_layers_of_a_dump(dump, tmp_path):
    names, matrix = similarities(dump, reductions=["mean"], method="tau-a")
    one, two = (dump.rdm(layer, "mean")[1] for layer in dump.layers)
    assert names == ["relu1_1.mean", "relu2_1.mean"]
    between = compare_rdms(one, two, "tau-a")
    assert matrix == pytest.approx(np.array([[1, between], [between, 1]]))
    chosen = [dump.ids[place] for place in (5, 2, 7, 0)]
    (tmp_path / "ids.txt").write_text("\n".join(chosen) + "\n")
    np.save(tmp_path / "rdm.npy", two[np.ix_([5, 2, 7, 0], [5, 2, 7, 0])])
    options = {"layers": ["relu2_1"], "bootstrap": 5, "permutations": 5}
    found = explain(dump, tmp_path / "rdm.npy", ids=tmp_path / "ids.txt", **options)
    assert found.scores[0].similarity.value == 1
    assert found.pictures == 4
    assert explain(dump, two[np.ix_([5, 2, 7, 0], [5, 2, 7, 0])], ids=chosen, **options) == found


def test_what_does_not_fit_is_told(dump, tmp_path):
    two = dump.rdm("relu2_1", "mean")[1]
    (tmp_path / "text.npy").write_text("no array")
    (tmp_path / "text.csv").write_text("a,b\n1,2\n")
    for reference, options, message in (
        (two[:4, :4], {}, r"the reference is \(4, 4\), and the dump has 11 pictures"),
        (two[:4, :4], {"ids": ["000.png", "x.png"]}, "the dump has no picture 'x.png'"),
        (two[:2, :2], {"ids": ["000.png", "000.png"]}, "the ids name a picture twice"),
        (np.where(two > 0, two, np.nan), {}, None),
        (two + np.triu(two), {}, "the data is not symmetric"),
        (two * np.nan, {}, "the data holds infinite or NaN values"),
        (two, {"method": "kendall"}, "unknown method 'kendall'"),
        (two, {"bootstrap": -1}, "bootstrap is -1"),
        (tmp_path / "no.npy", {}, "cannot read '.*no.npy': no such file"),
        (tmp_path / "text.npy", {}, "cannot read '.*text.npy' as RDMs, .npy or .csv: "),
        (tmp_path / "text.csv", {}, "cannot read '.*text.csv' as RDMs, .npy or .csv: "),
    ):
        few = {"bootstrap": 2, "permutations": 2, **options}
        if message is None:
            explain(dump, reference, **few)  # the diagonal does not count
            continue
        with pytest.raises(InputError, match=message):
            explain(dump, reference, **few)
    with pytest.raises(RecipeError, match="no layer 'relu9_9' in the dump"):
        explain(dump, two, layers=["relu9_9"])
    with pytest.raises(InputError, match="unknown distance 'manhattan'"):
        dump.rdm("relu1_1", "mean", distance="manhattan")
