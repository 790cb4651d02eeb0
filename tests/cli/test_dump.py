import csv
import json
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vggfeat import open_dump

QUICK = ("--network", "vgg11", "--weights", "random", "--layers", "relu1_1,relu2_1", "--resize", 32, "--workers", 0,
         "--device", "cpu")  # fmt: skip


@pytest.fixture(autouse=True)
def pictures(tmp_path):
    """A folder `in` of nine pictures."""
    (tmp_path / "in").mkdir()
    generator = np.random.default_rng(0)
    for number in range(9):
        Image.fromarray(generator.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(tmp_path / f"in/{number}.png")


def test_dump(vggfeat):
    result = vggfeat("dump", "in", "-o", "out", *QUICK, "--reduce", "mean,relu2_1:full")
    assert result.stdout == "out: 9 of 9 pictures\n"
    assert result.stderr == ""
    dump = open_dump("out")
    assert dump["relu2_1", "full"].shape == (9, 128, 16, 16)
    with Path("out/manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [f"{number}.png" for number in range(9)]
    assert list(rows[0]) == ["id", "path", "sha256", "size", "status", "error", "shard", "offset", "height", "width"]
    assert vggfeat("dump", "in", "-o", "quiet", *QUICK, "--quiet").output == ""


def test_what_is_skipped_is_said_and_labels_are_kept(vggfeat):
    Path("in/notes.md").touch()
    Path("in/._4.png").touch()
    result = vggfeat("dump", "in", "-o", "out", *QUICK, "--reduce", "mean", "--exclude", "[5-8].png")
    skipped = "4 left out by --include and --exclude, 1 not a picture, 1 of macOS (._*, __MACOSX)"
    assert result.stderr == f"skipped: {skipped}\n"
    assert result.stdout == "out: 5 of 5 pictures\n"
    Path("labels.csv").write_text("photo,label\nin/3.png,cat\n")
    vggfeat("dump", "labels.csv", "-o", "labelled", *QUICK, "--reduce", "mean", "--column", "photo")
    assert open_dump("labelled").column("label") == ("cat",)


def test_bad_pictures_are_told_and_the_exit_code_tells(vggfeat):
    Path("in/4.png").write_text("no picture")
    result = vggfeat("dump", "in", "-o", "out", *QUICK, code=3)
    assert result.stdout == "out: 8 of 9 pictures\n"
    assert result.stderr.startswith("failed: '4.png': cannot read '")
    assert vggfeat("dump", "in", "-o", "out", *QUICK, code=3).stdout == result.stdout
    Image.new("RGB", (40, 40)).save("in/4.png")
    vggfeat("dump", "in", "-o", "out", *QUICK, "--retry-failed")


def test_a_shard_that_retrying_leaves_is_told(vggfeat):
    Path("in/4.png").write_text("no picture")
    vggfeat("dump", "in", "-o", "out", *QUICK, "--reduce", "mean", code=3)
    Image.new("RGB", (40, 40)).save("in/4.png")
    Path("in/5.png").write_bytes(b"")
    result = vggfeat("dump", "in", "-o", "out", *QUICK, "--reduce", "mean", "--retry-failed", code=3)
    assert result.stdout == "out: 8 of 9 pictures\n"
    assert result.stderr.startswith("shard 0 is left as it was, for '5.png', whose features it holds: cannot read '")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("in", *QUICK, "--layers", "relu9_9"), "unknown layer 'relu9_9' of vgg11"),
        (("in", *QUICK, "--reduce", "median"), "unknown reduction 'median': did you mean"),
        (("in", *QUICK, "--reduce", "relu1_1:mean"), "relu2_1 has no reduction"),
        (("in", *QUICK, "--reduce", "relu3_1:mean,max"), "none of the layers: relu1_1, relu2_1"),
        (("in", *QUICK, "--crop", "64"), "crop is 64 and pictures are resized to 32"),
        (("in", *QUICK, "--layers", "pool5", "--resize", "16"), "too small for pool5 of vgg11"),
        (("in", *QUICK, "--resize", "big"), "neither"),
        (("nowhere", *QUICK), "no such source 'nowhere'"),
        (("in", *QUICK, "--batch-size", "some"), "'some' is neither a whole number nor auto"),
    ],
)
def test_refusals_are_one_line(arguments, message, vggfeat):
    stderr = vggfeat("dump", *arguments, "-o", "out", code=2).stderr
    assert message in stderr or (message == "neither" and "must be a number of pixels" in stderr)
    assert not Path("out").exists()


