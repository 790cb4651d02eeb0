import numpy as np
import pytest
import torch

import vggfeat
from vggfeat.dumps.statistics import distances, linear_cka
from vggfeat.errors import VggfeatError

from .conftest import QUICK


@pytest.fixture
def dump(pictures, tmp_path):
    return vggfeat.dump(
        pictures,
        tmp_path / "out",
        **QUICK,
        reduce="full,mean",
        statistics=True,
        cka=True,
        rdm=7,
        shard_size=4,
        batch_size=3,
    )


def test_statistics_are_those_of_what_is_stored(dump):
    for layer, found in dump.statistics().items():
        x = np.asarray(dump[layer, "full"], np.float64)
        assert np.allclose(found.mean, x.mean((0, 2, 3)), rtol=1e-5, atol=1e-7)
        assert np.allclose(found.variance, x.var((0, 2, 3)), rtol=1e-4, atol=1e-8)
        assert np.array_equal(found.zeros, (x == 0).mean((0, 2, 3)))
        assert np.array_equal(found.max, x.max((0, 2, 3)))
        assert not found.beyond.any()
        assert found.pictures == len(x)
        peaks = x.max((2, 3))
        assert np.array_equal(found.top, -np.sort(-peaks, axis=0)[:8].T)
        for channel in np.flatnonzero(found.max > 0):
            best = [dump.ids.index(name) for name in found.top_ids[channel]]
            assert np.array_equal(peaks[best, channel], found.top[channel])


def test_statistics_of_sizes_that_differ(pictures, tmp_path):
    dump = vggfeat.dump(pictures, tmp_path / "out", **QUICK | {"resize": None}, statistics=True, shard_size=4)
    found = dump.statistics()["relu2_1"]
    x = np.concatenate([row.reshape(128, -1) for row in dump["relu2_1"]], axis=1).astype(np.float64)
    assert np.allclose(found.mean, x.mean(1), rtol=1e-5, atol=1e-7)
    assert np.allclose(found.variance, x.var(1), rtol=1e-4, atol=1e-8)
    assert np.allclose(found.zeros, (x == 0).mean(1))


def test_cka(dump):
    layers, matrix = dump.cka()
    assert layers == ["relu1_1", "relu2_1"]
    x, y = (np.asarray(dump[layer, "mean"], np.float64) for layer in layers)
    n = len(x)
    centre = np.eye(n) - 1 / n
    k, m = (centre @ z @ z.T @ centre for z in (x, y))
    expected = (k * m).sum() / np.sqrt((k * k).sum() * (m * m).sum())
    assert np.allclose(matrix, [[1, expected], [expected, 1]], atol=1e-6)


def test_cka_knows_rotation_and_scale():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(40, 6))
    q, _ = np.linalg.qr(generator.normal(size=(6, 6)))
    _, matrix = linear_cka({"a": [x[:9], x[9:]], "b": [x[:9] @ q * 3 + 5, x[9:] @ q * 3 + 5]})
    assert np.allclose(matrix, 1)


def test_rdm(dump):
    ids, matrix = dump.rdm("relu2_1")
    assert ids == dump.ids[:7]
    assert np.allclose(matrix, 1 - np.corrcoef(dump["relu2_1", "mean"][:7]), atol=1e-5)
    ids, matrix = dump.rdm("relu2_1", "full")
    assert ids == dump.ids
    assert np.allclose(matrix, 1 - np.corrcoef(np.asarray(dump["relu2_1", "full"]).reshape(11, -1)), atol=1e-5)


def test_distances_in_parts_are_the_same():
    rows = np.random.default_rng(0).normal(size=(5, 3, 40)) + 100
    expected = 1 - np.corrcoef(rows.reshape(5, -1))
    for columns in (1, 7, 120, 1000):
        assert np.allclose(distances(rows, columns=columns), expected, atol=1e-6)
    flat = distances(np.stack([np.ones(4), np.arange(4.0)]))
    assert np.array_equal(np.isnan(flat), [[False, True], [True, False]])


def test_statistics_alone(pictures, tmp_path):
    dump = vggfeat.dump(pictures, tmp_path / "out", **QUICK, reduce="none", statistics=True)
    assert sorted(path.name for path in dump.path.iterdir()) == ["manifest.csv", "receipts", "run.json"]
    assert dump.statistics()["relu1_1"].pictures == 11
    with pytest.raises(VggfeatError, match="nothing would be stored"):
        vggfeat.dump(pictures, tmp_path / "none", **QUICK, reduce="none")


def test_what_was_not_measured_is_said(pictures, tmp_path):
    dump = vggfeat.dump(pictures, tmp_path / "out", **QUICK, reduce="mean")
    for ask in (dump.statistics, dump.cka, lambda: dump.rdm("relu1_1")):
        with pytest.raises(VggfeatError, match="dump with "):
            ask()


def test_a_shard_without_a_good_picture(pictures, tmp_path):
    for number, path in enumerate(sorted(pictures.iterdir())):
        if number < 4:
            path.write_text("no picture")
    dump = vggfeat.dump(
        pictures, tmp_path / "out", **QUICK, reduce="mean", statistics=True, cka=True, rdm=5, shard_size=4
    )
    assert dump.statistics()["relu1_1"].pictures == 7
    assert dump.rdm("relu1_1")[0] == dump.ids[:5]
    assert np.isfinite(dump.cka()[1]).all()
    assert torch.tensor(np.asarray(dump["relu1_1"])).shape == (7, 64)


def test_no_good_picture_at_all(pictures, tmp_path):
    for path in pictures.iterdir():
        path.write_text("no picture")
    dump = vggfeat.dump(pictures, tmp_path / "out", **QUICK, reduce="mean", statistics=True, cka=True, rdm=5)
    for ask in (dump.cka, lambda: dump.rdm("relu1_1"), lambda: dump.rdm("relu1_1", "mean")):
        with pytest.raises(VggfeatError, match="no picture could be read"):
            ask()
    assert dump.statistics() == {}


def test_a_layer_that_is_not_there(dump):
    for reduction in (None, "mean"):
        with pytest.raises(VggfeatError, match="unknown layer 'relu9_1' of the dump: did you mean relu"):
            dump.rdm("relu9_1", reduction)
