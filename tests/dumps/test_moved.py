"""Sources that lie elsewhere than when their dump was begun."""

import shutil

import pytest

import vggfeat
from vggfeat.dumps.errors import StoreError
from vggfeat.dumps.inputs import DumpInputs
from vggfeat.dumps.run import Dumping
from vggfeat.dumps.sources import Move
from vggfeat.dumps.verify import verify
from vggfeat.errors import InputError

from .conftest import QUICK, hashes

OPTIONS = QUICK | {"layers": "relu1_1", "reduce": "mean", "shard_size": 2, "batch_size": 2}


def begun(source, out):
    """Begin a dump and leave it after some shards."""
    run = Dumping(source, out, **OPTIONS)
    next(iter(run))
    iter(run).close()


def without_run(out):
    return {name: digest for name, digest in hashes(out).items() if name != "run.json"}


def test_a_moved_folder_goes_on(pictures, tmp_path):
    whole = vggfeat.dump(pictures, tmp_path / "whole", **OPTIONS)
    begun(pictures, tmp_path / "out")
    new = tmp_path / "elsewhere/photos"
    new.parent.mkdir()
    pictures.rename(new)
    place = rf"'{pictures}/000.png' is '{new}/000.png' now; if its folder has moved, name the folder with root"
    with pytest.raises(StoreError, match=place):
        vggfeat.dump(new, tmp_path / "out", **OPTIONS)
    run = Dumping(new, tmp_path / "out", **OPTIONS, root=new)
    assert str(run.moved) == f"'{pictures}' is '{new}' now"
    dump = run.result()
    assert without_run(tmp_path / "out") == without_run(whole.path)
    assert dump.moved == Move(str(pictures), str(new))
    assert verify(dump.path) == []
    assert DumpInputs(dump)["001.jpg"].shape == (1, 3, 32, 32)
    vggfeat.dump(new, tmp_path / "out", **OPTIONS)  # the move is recorded
    last = tmp_path / "pictures2"
    new.rename(last)
    assert vggfeat.dump(last, tmp_path / "out", **OPTIONS, root=last).moved == Move(str(pictures), str(last))
    last.rename(pictures)
    assert vggfeat.dump(pictures, tmp_path / "out", **OPTIONS).moved is None
    assert hashes(tmp_path / "out") == hashes(whole.path)


def test_several_sources_move_together(pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "data"
    data.mkdir()
    shutil.make_archive(str(data / "set"), "zip", pictures)
    begun([data / "set.zip", pictures], tmp_path / "out")
    new = data.rename(tmp_path / "new")
    pictures.rename(new / "pictures")
    with pytest.raises(InputError, match=r"is not in the root '.*pictures'"):
        vggfeat.dump([new / "set.zip", new / "pictures"], tmp_path / "out", **OPTIONS, root="pictures")
    # The archive was in data/ and the pictures beside it: there is no folder that moved as a whole.
    with pytest.raises(StoreError, match="was begun with"):
        vggfeat.dump([new / "set.zip", new / "pictures"], tmp_path / "out", **OPTIONS, root="new")


def test_a_table_and_an_archive_in_one_folder_move(pictures, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    shutil.make_archive(str(data / "set"), "zip", pictures)
    pictures.rename(data / "photos")
    (data / "table.csv").write_text("path,label\nphotos/002.png,5\n")
    whole = vggfeat.dump([data / "set.zip", data / "table.csv"], tmp_path / "whole", **OPTIONS)
    assert whole.column("label") == (*("",) * 11, "5")
    begun([data / "set.zip", data / "table.csv"], tmp_path / "out")
    new = data.rename(tmp_path / "new")
    vggfeat.dump([new / "set.zip", new / "table.csv"], tmp_path / "out", **OPTIONS, root=new)
    assert without_run(tmp_path / "out") == without_run(whole.path)
    assert verify(tmp_path / "out") == []


def test_other_pictures_are_refused(pictures, tmp_path):
    vggfeat.dump(pictures, tmp_path / "out", **OPTIONS)
    (tmp_path / "other").mkdir()
    shutil.copy(pictures / "001.jpg", tmp_path / "other/001.jpg")
    with pytest.raises(InputError, match=r"the dump begins with '.*/000.png', and the sources in '.*' with '001.jpg'"):
        vggfeat.dump(tmp_path / "other", tmp_path / "out", **OPTIONS, root=tmp_path / "other")
    shutil.copy(pictures / "000.png", tmp_path / "other/000.png")
    with pytest.raises(StoreError, match=r"inputs\.count 11, not 2; other pictures \('002.png' is missing"):
        vggfeat.dump(tmp_path / "other", tmp_path / "out", **OPTIONS, root=tmp_path / "other")
    with pytest.raises(InputError, match="root is for a dump whose sources have moved: nothing of"):
        vggfeat.dump(pictures, tmp_path / "new", **OPTIONS, root=pictures)
    assert not (tmp_path / "new").exists()
