import pickle

import numpy as np
import pytest
from torch.utils.data import DataLoader

import vggfeat
from vggfeat.errors import VggfeatError

from .conftest import QUICK, make_pictures


@pytest.fixture(scope="module")
def dump(tmp_path_factory):
    pictures = make_pictures(tmp_path_factory.mktemp("pictures"), 11)
    (pictures / "005.jpg").write_text("no picture")
    return vggfeat.dump(
        pictures, tmp_path_factory.mktemp("out"), **QUICK, reduce="full,relu1_1:mean", shard_size=4, batch_size=3
    )


@pytest.mark.parametrize(
    "index",
    [
        0,
        -1,
        slice(None),
        slice(1, 3),
        slice(2, 9),
        slice(None, None, -1),
        slice(0, 10, 3),
        slice(4, 4),
        [7, 0, 7],
        np.array([True, False] * 5),
        (slice(1, 8), 3),
        (2, slice(None), 0),
        (Ellipsis, 0),
        np.int64(3),
        ([0, 4], [1, 3]),
        (np.array([True, False] * 5), [1, 3, 5, 7, 9]),
        ([0, 4], slice(None), [1, 3]),
        (slice(1, 8), [1, 3], slice(None), [0, 1]),
        (slice(1, 8), [1, 3]),
        (0, slice(None), [1, 3]),
        (0, [1, 3], slice(None), [0, 1]),
        ([0, 4], 1, slice(None), 1),
        (slice(1, 8), 1, slice(None), [0, 1]),
        np.array([[0, 4], [7, 1]]),
        (np.array([[0], [7]]), [1, 3]),
        ([], [1]),
        True,
        False,
        (True, 3),
        (slice(1, 8), None, 3),
        (2, True),
        (slice(2, 9), np.ones(64, bool), 0),
        (None, 2),
    ],
    ids=str,
)
def test_indexing_is_that_of_numpy(index, dump):
    array = dump["relu1_1", "full"]
    whole = np.concatenate([np.load(path) for path in sorted(dump.path.glob("relu1_1.full/*.npy"))])
    assert array.shape == whole.shape == (10, 64, 32, 32)
    assert np.array_equal(array[index], whole[index])


def test_a_mask_of_all_axes_is_that_of_numpy(dump):
    array = dump["relu1_1", "full"]
    whole = array.to_numpy()
    assert np.array_equal(array[whole > 0.5], whole[whole > 0.5])


@pytest.mark.parametrize("index", [[0, 10], ([0, 1], [0, 1, 2]), np.ones(9, bool), (0, 64), 1.5, ([0], [64])], ids=str)
def test_what_numpy_refuses_is_refused(index, dump):
    array = dump["relu1_1", "full"]
    with pytest.raises(IndexError):
        array.to_numpy()[index]
    with pytest.raises(IndexError):
        array[index]


def test_what_is_in_a_dump(dump):
    with pytest.raises(TypeError, match="a dump is not iterable: iterate over its outputs"):
        list(dump)
    assert "relu2_1" in dump
    assert ("relu1_1", "mean") in dump
    assert "relu1_1" not in dump
    assert 3 not in dump


def test_all_of_it_is_in_memory_once(dump, monkeypatch):
    array = dump["relu1_1", "full"]
    made = []
    whole = np.concatenate
    monkeypatch.setattr(np, "concatenate", lambda *x, **y: made.append(whole(*x, **y)) or made[-1])
    assert array.to_numpy() is made[-1]


def test_names(dump):
    assert dump.outputs == (("relu1_1", "full"), ("relu1_1", "mean"), ("relu2_1", "full"))
    assert dump["relu2_1"].reduction == "full"
    assert dump["relu1_1.mean"].shape == (10, 64)
    with pytest.raises(KeyError, match=r"no array 'relu1_1' in the dump: near are relu1_1"):
        dump["relu1_1"]
    assert repr(dump).endswith("10 of 11 pictures, relu1_1.full, relu1_1.mean, relu2_1.full)")
    assert repr(dump["relu2_1"]) == "FeatureArray(relu2_1.full, 10x128x16x16, float32)"


def test_an_index_out_of_range(dump):
    with pytest.raises(IndexError):
        dump["relu2_1"][10]


def test_what_lies_in_one_shard_is_not_copied(dump):
    view = dump["relu2_1"][1:3]
    assert isinstance(view.base, np.memmap | np.ndarray)
    assert not view.flags.writeable
    assert dump["relu2_1"].to_numpy().flags.writeable


def test_batches_and_dataset(dump):
    array = dump["relu1_1.mean"]
    parts = list(array.batches(4))
    assert sum((ids for ids, _ in parts), ()) == dump.ids
    assert np.array_equal(np.concatenate([x for _, x in parts]), array.to_numpy())
    loader = DataLoader(array.dataset(), batch_size=4, num_workers=0)
    features, ids = zip(*loader, strict=True)
    assert [name for part in ids for name in part] == list(dump.ids)
    assert np.array_equal(np.concatenate(features), array.to_numpy())
    assert np.array_equal(pickle.loads(pickle.dumps(array))[3], array[3])  # noqa: S301 (ours)


def test_what_is_no_dump_is_said(tmp_path):
    with pytest.raises(VggfeatError, match=r"is not a dump: it has no run\.json"):
        vggfeat.open_dump(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(VggfeatError, match="cannot read"):
        vggfeat.open_dump(tmp_path)
    (tmp_path / "run.json").write_text('{"format": 99}')
    with pytest.raises(VggfeatError, match="has the format 99, not 1"):
        vggfeat.open_dump(tmp_path)
