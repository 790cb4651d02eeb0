import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

import vggfeat
from vggfeat import ImageError, InputError, write_picture
from vggfeat.dumps.neighbours import nearest

from .conftest import QUICK

SKLEARN = {"cosine": "cosine", "l2": "euclidean"}
MANY = 12_500  # rows of 700 values, which are read in more than one block


@pytest.fixture(scope="module")
def rows():
    generator = np.random.default_rng(0)
    return np.maximum(generator.standard_normal((MANY, 700), np.float32), 0)


@pytest.mark.parametrize("metric", SKLEARN)
@pytest.mark.parametrize("columns", [5, 700])
def test_the_neighbours_are_those_of_scikit_learn(rows, metric, columns):
    x, queries = rows[:, :columns].astype(np.float64), rows[3::997, :columns].astype(np.float64) + 0.1
    oracle = NearestNeighbors(n_neighbors=7, metric=SKLEARN[metric], algorithm="brute").fit(x)
    distances, places = oracle.kneighbors(queries)
    found = nearest(x.astype(np.float32), queries, top=7, metric=metric)
    assert np.array_equal(np.stack(found.rows), places)
    assert np.allclose(np.stack(found.distances), distances, rtol=0, atol=1e-6)


@pytest.mark.parametrize("metric", SKLEARN)
def test_neighbours_that_float32_cannot_tell_apart_are_ranked_by_float64(metric):
    """A cloud of rows far from the origin, whose distances drown in the rounding of a float32 product."""
    generator = np.random.default_rng(1)
    x = 1000 + generator.standard_normal((MANY, 700), np.float32) * np.float32(1e-2)
    query = x[5].astype(np.float64)
    exact = x.astype(np.float64)
    if metric == "l2":
        distances = np.sqrt(((exact - query) ** 2).sum(1))
    else:
        distances = 1 - exact @ query / np.linalg.norm(exact, axis=1) / np.linalg.norm(query)
    found = nearest(x, query[None], top=20, metric=metric, exclude={0: 5})
    assert np.array_equal(found.rows[0], [row for row in np.argsort(distances) if row != 5][:20])


@pytest.mark.parametrize("metric", SKLEARN)
def test_rows_of_any_magnitude(metric):
    x = np.array([[0, 0], [1e-30, 2e-30], [3e38, 3e38], [3, 4], [np.nan, 1], [np.inf, 0], [-3e38, 3e38]], np.float32)
    found = nearest(x, np.array([[1.0, 1.0], [0, 0], [1e30, -1e30]]), top=9, metric=metric)
    assert found.left_out.tolist() == [4, 5]
    exact = x[[0, 1, 2, 3, 6]].astype(np.float64)
    for query, rows, distances in zip(
        np.array([[1, 1], [0, 0], [1e30, -1e30]]), found.rows, found.distances, strict=True
    ):
        norms = np.sqrt((exact**2).sum(1)) * np.sqrt((query**2).sum())
        cosine = 1 - np.divide(exact @ query, norms, out=np.zeros(5), where=norms > 0)
        expected = cosine if metric == "cosine" else np.sqrt(((exact - query) ** 2).sum(1))
        order = np.lexsort((range(5), np.clip(expected, 0, None)))
        assert distances == pytest.approx(np.clip(expected[order], 0, None), rel=1e-9, abs=1e-12)
        assert sorted(rows.tolist()) == [0, 1, 2, 3, 6]


def test_equal_rows_keep_their_order():
    x = np.ones((50, 3), np.float32)
    assert nearest(x, np.ones((1, 3)), top=4).rows[0].tolist() == [0, 1, 2, 3]
    assert nearest(x, np.ones((1, 3)), top=4, exclude={0: 1}).rows[0].tolist() == [0, 2, 3, 4]
    assert len(nearest(x, np.ones((1, 3)), top=99).rows[0]) == 50


@pytest.fixture
def dump(pictures, tmp_path):
    return vggfeat.dump(pictures, tmp_path / "out", **QUICK, reduce="mean,relu2_1:full", shard_size=4)


def test_ids_and_pictures_find_the_same(dump, pictures):
    for array in ("relu1_1.mean", "relu2_1.full"):
        name = dump.ids[3]
        by_id, by_file = dump.search([name, pictures / name], array, top=3, device="cpu")
        assert by_id.query == name
        assert by_id.row == 3
        assert by_file.row is None
        assert by_file.ids[0] == name
        assert by_file.distances[0] < 1e-6
        assert by_file.ids[1:] == by_id.ids[:2]
        x = np.asarray(dump[array], np.float64).reshape(len(dump), -1)
        expected = 1 - x @ x[3] / np.linalg.norm(x, axis=1) / np.linalg.norm(x[3])
        assert by_id.ids == tuple(dump.ids[row] for row in np.argsort(expected) if row != 3)[:3]
        assert by_id.distances == pytest.approx(np.sort(expected)[1:4], abs=1e-9)


def test_queries_that_do_not_work_are_told(dump, pictures, tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"name one array of the dump: it holds relu1_1.mean, relu2_1.mean"):
        dump.search("000.png")
    with pytest.raises(InputError, match=r"no array 'relu2_1.ful' in the dump: did you mean relu2_1.full"):
        dump.search("000.png", "relu2_1.ful")
    with pytest.raises(InputError, match=r"'0000.png' is neither an id of the dump nor a file; did you mean 000.png"):
        dump.search("0000.png", "relu1_1.mean")
    with pytest.raises(InputError, match="there is no query"):
        dump.search([], "relu1_1.mean")
    with pytest.raises(InputError, match="top is 0"):
        dump.search("000.png", "relu1_1.mean", top=0)
    with pytest.raises(InputError, match="unknown metric 'cosin': did you mean cosine"):
        dump.search("000.png", "relu1_1.mean", metric="cosin")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ImageError, match=r"text\.png"):
        dump.search(tmp_path / "text.png", "relu1_1.mean", device="cpu")
    monkeypatch.chdir(pictures)
    assert dump.search("000.png", "relu1_1.mean")[0].row == 0
    write_picture(pictures / "000.png", torch.zeros(1, 3, 40, 40))
    with pytest.raises(InputError, match=r"an id of the dump and the name of another file: './000.png' is the file"):
        dump.search("000.png", "relu1_1.mean")
    assert dump.search("./000.png", "relu1_1.mean", device="cpu")[0].row is None
