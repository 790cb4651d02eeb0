"""More pictures and further layers join a dump."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vggfeat
from vggfeat.dumps.errors import StoreError
from vggfeat.dumps.run import Dumping
from vggfeat.dumps.verify import verify
from vggfeat.errors import InputError, RecipeError

from .conftest import QUICK, hashes, make_pictures

ROOT = Path(vggfeat.__file__).parents[1]
OPTIONS = QUICK | {"shard_size": 4, "batch_size": 3, "reduce": "full,mean", "statistics": True, "cka": True}
ONE = OPTIONS | {"layers": "relu1_1"}


@pytest.fixture
def listed(pictures, tmp_path):
    """Writes a table of pictures, and returns it. The fifth of them cannot be read."""
    (pictures / "004.png").write_text("no picture")
    names = sorted(path.name for path in pictures.iterdir())

    def write(name, numbers):
        lines = [f"{names[number]},pictures/{names[number]},{number}" for number in numbers]
        (tmp_path / name).write_text("\n".join(["id,path,label", *lines, ""]))
        return tmp_path / name

    return write


def times(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.npy")}


@pytest.mark.parametrize("first", [6, 8, 3])
def test_pictures_that_are_appended_are_as_if_dumped_at_once(first, listed, tmp_path):
    whole = vggfeat.dump(listed("whole.csv", range(11)), tmp_path / "whole", **OPTIONS)
    out = tmp_path / "out"
    vggfeat.dump(listed("first.csv", range(first)), out, **OPTIONS)
    before = times(out)
    dump = vggfeat.dump(listed("rest.csv", range(first, 11)), out, **OPTIONS, append=True)
    assert hashes(out) == hashes(whole.path)
    assert dump.column("label") == tuple(str(number) for number in range(11) if number != 4)
    full = {path for path in before if int(path.stem[:6]) < first // 4}
    assert {path: before[path] for path in full} == {path: times(out)[path] for path in full}
    vggfeat.dump(tmp_path / "whole.csv", out, **OPTIONS, append=True)  # nothing is new
    vggfeat.dump(tmp_path / "whole.csv", out, **OPTIONS)
    assert hashes(out) == hashes(whole.path)


@pytest.mark.parametrize("resize", [32, None])
def test_layers_that_are_appended_are_as_if_dumped_at_once(resize, listed, tmp_path):
    options = OPTIONS | {"resize": resize, "dtype": "float16"}
    reduce = "mean,relu1_1:full,relu2_1:gram,relu2_1:proj8"
    whole = vggfeat.dump(listed("a.csv", range(11)), tmp_path / "whole", **options | {"reduce": reduce})
    out = tmp_path / "out"
    vggfeat.dump(tmp_path / "a.csv", out, **options | {"layers": "relu1_1", "reduce": "mean"})
    before = times(out)
    dump = vggfeat.dump(
        tmp_path / "a.csv", out, **options | {"layers": "relu2_1,relu1_1", "reduce": reduce}, append=True
    )
    assert hashes(out) == hashes(whole.path)
    assert before.items() <= times(out).items()
    assert dump.layers == ("relu1_1", "relu2_1")
    assert verify(out) == []


def test_both_join_at_once(listed, tmp_path):
    whole = vggfeat.dump(listed("whole.csv", range(11)), tmp_path / "whole", **OPTIONS)
    vggfeat.dump(listed("first.csv", range(6)), tmp_path / "out", **ONE)
    vggfeat.dump(tmp_path / "whole.csv", tmp_path / "out", **OPTIONS, append=True)
    assert hashes(tmp_path / "out") == hashes(whole.path)


def test_new_files_of_a_folder_come_last(pictures, tmp_path):
    late = pictures / "000.png"
    late.rename(tmp_path / "late.png")
    vggfeat.dump(pictures, tmp_path / "out", **ONE)
    (tmp_path / "late.png").rename(late)
    other = make_pictures(tmp_path / "other", 2)
    dump = vggfeat.dump(pictures, tmp_path / "out", **ONE, append=True)
    assert dump.ids[-1] == "000.png"
    dump = vggfeat.dump(other, tmp_path / "out", **ONE, append=True)
    assert dump.ids[-2:] == ("000.png#2", "001.jpg#2")
    assert verify(dump.path) == []
    fresh = vggfeat.dump(pictures, tmp_path / "fresh", **ONE, append=True)
    assert len(fresh) == 11


def test_archives_and_arrays_are_found_again(pictures, tmp_path):
    shutil.make_archive(str(tmp_path / "set"), "zip", pictures)
    shutil.make_archive(str(tmp_path / "set"), "tar", pictures)
    np.save(tmp_path / "a.npy", np.random.default_rng(0).integers(0, 256, (5, 40, 40, 3), dtype=np.uint8))
    for name in ("set.zip", "set.tar", "a.npy"):
        dump = vggfeat.dump(tmp_path / name, tmp_path / "out", **ONE, append=True)
    assert len(dump) == 27
    assert verify(dump.path) == []


def test_a_dump_can_be_read_while_it_grows_and_the_append_dropped(listed, tmp_path):
    first, whole = listed("first.csv", range(6)), listed("whole.csv", range(11))
    out = tmp_path / "out"
    dump = vggfeat.dump(first, out, **ONE)
    before, means, clipped = hashes(out), np.asarray(dump["relu1_1.mean"]), dump.clipped()
    run = Dumping(whole, out, **OPTIONS, append=True)
    next(iter(run))
    next(iter(run))
    iter(run).close()
    assert (out / "append.json").exists()
    found = vggfeat.open_dump(out)
    assert np.array_equal(found["relu1_1.mean"], means)
    assert (found.clipped(), len(found.statistics()), found.columns) == (clipped, 1, ("label",))
    assert verify(out) == []
    with pytest.raises(StoreError, match=r"another append to '.*' was interrupted"):
        vggfeat.dump(whole, out, **ONE, append=True)
    vggfeat.dump(first, out, **ONE)
    assert not (out / "append.json").exists()
    kept = {name: digest for name, digest in hashes(out).items() if not name.startswith("relu2_1")}
    same = {name for name in before if not name.startswith("receipts/")}  # some name arrays of relu2_1
    assert {name: kept[name] for name in same} == {name: before[name] for name in same}
    vggfeat.dump(whole, out, **OPTIONS, append=True)
    at_once = vggfeat.dump(whole, tmp_path / "whole", **OPTIONS)
    assert hashes(out) == hashes(at_once.path)


def test_appends_that_are_refused_change_nothing(listed, pictures, tmp_path):
    first, out = listed("first.csv", range(6)), tmp_path / "out"
    with pytest.raises(RecipeError, match="append goes with neither retry_failed nor root"):
        vggfeat.dump(first, out, **ONE, append=True, retry_failed=True)
    vggfeat.dump(first, out, **ONE)
    before = hashes(out)
    whole = listed("whole.csv", range(11))
    with pytest.raises(StoreError, match="dtype float32, not float16: only pictures and layers can be appended"):
        vggfeat.dump(whole, out, **ONE | {"dtype": "float16"}, append=True)
    with pytest.raises(StoreError, match=r"ask for the same, or name another folder, or append what is new"):
        vggfeat.dump(whole, out, **ONE)
    data = (pictures / "005.jpg").read_bytes()
    (pictures / "005.jpg").write_bytes((pictures / "006.png").read_bytes())
    with pytest.raises(StoreError, match=r"cannot fill the last shard, which holds '005.jpg': its file has changed"):
        vggfeat.dump(whole, out, **ONE, append=True)
    assert hashes(out) == before
    with pytest.raises(StoreError, match=r"cannot append to the features of '005.jpg': its file has changed"):
        vggfeat.dump(first, out, **OPTIONS, append=True)
    assert len(vggfeat.open_dump(out)) == 5
    (pictures / "005.jpg").write_bytes(data)
    vggfeat.dump(first, out, **OPTIONS, append=True)
    assert hashes(out) == hashes(vggfeat.dump(first, tmp_path / "both", **OPTIONS).path)


def test_pictures_too_small_for_a_layer_are_not_lost(pictures, tmp_path):
    Image.new("RGB", (24, 26)).save(pictures / "small.png")
    options = ONE | {"resize": None, "crop": None}
    vggfeat.dump(pictures, tmp_path / "out", **options)
    before = hashes(tmp_path / "out")
    with pytest.raises(InputError, match=r"'small.png' is 24x26, too small for pool5, which needs 32 pixels a side"):
        vggfeat.dump(pictures, tmp_path / "out", **options | {"layers": "pool5"}, append=True)
    assert hashes(tmp_path / "out") == before


def test_a_dump_that_is_not_complete_is_finished_first(pictures, tmp_path):
    run = Dumping(pictures, tmp_path / "out", **ONE, append=True)
    next(iter(run))
    iter(run).close()
    with pytest.raises(StoreError, match="is not complete: finish it with the command that began it first"):
        vggfeat.dump(pictures, tmp_path / "out", **OPTIONS, append=True)
    assert len(vggfeat.dump(pictures, tmp_path / "out", **ONE, append=True)) == 11


_KILLED = """
import sys
sys.path.insert(0, {root!r})
from vggfeat.dumps.run import Dumping
print("ready", flush=True)
Dumping({source!r}, {out!r}, append=True, **{options!r}).result()
"""


def _kill_and_resume(tmp_path, kills, seed):
    pictures = make_pictures(tmp_path / "pictures", 60)
    names = sorted(path.name for path in pictures.iterdir())
    for name, count in (("first", 21), ("whole", 60)):
        (tmp_path / f"{name}.txt").write_text("".join(f"pictures/{found} {found[:3]}\n" for found in names[:count]))
    options = OPTIONS | {"shard_size": 2, "batch_size": 2}
    expected = hashes(vggfeat.dump(tmp_path / "whole.txt", tmp_path / "whole", **options).path)
    out = tmp_path / "out"
    vggfeat.dump(tmp_path / "first.txt", out, **options | {"layers": "relu1_1"})
    old, rows = hashes(out), np.asarray(vggfeat.open_dump(out)["relu1_1.mean"])
    code = _KILLED.format(root=str(ROOT), source=str(tmp_path / "whole.txt"), out=str(out), options=options)
    generator, hit = np.random.default_rng(seed), 0
    for _ in range(kills):
        if hashes(out) == expected:
            shutil.rmtree(out)
            vggfeat.dump(tmp_path / "first.txt", out, **options | {"layers": "relu1_1"})
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=tmp_path) as process:
            try:
                process.stdout.readline()
                before = hashes(out)
                while process.poll() is None and not (out / "append.json").exists():
                    time.sleep(0.005)
                time.sleep(float(generator.exponential(0.4)))
            finally:
                process.kill()
        hit += hashes(out) not in (before, expected)
        if (out / "manifest.csv").exists() and hashes(out)["run.json"] == old["run.json"]:
            assert np.array_equal(vggfeat.open_dump(out)["relu1_1.mean"], rows)
    vggfeat.dump(tmp_path / "whole.txt", out, **options, append=True)
    assert hashes(out) == expected
    assert hit, "no kill hit the middle"


@pytest.mark.slow
def test_an_append_that_is_killed_goes_on(tmp_path):
    _kill_and_resume(tmp_path, 1, 0)


@pytest.mark.slow
def test_an_append_that_is_killed_many_times_goes_on(tmp_path):
    _kill_and_resume(tmp_path, 6, 1)