def test_dry_run(vggfeat):
    lines = vggfeat("dump", "in", "-o", "out", *QUICK, "--dry-run").stdout.splitlines()
    assert lines[0] == "pictures    9 of 9"
    assert lines[1] == f"disk        {9 * 4 * (64 * 32 * 32 + 128 * 16 * 16) / 1e6:.1f} MB"
    assert lines[2] == f"work        {9 * (64 * 27 * 32**2 + 128 * 64 * 9 * 16**2) / 1e9:.1f} GMAC"
    assert lines[3].startswith("time        about ")
    assert not Path("out").exists()


def test_asks_before_it_fills_a_disk(vggfeat):
    for number in range(3):
        Path(f"broken{number}.png").write_bytes(b"not a picture")  # so that --yes computes and writes nothing
    broken = [f"broken{number}.png" for number in range(3)]
    large = ["dump", *broken, "-o", "out", *QUICK, "--resize", 4096]
    message = vggfeat(*large, code=2).stderr
    size = 3 * 4 * (64 * 4096**2 + 128 * 2048**2)
    assert message == f"vggfeat: 'out' would take about {size / 1e9:.1f} GB: pass --yes to continue\n"
    assert not Path("out").exists()
    assert "failed: 'broken2.png'" in vggfeat(*large, "--yes", code=3).stderr


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ends_by_convention(number, code, spawn, tmp_path, vggfeat):
    arguments = ["dump", "in", "-o", "out", *QUICK, "--shard-size", 1, "--batch-size", 1]
    arguments[arguments.index("--resize") + 1] = 512
    process = spawn(*arguments)
    while not list(tmp_path.glob("out/receipts/*.json")):
        time.sleep(0.005)
        assert process.poll() is None
    process.send_signal(number)
    _, stderr = process.communicate()
    assert process.returncode == code, stderr
    assert stderr == "interrupted: finished shards are kept; run the same command to continue\n"
    assert not list((tmp_path / "out").rglob(".*"))
    vggfeat(*arguments)


def test_verify_tells_what_it_cannot_check(vggfeat):
    vggfeat("dump", "in", "-o", "out", *QUICK)
    source = Path("in/0.png")
    content = source.read_bytes()
    for break_ in (source.unlink, lambda: Image.new("RGB", (40, 40)).save(source)):
        break_()
        result = vggfeat("dump-verify", "out", "--device", "cpu", code=1)
        assert "8 pictures recomputed, 0 wrong, 1 could not be checked\n" in result.stdout
        assert result.stderr.startswith("not checked: '")
        assert "in/0.png': " in result.stderr
    source.write_bytes(content)
    vggfeat("dump-verify", "out", "--device", "cpu")


def test_verify(vggfeat):
    vggfeat("dump", "in", "-o", "out", *QUICK, "--shard-size", 4)
    result = vggfeat("dump-verify", "out", "--device", "cpu")
    assert result.stdout.startswith("6 files, 9 pictures recomputed, 0 wrong\nlargest difference: ")
    path = Path("out/relu2_1.full/000001.npy")
    data = bytearray(path.read_bytes())
    data[200:204] = b"\0\0\x80\x42"  # 64.0
    path.write_bytes(data)
    Image.new("RGB", (40, 40)).save("in/0.png")
    result = vggfeat("dump-verify", "out", "--device", "cpu", code=1)
    assert "6 files, 8 pictures recomputed, 2 wrong, 1 could not be checked" in result.stdout
    assert "wrong: 'relu2_1.full/000001.npy': its sha256 differs from its receipt's" in result.stderr
    assert "0.png': the file has changed since it was dumped" in result.stderr
    assert "4.png': relu2_1.full differs by " in result.stderr
    path.unlink()
    assert "wrong: 'shard 1': its receipt" in vggfeat("dump-verify", "out", "--rows", 0, code=1).stderr
    vggfeat("dump-verify", "in", code=2)


