import errno
import os
import pickle
import subprocess
import sys
import tarfile
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vggfeat
from vggfeat import FeatureExtractor
from vggfeat.dumps import network
from vggfeat.dumps.engine import LocalEngine
from vggfeat.dumps.prepare import Preparation, side_of
from vggfeat.dumps.run import Dumping
from vggfeat.dumps.store import Store
from vggfeat.dumps.verify import verify
from vggfeat.errors import InputError, RecipeError, VggfeatError
from vggfeat.pictures import images

from .conftest import QUICK, hashes, make_pictures

ROOT = Path(vggfeat.__file__).parents[1]


def test_values_are_those_of_the_extractor(pictures, tmp_path):
    dump = vggfeat.dump(pictures, tmp_path / "out", **QUICK, reduce="full,mean,max", batch_size=4, shard_size=4)
    extract = FeatureExtractor("vgg11", "relu1_1,relu2_1", weights=None)
    rows = []
    for path in sorted(pictures.iterdir()):
        rgb = images.read_picture(path).rgb
        height, width = rgb.shape[2:]
        rgb = images.resize(rgb, 32, width * 32 // height)
        left = round((rgb.shape[3] - 32) / 2)
        rows.append(rgb[:, :, :, left : left + 32])
    found = [extract(torch.cat(rows[start : start + 4])) for start in range(0, 11, 4)]
    for layer in ("relu1_1", "relu2_1"):
        features = torch.cat([part[layer] for part in found])
        assert np.array_equal(dump[layer, "full"], features.numpy())
        assert np.allclose(dump[f"{layer}.mean"], features.mean((2, 3)).numpy(), rtol=1e-6, atol=1e-7)
        assert np.array_equal(dump[layer, "max"], features.amax((2, 3)).numpy())
    assert dump.ids == tuple(sorted(path.name for path in pictures.iterdir()))


def test_any_number_of_workers_writes_the_same(pictures, tmp_path):
    for workers in (0, 2):
        vggfeat.dump(pictures, tmp_path / str(workers), **QUICK | {"workers": workers}, reduce="mean", shard_size=3)
    assert hashes(tmp_path / "0") == hashes(tmp_path / "2")


def test_goes_on_where_it_was_left(pictures, tmp_path):
    options = QUICK | {"shard_size": 2, "batch_size": 2, "statistics": True}
    whole = vggfeat.dump(pictures, tmp_path / "whole", **options)
    run = Dumping(pictures, tmp_path / "parts", **options)
    for _ in range(3):
        next(iter(run))
    iter(run).close()
    assert not list((tmp_path / "parts").rglob(".*"))
    with pytest.raises(VggfeatError, match=r"is incomplete: [345] of 6 shards are done"):
        vggfeat.open_dump(tmp_path / "parts")
    done = len(vggfeat.open_dump(tmp_path / "parts", partial=True))
    assert done in {6, 8, 10}
    again = Dumping(pictures, tmp_path / "parts", **QUICK | {"statistics": True})  # sizes are those of the first run
    standing = list(again)
    assert [progress.done for progress in standing] == [*range(done, 11, 2), 11]
    assert hashes(tmp_path / "parts") == hashes(whole.path)


def test_a_complete_dump_is_left_alone(pictures, tmp_path):
    dump = vggfeat.dump(pictures, tmp_path / "out", **QUICK)
    before = {path: path.stat().st_mtime_ns for path in dump.path.rglob("*") if path.is_file()}
    vggfeat.dump(pictures, tmp_path / "out", **QUICK)
    assert {path: path.stat().st_mtime_ns for path in dump.path.rglob("*") if path.is_file()} == before


_KILLED = """
import sys
sys.path.insert(0, {tests!r})
import vggfeat
from vggfeat.dumps.run import Dumping
print("ready", flush=True)
options = dict(network="vgg11", layers="relu1_1", weights=None, resize=32, device="cpu", shard_size=2, batch_size=2)
Dumping({source!r}, {out!r}, workers={workers}, statistics=True, reduce="full,mean", **options).result()
"""


def _kill_and_resume(tmp_path: Path, kills: int, workers: int) -> None:
    source = make_pictures(tmp_path / "pictures", 60)
    options = QUICK | {"layers": "relu1_1", "shard_size": 2, "batch_size": 2}
    whole = vggfeat.dump(source, tmp_path / "whole", **options, statistics=True, reduce="full,mean")
    expected = hashes(whole.path)
    generator = np.random.default_rng(kills)
    seen = set()
    out = tmp_path / "out"
    for _ in range(kills):
        if (out / "manifest.csv").exists() and generator.random() < 0.7:
            # Begin again with some of it gone, so that there is something left to kill.
            for path in sorted(out.glob("receipts/*.json"))[int(generator.integers(0, 20)) :]:
                path.unlink()
        code = _KILLED.format(tests=str(ROOT), source=str(source), out=str(out), workers=workers)
        with _spawned(code, tmp_path) as process:
            process.stdout.readline()
            before = len(list(out.glob("receipts/*.json")))
            while process.poll() is None and len(list(out.glob("receipts/*.json"))) <= before:
                time.sleep(0.005)
            time.sleep(float(generator.exponential(0.05)))
        seen.add(len(list(out.glob("receipts/*.json"))))
        receipts = Store(out).receipts()
        for receipt in receipts.values():  # what has a receipt is whole
            for name, about in receipt.files.items():
                assert hashes_of(out / name) == about["sha256"]
    dump = vggfeat.dump(source, out, **QUICK | {"layers": "relu1_1"}, statistics=True, reduce="full,mean")
    assert hashes(out) == expected
    assert len(dump.manifest) == len({row.id for row in dump.manifest}) == 60
    assert seen - {0, 30}, "no kill hit the middle"


@contextmanager
def _spawned(code, folder):
    """A Python process, which is killed at the end, whatever happened."""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=folder) as process:
        try:
            yield process
        finally:
            process.kill()


