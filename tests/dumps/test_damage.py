"""Folders of dumps in which something is wrong, and names that are odd."""

import csv
import json
import shutil
from dataclasses import replace

import pytest

import vggfeat
from vggfeat.dumps.manifest import ManifestEntry, read_manifest
from vggfeat.dumps.receipts import Receipt
from vggfeat.dumps.run import Dumping
from vggfeat.dumps.sources import find
from vggfeat.dumps.store import Store
from vggfeat.errors import InputError, VggfeatError

from .conftest import QUICK, hashes

OPTIONS = QUICK | {"layers": "relu1_1", "reduce": "mean", "shard_size": 4}


def test_names_with_any_mark_are_read_back(pictures, tmp_path):
    names = ["a\rb.png", "a\nb.png", 'a"b.png', "a,b.png", " a.png"]
    for name in names:
        (pictures / name).write_bytes((pictures / "000.png").read_bytes())
    dump = vggfeat.dump(pictures, tmp_path / "out", **OPTIONS)
    assert set(names) <= set(dump.ids)
    dump.export(tmp_path / "a.csv", "csv")
    with (tmp_path / "a.csv").open(newline="") as file:
        assert tuple(row["id"] for row in csv.DictReader(file)) == dump.ids


@pytest.mark.parametrize("damage", ["cut", "cut at a line", "binary", "a word", "column gone"])
def test_a_damaged_manifest_is_told_and_the_same_command_mends_it(damage, pictures, tmp_path):
    dump = vggfeat.dump(pictures, tmp_path / "out", **OPTIONS)
    whole = hashes(dump.path)
    path = dump.path / "manifest.csv"
    data = path.read_bytes()
    match damage:
        case "cut":
            path.write_bytes(data[: len(data) // 2])
        case "cut at a line":
            path.write_bytes(b"".join(data.splitlines(keepends=True)[:-1]))
        case "binary":
            path.write_bytes(b"\xff\xfe" + data)
        case "a word":
            path.write_bytes(data.replace(b",0,0,32,32", b",zero,0,32,32", 1))
        case "column gone":
            path.write_bytes(data.replace(b"shard", b"chard", 1))
    with pytest.raises(VggfeatError, match=r"the manifest '.*' is damaged .* rewrites it from receipts/"):
        vggfeat.open_dump(dump.path)
    vggfeat.dump(pictures, dump.path, **OPTIONS)
    assert hashes(dump.path) == whole


def test_a_manifest_that_differs_from_the_receipts_is_written_again(pictures, tmp_path):
    dump = vggfeat.dump(pictures, tmp_path / "out", **OPTIONS)
    whole = hashes(dump.path)
    path = dump.path / "manifest.csv"
    head, first, second, *lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([head, second, first, *lines]))
    vggfeat.dump(pictures, dump.path, **OPTIONS)
    assert hashes(dump.path) == whole


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        '{"format":1}',
        '{"format":1,"fingerprint":{},"shards":3}',
        '{"format":1,"fingerprint":[],"shards":3}',
        '"text"',
    ],
)
def test_a_damaged_run_is_told(content, pictures, tmp_path):
    dump = vggfeat.dump(pictures, tmp_path / "out", **OPTIONS)
    (dump.path / "run.json").write_text(content)
    for ask in (lambda: vggfeat.open_dump(dump.path), lambda: vggfeat.dump(pictures, dump.path, **OPTIONS)):
        with pytest.raises(VggfeatError, match=r"run\.json' is damaged"):
            ask()


def test_a_number_of_shards_that_is_not_that_of_the_inputs_is_told(pictures, tmp_path):
    dump = vggfeat.dump(pictures, tmp_path / "out", **OPTIONS)
    content = json.loads((dump.path / "run.json").read_text())
    (dump.path / "run.json").write_text(json.dumps(content | {"shards": 2}))
    with pytest.raises(VggfeatError, match="11 inputs at 4 a shard do not make 2 shards"):
        vggfeat.open_dump(dump.path)


@pytest.mark.parametrize("change", [{"shard": "x"}, {"files": []}, {"clipped": []}, {"rows": [1]}, {"columns": {}}])
def test_a_receipt_of_another_kind_is_none(change, pictures, tmp_path):
    dump = vggfeat.dump(pictures, tmp_path / "out", **OPTIONS)
    path = dump.path / "receipts/000001.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert sorted(Store(dump.path).receipts()) == [0, 2]


def test_shards_beyond_a_million_are_kept(tmp_path):
    store = Store(tmp_path)
    files = [store.shard(number) for number in (100000, 1000000, 1000001)]
    for shard in files:
        shard.finish([ManifestEntry("a", "a", "", 0, "ok", "", shard.number, 0, 1, 1)], {})
    store.sweep([1000000])
    assert list(store.receipts()) == [1000000]


def test_a_folder_that_cannot_be_made_is_told(pictures, tmp_path):
    out = tmp_path / "out"
    run = Dumping(pictures, out, **OPTIONS)
    next(iter(run))
    iter(run).close()
    shutil.rmtree(out / "relu1_1.mean")
    (out / "relu1_1.mean").touch()
    with pytest.raises(VggfeatError, match=r"cannot write into '.*out': '.*relu1_1\.mean': file exists"):
        vggfeat.dump(pictures, out, **OPTIONS)


def test_what_a_run_left_that_was_killed_in_its_first_instant_is_no_obstacle(pictures, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / ".lock").touch()
    (out / ".run.json.tmp").write_text("{")
    assert len(vggfeat.dump(pictures, out, **OPTIONS)) == 11
    assert not list(out.glob(".*"))


def test_names_that_no_system_admits_are_told(pictures, tmp_path):
    with pytest.raises(InputError, match=r"cannot read 'x{300}': file name too long"):
        find("x" * 300)
    dump = vggfeat.dump(pictures, tmp_path / "out", **OPTIONS)
    with pytest.raises(VggfeatError, match=r"cannot write '.*x{300}\.json': file name too long"):
        dump.export(tmp_path / ("x" * 300), "csv")


def test_an_empty_source_is_not_the_folder_here(pictures, monkeypatch):
    monkeypatch.chdir(pictures)
    for source in ("", [""], ["000.png", ""]):
        with pytest.raises(InputError, match="a source is empty"):
            find(source)
    assert len(find(".")) == 11


@pytest.mark.parametrize("size", [0, -1])
def test_batches_of_nothing_are_refused(size, pictures, tmp_path):
    array = vggfeat.dump(pictures, tmp_path / "out", **OPTIONS)["relu1_1"]
    with pytest.raises(InputError, match=f"size is {size}: it must be a whole number of at least 1"):
        array.batches(size)


def test_finishing_holds_one_receipt_at_a_time(tmp_path, monkeypatch):
    store = Store(tmp_path)
    for number in range(20):
        store.shard(number).finish([ManifestEntry("a", "a", "", 0, "ok", "", number, 0, 1, 1)], {})
    alive: list[int] = []
    most = 0

    class Counted(Receipt):
        def __del__(self):
            alive.pop()

    def read(text):
        nonlocal most
        alive.append(1)
        most = max(most, len(alive))
        found = json.loads(text)
        return Counted(found["shard"], (ManifestEntry("a", "a", "", 0, "ok", "", found["shard"], 0, 1, 1),), {}, {})

    monkeypatch.setattr(Receipt, "from_json", read)
    store.write_manifest(20, "csv")
    assert most <= 2
    rows = read_manifest(tmp_path)
    assert [row.shard for row in rows] == list(range(20))
    assert rows[0] == replace(rows[1], shard=0)
