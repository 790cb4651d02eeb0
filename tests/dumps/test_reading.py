import mmap
import pickle
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import torch
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


def test_the_whole_array_is_in_memory_once(dump):
    array = dump["relu1_1", "full"]
    array.to_numpy()
    tracemalloc.start()
    size = array.to_numpy().nbytes
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert size <= peak < 1.1 * size


def test_names(dump):
    assert dump.outputs == (("relu1_1", "full"), ("relu1_1", "mean"), ("relu2_1", "full"))
    assert dump["relu2_1"].reduction == "full"
    assert dump["relu1_1.mean"].shape == (10, 64)
    with pytest.raises(KeyError, match=r"no array 'relu1_1' in the dump: did you mean relu1_1"):
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


def test_reading_needs_no_torch(dump):
    code = f"""
import sys
sys.modules["torch"] = None  # importing it raises ImportError
import numpy, vggfeat
dump = vggfeat.open_dump({str(dump.path)!r})
assert len(dump.ids) == 10 and dump.failed[0].id == "005.jpg"
assert dump["relu1_1.mean"][[7, 0]].shape == (2, 64)
assert numpy.asarray(dump["relu1_1.full"]).shape == (10, 64, 32, 32)
assert dump.rdm("relu1_1", "mean")[1].shape == (10, 10)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_torch_takes_an_array_without_a_warning(dump):
    array = dump["relu1_1.mean"]
    for made in (torch.as_tensor(array), torch.from_dlpack(array)):
        assert torch.equal(made, torch.tensor(array.to_numpy()))
        made.zero_()  # its memory is its own
    assert array.to_numpy().any()


def count_mappings(monkeypatch):
    maps, map_ = [], mmap.mmap
    monkeypatch.setattr(mmap, "mmap", lambda *given, **options: maps.append(given) or map_(*given, **options))
    return maps


def test_random_rows_are_read_file_by_file(dump, monkeypatch):
    whole = dump["relu1_1.mean"].to_numpy()
    again = vggfeat.open_dump(dump.path)
    again.files.most = 1
    array = again["relu1_1.mean"]
    maps = count_mappings(monkeypatch)
    places = np.random.default_rng(0).integers(0, 10, 1000)
    assert np.array_equal(array[places], whole[places])
    assert len(maps) == 3 + 1  # three shards, and the first one for the shape


def test_single_rows_open_each_file_once(dump, monkeypatch):
    maps = count_mappings(monkeypatch)
    array = vggfeat.open_dump(dump.path)["relu1_1.mean"]
    for place in np.random.default_rng(0).integers(0, 10, 100):
        assert array[int(place)].shape == array[place].shape == (64,)
    assert len(maps) == 3


def test_shuffled_batches_are_the_rows(dump):
    loader = DataLoader(dump["relu1_1.mean"].dataset(), batch_size=4, shuffle=True)
    ids = []
    for features, names in loader:
        ids += names
        expected = dump["relu1_1.mean"][[dump.ids.index(name) for name in names]]
        assert np.array_equal(features, expected)
    assert sorted(ids) == sorted(dump.ids)


def test_pictures_of_many_sizes_are_shuffled_one_by_one(tmp_path):
    options = QUICK | {"resize": None}
    array = vggfeat.dump(make_pictures(tmp_path / "in", 7), tmp_path / "out", **options, reduce="full")["relu1_1"]
    found = dict(reversed(pair) for pair in DataLoader(array.dataset(), batch_size=None, shuffle=True))
    assert all(np.array_equal(found[name], array[place]) for place, name in enumerate(array.ids))
    chosen = array.dataset().__getitems__([4, 0])
    assert [name for _, name in chosen] == [array.ids[4], array.ids[0]]


@pytest.mark.parametrize("damage", ["cut", "header", "fewer"])
def test_a_damaged_array_is_said(damage, tmp_path):
    dump = vggfeat.dump(make_pictures(tmp_path / "in", 5), tmp_path / "out", **QUICK, reduce="mean")
    path = dump.path / "relu1_1.mean" / "000000.npy"
    content = path.read_bytes()
    if damage == "fewer":
        np.save(path, np.load(path)[:4])
    else:
        path.write_bytes(content[:-1] if damage == "cut" else b"x" + content[1:])
    array = vggfeat.open_dump(dump.path)["relu1_1"]
    reason = "has fewer rows than the manifest says" if damage == "fewer" else "cannot read"
    for index in (0, slice(None), [3, 1]):
        with pytest.raises(vggfeat.VggfeatError, match=rf"000000\.npy.*{reason}|{reason}.*000000\.npy"):
            array[index]


def test_what_is_no_dump_is_said(tmp_path):
    with pytest.raises(VggfeatError, match=r"is not a dump: it has no run\.json"):
        vggfeat.open_dump(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(VggfeatError, match="cannot read"):
        vggfeat.open_dump(tmp_path)
    (tmp_path / "run.json").write_text('{"format": 99}')
    with pytest.raises(VggfeatError, match="has the format 99, not 1"):
        vggfeat.open_dump(tmp_path)
