"""A dump of any source, with any option, that was killed at random moments and resumed is the uninterrupted one."""

import json
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

import vggfeat

from .conftest import QUICK, hashes, make_pictures

ROOT = Path(vggfeat.__file__).parents[1]
OPTIONS = QUICK | {"shard_size": 2, "batch_size": 2, "reduce": "mean,relu2_1:full", "statistics": True, "rdm": 9}


def zipped(pictures, path):
    with zipfile.ZipFile(path.with_suffix(".zip"), "w") as archive:
        for file in sorted(pictures.iterdir()):
            archive.write(file, f"inside/{file.name}")
        archive.writestr("inside/notes.txt", "no picture")
    return path.with_suffix(".zip")


def parquet(pictures, path):
    arrow, tables = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    files = sorted(pictures.iterdir())
    images = [{"bytes": file.read_bytes(), "path": file.name} for file in files]
    labels = [number % 3 for number in range(len(files))]
    tables.write_table(arrow.table({"image": images, "label": labels}), path.with_suffix(".parquet"))
    return path.with_suffix(".parquet")


def array(_pictures, path):
    pictures = np.random.default_rng(0).integers(0, 256, (60, 40, 44, 3), dtype=np.uint8)
    np.save(path.with_suffix(".npy"), pictures)
    return path.with_suffix(".npy")


def lines(pictures, path):
    rows = ({"path": str(file), "label": file.name[:2]} for file in sorted(pictures.iterdir()))
    path.with_suffix(".jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path.with_suffix(".jsonl")


def folder(pictures, _path):
    return pictures


_RUN = """
import json, sys
sys.path.insert(0, {root!r})
from vggfeat.dumps.run import Dumping
source, out, options = json.loads(sys.stdin.readline())
print("ready", flush=True)
Dumping(source, out, **options).result()
"""


def kill_some_time(source, out, options, generator):
    """Start or continue a dump, and kill it a random moment after it has completed a shard."""
    code, count = _RUN.format(root=str(ROOT)), len(list(out.glob("receipts/*.json")))
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            process.stdin.write(json.dumps([str(source), str(out), options]) + "\n")
            process.stdin.flush()
            assert process.stdout.readline() == "ready\n"
            while process.poll() is None and len(list(out.glob("receipts/*.json"))) <= count:
                time.sleep(0.003)
            time.sleep(float(generator.exponential(0.03)))
        finally:
            process.kill()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "options"),
    [
        (zipped, {"interpolation": "bicubic"}),
        (parquet, {"manifest": "parquet"}),
        (array, {"interpolation": "nearest"}),
        (lines, {}),
        (folder, {"root": "moved"}),
        (zipped, {"append": True}),
        (array, {"append": True}),
    ],
)
def test_killed_three_times_is_the_same(make, options, tmp_path):
    pictures = make_pictures(tmp_path / "pictures", 60)
    source = make(pictures, tmp_path / "source")
    out, moved = tmp_path / "out", options.get("root") == "moved"
    options = OPTIONS | options
    root = options.pop("root", None)
    plain = {key: value for key, value in options.items() if key != "append"}
    expected = hashes(vggfeat.dump(source, tmp_path / "whole", **plain).path)
    generator, seen = np.random.default_rng(0), set()
    if options.get("append"):
        vggfeat.dump(source, out, **plain | {"layers": "relu2_1"})
    for number in range(3):
        if number == 1 and moved:
            source = pictures.rename(tmp_path / root)
            options |= {"root": str(source)}
        kill_some_time(source, out, options, generator)
        seen.add(len(list(out.glob("receipts/*.json"))))
    vggfeat.dump(source, out, **options)
    found = hashes(out)
    if moved:  # the run says where the sources are now
        assert found.pop("run.json") != expected.pop("run.json")
    assert found == expected
    assert options.get("append") or seen - {0, 30}, "no kill hit the middle"