def test_stats(vggfeat):
    vggfeat("dump", "in", "-o", "out", *QUICK, "--reduce", "mean", "--statistics", "--cka")
    lines = vggfeat("dump-stats", "out").stdout.splitlines()
    assert lines[0].split()[:3] == ["layer", "channels", "pictures"]
    assert lines[1].split()[:3] == ["relu1_1", "64", "9"]
    assert lines[3].split() == ["linear", "CKA", "relu1_1", "relu2_1"]
    lines = vggfeat("dump-stats", "out", "--layer", "relu2_1").stdout.splitlines()
    assert len(lines) == 129
    content = json.loads(vggfeat("dump-stats", "out", "--json").stdout)
    assert len(content["layers"]["relu2_1"]["mean"]) == 128
    assert content["cka"]["layers"] == ["relu1_1", "relu2_1"]
    assert "did you mean" in vggfeat("dump-stats", "out", "--layer", "relu2_2", code=2).stderr
    vggfeat("dump", "in", "-o", "plain", *QUICK, "--reduce", "mean")
    assert "has no statistics" in vggfeat("dump-stats", "plain", code=2).stderr


def test_distances_between_pictures(vggfeat):
    vggfeat("dump", "in", "-o", "out", *QUICK, "--reduce", "none", "--rdm", 5)
    lines = vggfeat("dump-stats", "out").stdout.splitlines()
    assert lines[0].split() == ["RDM", "pictures", "mean", "distance", "min", "max"]
    _, matrix = open_dump("out").rdm("relu1_1")
    pairs = matrix[np.triu_indices(5, 1)]
    assert lines[1].split() == ["relu1_1", "5", *(f"{f(pairs):.4f}" for f in (np.mean, np.min, np.max))]
    assert len(vggfeat("dump-stats", "out", "--layer", "relu2_1").stdout.splitlines()) == 2
    content = json.loads(vggfeat("dump-stats", "out", "--json").stdout)["rdm"]
    assert content["pictures"] == [f"{number}.png" for number in range(5)]
    assert np.array_equal(np.array(content["values"]["relu1_1"], np.float32), matrix)
    vggfeat("dump-stats", "out", "--plot", "rdm.png")
    with Image.open("rdm.png") as image:
        assert image.width > 200


def test_what_excites_a_channel_is_told_with_its_value(vggfeat):
    vggfeat("dump", "in", "-o", "out", *QUICK, "--reduce", "none", "--statistics")
    layer = json.loads(vggfeat("dump-stats", "out", "--json").stdout)["layers"]["relu1_1"]
    assert [row[0] for row in layer["top_values"]] == layer["max"]
    assert [len(row) for row in layer["top_values"]] == [len(row) for row in layer["top"]]


def test_export(vggfeat):
    pytest.importorskip("h5py")
    vggfeat("dump", "in", "-o", "out", *QUICK, "--reduce", "mean,relu2_1:max")
    assert vggfeat("dump-export", "out", "-o", "features.csv", "--layer", "relu2*").stdout == "features.csv\n"
    with Path("features.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [f"{number}.png" for number in range(9)]
    assert [np.float32(row["relu2_1.max.5"]) for row in rows] == list(open_dump("out")["relu2_1.max"][:, 5])
    vggfeat("dump-export", "out", "--to", "h5", "-o", "x", "--reduce", "max")
    assert "'x' exists" in vggfeat("dump-export", "out", "--to", "h5", "-o", "x", code=2).stderr
    assert "does not name a format" in vggfeat("dump-export", "out", "-o", "y", code=2).stderr
    assert "is not a dump" in vggfeat("dump-export", "in", "-o", "y.csv", code=2).stderr


def test_a_moved_source_and_zarr_of_the_second_version(vggfeat):
    vggfeat("dump", "in", "-o", "out", *QUICK, "--reduce", "mean", "--interpolation", "nearest")
    here = Path.cwd()
    Path("in").rename("new")
    again = ("dump", "new", "-o", "out", *QUICK, "--reduce", "mean", "--interpolation", "nearest")
    assert "if its folder has moved, name the folder with root" in vggfeat(*again, code=2).stderr
    assert vggfeat(*again, "--root", "new").stderr == f"moved: '{here}/in' is '{here}/new' now\n"
    vggfeat("dump-export", "out", "-o", "a.zarr", "--zarr-format", 2)
    assert Path("a.zarr/.zgroup").exists()
    refused = vggfeat("dump-export", "out", "-o", "a.csv", "--zarr-format", 2, code=2).stderr
    assert "zarr_format (--zarr-format) is for zarr" in refused