def hashes_of(path: Path) -> str:
    return hashes(path.parent)[path.name]


def test_killed_and_resumed_is_the_same(tmp_path):
    _kill_and_resume(tmp_path, 1, 0)


@pytest.mark.slow
def test_killed_many_times_is_the_same(tmp_path):
    _kill_and_resume(tmp_path, 4, 2)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="needs /proc")
def test_a_killed_run_leaves_no_process(tmp_path):
    source = make_pictures(tmp_path / "pictures", 60)
    code = _KILLED.format(tests=str(ROOT), source=str(source), out=str(tmp_path / "out"), workers=2)
    with _spawned(code, tmp_path) as process:
        process.stdout.readline()
        children = set()
        while len(children) < 2:
            children = set(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())
            time.sleep(0.01)
    deadline = time.monotonic() + 120
    while any(_runs(child) for child in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(_runs(child) for child in children)


def _runs(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _break(folder: Path) -> dict[str, str]:
    """Every way a file can be broken: {name: a part of the reason}."""
    good = (folder / "001.jpg").read_bytes()
    png = (folder / "000.png").read_bytes()
    (folder / "empty.jpg").touch()
    (folder / "truncated.jpg").write_bytes(good[: len(good) // 2])
    (folder / "truncated.png").write_bytes(png[: len(png) // 2])
    (folder / "text.jpg").write_text("no picture")
    (folder / "nul.png").write_bytes(bytes(1000))
    (folder / "folder.jpg").mkdir()
    (folder / "dangling.jpg").symlink_to("nowhere.jpg")
    (folder / "pipe.png").unlink(missing_ok=True)
    os.mkfifo(folder / "pipe.png")
    (folder / "garbled.png").write_bytes(png[:60] + bytes(40) + png[100:])
    _bomb(folder / "bomb.png")
    Image.new("RGB", (1, 70000)).save(folder / "sliver.png")
    reasons = {
        "empty.jpg": "it is empty",
        "truncated.jpg": "truncated",
        "truncated.png": "truncated",
        "text.jpg": "not a picture",
        "nul.png": "not a picture",
        "folder.jpg": "it is a folder",
        "dangling.jpg": "no such file",
        "pipe.png": "not a regular file",
        "garbled.png": "",
        "bomb.png": "pixels, the limit is",
        "sliver.png": "would become",
    }
    if os.geteuid():
        (folder / "secret.png").write_bytes(png)
        (folder / "secret.png").chmod(0)
        reasons["secret.png"] = "permission denied"
    return reasons


def _bomb(path: Path) -> None:
    """A picture that says it is 60,000 x 60,000 and holds almost nothing."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )


def test_a_row_for_every_input_whatever_it_is(tmp_path):
    source = make_pictures(tmp_path / "pictures", 40)
    reasons = _break(source)
    Image.new("RGB", (1, 1), "red").save(source / "pixel.png")  # small, but a picture
    (source / "wrong.jpg").write_bytes((source / "000.png").read_bytes())  # Pillow looks at the content
    os.rename(source / "039.jpg", os.fsencode(source) + b"/caf\xe9.jpg")  # noqa: PTH104 (a name that is not UTF-8)
    for workers in (0, 1):
        options = QUICK | {"workers": workers}
        dump = vggfeat.dump(source, tmp_path / f"out{workers}", **options, shard_size=7, reduce="mean")
        assert len(dump.manifest) == len(list(source.iterdir())) == len({row.id for row in dump.manifest})
        failed = {row.id: row.error for row in dump.failed}
        assert set(failed) == set(reasons)
        for name, reason in reasons.items():
            assert reason in failed[name], name
        assert len(dump["relu2_1"]) == len(dump.ids) == 42
        assert {"pixel.png", "wrong.jpg", "caf\\xe9.jpg"} <= set(dump.ids)
        assert verify(dump.path, rows=100) == []
    assert hashes(tmp_path / "out0") == hashes(tmp_path / "out1")


def test_a_bad_picture_moves_no_other(pictures, tmp_path):
    one = vggfeat.dump(pictures, tmp_path / "one", **QUICK, reduce="full", shard_size=4, batch_size=1)
    (pictures / "002.png").write_text("no picture")
    two = vggfeat.dump(pictures, tmp_path / "two", **QUICK, reduce="full", shard_size=4, batch_size=1)
    kept = [name != "002.png" for name in one.ids]
    assert two.ids == tuple(name for name in one.ids if name != "002.png")
    assert np.array_equal(two["relu1_1"], np.asarray(one["relu1_1"])[kept])


def test_retrying_redoes_the_shards_whose_bad_pictures_changed(pictures, tmp_path):
    good = {name: (pictures / name).read_bytes() for name in ("001.jpg", "008.png")}
    whole = vggfeat.dump(pictures, tmp_path / "whole", **QUICK, reduce="full", shard_size=4, statistics=True)
    for name in good:
        (pictures / name).write_text("no picture")
    dump = vggfeat.dump(pictures, tmp_path / "out", **QUICK, reduce="full", shard_size=4, statistics=True)
    assert [row.id for row in dump.failed] == list(good)
    (pictures / "001.jpg").write_bytes(good["001.jpg"])
    assert len(vggfeat.dump(pictures, dump.path, **QUICK, reduce="full", statistics=True).failed) == 2
    third = dump.path / "receipts/000002.json"
    before = third.stat().st_mtime_ns
    dump = vggfeat.dump(pictures, dump.path, **QUICK, reduce="full", statistics=True, retry_failed=True)
    assert [row.id for row in dump.failed] == ["008.png"]
    assert third.stat().st_mtime_ns == before
    (pictures / "008.png").write_bytes(good["008.png"])
    dump = vggfeat.dump(pictures, dump.path, **QUICK, reduce="full", statistics=True, retry_failed=True)
    assert hashes(dump.path) == hashes(whole.path)


@pytest.mark.parametrize("resize", [32, None])
def test_retrying_loses_no_good_picture(resize, pictures, tmp_path):
    bad = pictures / "005.jpg"
    good = bad.read_bytes()
    bad.write_text("no picture")
    options = QUICK | {"resize": resize, "layers": "relu1_1", "reduce": "full", "shard_size": 8, "batch_size": 3}
    out = vggfeat.dump(pictures, tmp_path / "out", **options).path
    before = hashes(out)
    bad.write_bytes(good)
    gone = {name: (pictures / name).read_bytes() for name in ("001.jpg", "002.png")}
    for name in gone:
        (pictures / name).write_bytes(b"")
    with pytest.warns(UserWarning, match=r"shard 0 is left as it was, for '001\.jpg' \(and 1 more\)"):
        dump = vggfeat.dump(pictures, out, **options, retry_failed=True)
    assert len(dump) == 10
    assert hashes(out) == before
    for name, data in gone.items():
        (pictures / name).write_bytes(data)
    assert len(vggfeat.dump(pictures, out, **options, retry_failed=True)) == 11
    assert hashes(out) == hashes(vggfeat.dump(pictures, tmp_path / "whole", **options).path)


def test_a_shard_that_is_redone_and_gives_up_is_left_alone(pictures, tmp_path):
    bad = pictures / "005.jpg"
    good = bad.read_bytes()
    bad.write_text("no picture")
    options = QUICK | {"layers": "relu1_1", "reduce": "full", "shard_size": 4}
    out = vggfeat.dump(pictures, tmp_path / "out", **options).path
    bad.write_bytes(good)
    run = Dumping(pictures, out, **options, retry_failed=True)
    next(iter(run))
    iter(run).close()  # as a kill would
    assert len(vggfeat.dump(pictures, out, **options)) == 10


_BOMB = """
import os, sys
from vggfeat.pictures import images
whole = images.decode_picture
def decode(data, name="", **options):
    if name.endswith("003.jpg"):
        os.abort()
    return whole(data, name=name, **options)
images.decode_picture = decode
"""


@pytest.mark.parametrize("act", ["run", *(pytest.param(act, marks=pytest.mark.slow) for act in ("retry", "estimate"))])
def test_a_picture_that_ends_its_decoder_costs_a_row(act, pictures, tmp_path, monkeypatch):
    options = QUICK | {"layers": "relu1_1", "workers": None}
    if act == "retry":
        data = (pictures / "003.jpg").read_bytes()
        (pictures / "003.jpg").write_text("no picture")
        assert len(vggfeat.dump(pictures, tmp_path / "out", **options)) == 10
        (pictures / "003.jpg").write_bytes(data)
    start = subprocess.Popen

    def popen(command, **settings):
        path, serving = command[-1].split("; ", 2)[1:]
        return start([*command[:-1], f"import sys; {path}\n{_BOMB}\n{serving}"], **settings)

    monkeypatch.setattr("vggfeat.dumps.decoding.subprocess.Popen", popen)
    if act == "estimate":
        assert Dumping(pictures, tmp_path / "out", **options).estimate().left == 11
        return
    dump = vggfeat.dump(pictures, tmp_path / "out", **options, retry_failed=act == "retry")
    assert [row.id for row in dump.failed] == ["003.jpg"]
    assert "decoding it ended its process" in dump.failed[0].error


def test_what_is_not_finite_is_counted(pictures, tmp_path, monkeypatch):
    whole = network.FeatureExtractor.forward

    def forward(self, images):
        found = whole(self, images)
        found["relu2_1"][0, 0, 0, 0] = float("nan")
        found["relu2_1"][0, 0, 0, 1] = float("inf")
        return found

    monkeypatch.setattr(network.FeatureExtractor, "forward", forward)
    for dtype in ("float32", "float16"):
        dump = vggfeat.dump(pictures, tmp_path / dtype, **QUICK, dtype=dtype, batch_size=1, shard_size=4)
        assert dump.not_finite() == {"relu2_1.full": 22}
        assert verify(dump.path, device="cpu") == []
        assert np.isnan(dump["relu2_1"][:, 0, 0, 0]).all()


def test_float32_beyond_the_range_of_float16_is_checked(pictures, tmp_path):
    state = {key: value * 1e4 for key, value in vggfeat.weights.load("vgg11", None)[0].items()}
    torch.save(state, tmp_path / "loud.pth")
    dump = vggfeat.dump(pictures, tmp_path / "out", **QUICK | {"weights": tmp_path / "loud.pth"})
    assert float(np.asarray(dump["relu2_1"]).max()) > 65504
    assert verify(dump.path, device="cpu") == []


def test_weights_are_hashed_once(pictures, tmp_path, monkeypatch):
    calls = []
    whole = vggfeat.weights.load

    def counted(network, weights="default", **options):
        calls.extend([1] if weights is None else [])  # a mapping is what was loaded before
        return whole(network, weights, **options)

    monkeypatch.setattr("vggfeat.networks.weights.load", counted)
    run = Dumping(pictures, tmp_path / "out", **QUICK)
    run.bytes_left()
    run.result()
    assert len(calls) == 2  # for the fingerprint, and for the network


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": "float16"}, "dtype float32, not float16"),
        ({"layers": "relu1_1"}, "layers relu1_1,relu2_1, not relu1_1"),
        ({"reduce": "max"}, "reductions.relu1_1 mean, not max"),
        ({"seed": 1}, "seed 0, not 1"),
        ({"precision": "bfloat16"}, "precision float32, not bfloat16"),
        ({"resize": 33}, "resize 32, not 33"),
        ({"batch_size": 3}, "batch_size 16, not 3"),
        ({"shard_size": 3}, "shard_size 256, not 3"),
    ],
)
def test_another_dump_in_the_same_folder_is_refused(change, message, pictures, tmp_path):
    vggfeat.dump(pictures, tmp_path / "out", **QUICK, reduce="mean", batch_size=16, shard_size=256)
    with pytest.raises(VggfeatError, match="was begun with") as refusal:
        vggfeat.dump(pictures, tmp_path / "out", **QUICK | {"reduce": "mean"} | change)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_other_inputs_are_refused(pictures, tmp_path):
    vggfeat.dump(pictures, tmp_path / "out", **QUICK, reduce="mean")
    (pictures / "003.jpg").unlink()
    with pytest.raises(VggfeatError, match=r"inputs.count 11, not 10"):
        vggfeat.dump(pictures, tmp_path / "out", **QUICK, reduce="mean")


def test_a_folder_of_something_else_is_refused(pictures, tmp_path):
    with pytest.raises(VggfeatError, match=r"is not empty and not a dump: it holds 000\.png"):
        vggfeat.dump(pictures, pictures, **QUICK)
    with pytest.raises(VggfeatError, match="no such source"):
        vggfeat.dump(tmp_path / "pictuers", tmp_path / "out", **QUICK)
    with pytest.raises(RecipeError, match="batch_size is 0"):
        vggfeat.dump(pictures, tmp_path / "out", **QUICK, batch_size=0)
    assert not (tmp_path / "out").exists()


def test_two_runs_do_not_share_a_folder(pictures, tmp_path):
    run = Dumping(pictures, tmp_path / "out", **QUICK, shard_size=2)
    next(iter(run))
    with pytest.raises(VggfeatError, match=rf"another run \(process {os.getpid()}\) is writing into"):
        vggfeat.dump(pictures, tmp_path / "out", **QUICK)
    assert len(run.result()) == 11


@pytest.mark.parametrize("pattern", [".*.npy.*.tmp", ".*.json.*.tmp", ".vggfeat-*.csv"])
def test_a_full_disk_stops_the_run_and_loses_nothing(pattern, pictures, tmp_path, monkeypatch):
    whole = vggfeat.dump(pictures, tmp_path / "whole", **QUICK, shard_size=3)
    out = tmp_path / "out"
    run = Dumping(pictures, out, **QUICK, shard_size=3)
    next(iter(run))
    opened = Path.open

    def refuse(path, mode="r", *arguments, **options):
        if path.match(pattern) and mode != "r":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return opened(path, mode, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        with pytest.raises(VggfeatError, match="no space left on device; what is written is intact"):
            run.result()
    assert not list(out.rglob(".*"))
    done = hashes(out)
    assert {name: digest for name, digest in hashes(whole.path).items() if name in done} == done
    assert hashes(vggfeat.dump(pictures, out, **QUICK).path) == hashes(whole.path)


def test_a_limit_on_file_sizes_is_a_full_disk(pictures, tmp_path):
    out = tmp_path / "out"
    options = QUICK | {"shard_size": 1, "reduce": "full"}
    code = (
        "import resource, vggfeat\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
        f"vggfeat.dump({str(pictures)!r}, {str(out)!r}, **{options!r})\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert "file too large; what is written is intact" in ended.stderr.lower()


def test_memory_that_does_not_suffice(pictures, tmp_path, monkeypatch):
    def refuse(_self: object, images: torch.Tensor) -> None:
        raise RuntimeError(f"can't allocate memory for {len(images)}")

    monkeypatch.setattr(network.FeatureExtractor, "forward", refuse)
    with pytest.raises(VggfeatError, match="out of memory at 4 pictures of 32x32 pixels"):
        vggfeat.dump(pictures, tmp_path / "out", **QUICK, batch_size=4)
    dump = vggfeat.dump(pictures, tmp_path / "one", **QUICK, batch_size=1)
    assert [row.error for row in dump.failed] == ["the network ran out of memory at 32x32 pixels"] * 11
    assert np.asarray(dump["relu1_1"]).shape[0] == 0 if (dump.path / "relu1_1.full").exists() else not len(dump)


def test_sizes_are_kept_and_grouped(pictures, tmp_path):
    options = QUICK | {"resize": None, "layers": "relu2_1"}
    dump = vggfeat.dump(pictures, tmp_path / "out", **options, reduce="full,mean", shard_size=4, batch_size=2)
    array = dump["relu2_1", "full"]
    assert set(array.sizes) == {(40, 48), (40, 56), (40, 64)}
    assert [row.shape for row in array] == [(128, 20, 24 + 4 * (number % 3)) for number in range(11)]
    with pytest.raises(VggfeatError, match="take one size with of_size"):
        array.to_numpy()
    part = array.of_size(40, 56)
    assert part.shape == (4, 128, 20, 28)
    assert part.ids == ("001.jpg", "004.png", "007.jpg", "010.png")
    extract = FeatureExtractor("vgg11", "relu2_1", weights=None)
    for name, row in zip(part.ids, part, strict=True):
        expected = extract(images.read_picture(pictures / name).rgb)["relu2_1"][0]
        assert np.allclose(row, expected.numpy(), atol=1e-6)
    means = np.asarray(dump["relu2_1", "mean"])
    assert np.allclose(means, [row.mean((1, 2)) for row in array], atol=1e-6)
    assert verify(dump.path) == []


def test_float16_clips_and_counts(pictures, tmp_path):
    state = {key: value * 1e4 for key, value in vggfeat.weights.load("vgg11", None)[0].items()}
    torch.save(state, tmp_path / "loud.pth")
    options = QUICK | {"weights": tmp_path / "loud.pth"}
    dump = vggfeat.dump(pictures, tmp_path / "out", **options, dtype="float16", statistics=True)
    array = np.asarray(dump["relu2_1"])
    assert array.dtype == np.float16
    assert np.isfinite(array).all()
    count = int(dump.statistics()["relu2_1"].beyond.sum())
    assert count == (array == 65504).sum() == dump.clipped()["relu2_1.full"] > 0
    assert "relu1_1.full" not in dump.clipped()


def test_reads_tar_files_and_lists(pictures, tmp_path):
    with tarfile.open(tmp_path / "set.tar", "w") as archive:
        for path in sorted(pictures.iterdir()):
            archive.add(path, f"part/{path.name}")
    (tmp_path / "list.csv").write_text(
        "path,id\n" + "".join(f"pictures/{p.name},{p.stem}\n" for p in sorted(pictures.iterdir()))
    )
    plain = vggfeat.dump(pictures, tmp_path / "plain", **QUICK)
    packed = vggfeat.dump(tmp_path / "set.tar", tmp_path / "packed", **QUICK)
    listed = vggfeat.dump(tmp_path / "list.csv", tmp_path / "listed", **QUICK)
    assert packed.ids[:2] == ("part/000", "part/001")
    assert listed.ids[:2] == ("000", "001")
    for other in (packed, listed):
        assert np.array_equal(other["relu2_1"], plain["relu2_1"])
        assert [row.sha256 for row in other.manifest] == [row.sha256 for row in plain.manifest]
        assert verify(other.path) == []


def test_jobs_and_tasks_pickle(pictures, tmp_path):
    seen = []

    class Recording(LocalEngine):
        def run(self, job, tasks):
            seen.append(pickle.loads(pickle.dumps((job, tasks))) == (job, tasks))  # noqa: S301 (ours)
            return super().run(*pickle.loads(pickle.dumps((job, tasks))))  # noqa: S301 (ours)

    vggfeat.dump(pictures, tmp_path / "out", **QUICK, engine=Recording(0))
    assert seen == [True]


def test_estimates_what_comes(pictures, tmp_path):
    run = Dumping(pictures, tmp_path / "out", **QUICK, reduce="full,gram", shard_size=4)
    estimate = run.estimate()
    assert not (tmp_path / "out").exists()
    assert (estimate.pictures, estimate.left) == (11, 11)
    assert estimate.macs == 11 * next(x.macs for x in vggfeat.arch.sized_layers("vgg11", 32) if x.name == "relu2_1")
    assert estimate.seconds > 0
    dump = run.result()
    arrays = sum(path.stat().st_size for path in dump.path.glob("*/*.npy"))
    assert 0 <= arrays - estimate.bytes == 128 * len(list(dump.path.glob("*/*.npy")))
    assert Dumping(pictures, tmp_path / "out", **QUICK, reduce="full,gram").estimate().left == 0


def test_bytes_of_pictures_that_keep_their_sizes(tmp_path):
    (tmp_path / "in").mkdir()
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (400, 300)).save(tmp_path / "in/a.jpg", exif=turned)
    Image.new("RGB", (40, 30)).save(tmp_path / "in/b.png")
    (tmp_path / "in/c.png").write_text("no picture")
    options = QUICK | {"resize": None, "layers": "relu1_1", "reduce": "full"}
    run = Dumping(tmp_path / "in", tmp_path / "out", **options)
    assert run.bytes_left() == 3 * ((400 * 300 + 40 * 30) // 2 * 64 * 4)
    tall = [side_of(item, Preparation(100, None)) for item in run.items]
    assert tall == [(133, 100), (100, 133), None]


def test_manifest_in_parquet(pictures, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    dump = vggfeat.dump(pictures, tmp_path / "out", **QUICK, manifest="parquet")
    table = parquet.read_table(dump.path / "manifest.parquet").to_pylist()
    assert [row["id"] for row in table] == list(dump.ids)
    assert not (dump.path / "manifest.csv").exists()
    again = vggfeat.dump(dump.path / "manifest.parquet", tmp_path / "again", **QUICK)
    assert again.ids == dump.ids


def test_without_pyarrow_it_says_what_to_install(pictures, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(InputError, match=r'pip install "vggfeat\[parquet\]"'):
        vggfeat.dump(pictures, tmp_path / "out", **QUICK, manifest="parquet")


def test_the_card_is_recorded(pictures, tmp_path, monkeypatch):
    card = {
        "device": "cuda:0",
        "torch": "2",
        "cpu": "AVX2",
        "card": "A",
        "capability": "9.0",
        "cuda": "12",
        "cudnn": "9",
    }
    monkeypatch.setattr("vggfeat.dumps.request.describe", lambda _: card)
    machine = vggfeat.dump(pictures, tmp_path / "out", **QUICK, reduce="mean").run["machine"]
    assert set(machine) == {"python", "cpu", "card", "capability", "cuda", "cudnn", "algorithms"}
    assert machine["card"] == "A"
