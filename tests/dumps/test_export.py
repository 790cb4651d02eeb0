import csv
import json
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open

import vggfeat
from vggfeat.dumps import export as module
from vggfeat.dumps.arrays import FeatureArray
from vggfeat.dumps.export import choose, export
from vggfeat.errors import InputError, RecipeError, VggfeatError

from .conftest import QUICK, make_pictures


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = make_pictures(tmp_path_factory.mktemp("pictures"), 11)
    (folder / "004.png").write_text("no picture")
    (folder / "007.jpg").rename(folder / 'naïve, "7".jpg')
    return folder


@pytest.fixture(scope="module")
def dump(source, tmp_path_factory):
    options = QUICK | {"reduce": "mean,relu2_1:avg7,relu1_1:center", "shard_size": 4, "batch_size": 3}
    return vggfeat.dump(source, tmp_path_factory.mktemp("out"), **options)


@pytest.fixture(scope="module")
def halves(source, tmp_path_factory):
    options = QUICK | {"layers": "relu2_1", "reduce": "full,mean", "shard_size": 4, "dtype": "float16"}
    return vggfeat.dump(source, tmp_path_factory.mktemp("halves"), **options)


@pytest.fixture(scope="module")
def sizes(source, tmp_path_factory):
    options = QUICK | {"layers": "relu2_1", "reduce": "full,mean", "resize": None, "shard_size": 4}
    return vggfeat.dump(source, tmp_path_factory.mktemp("sizes"), **options)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    """Several batches even of little."""
    monkeypatch.setattr(module, "BATCH_BYTES", 20_000)
    monkeypatch.setattr(module, "CHUNK_BYTES", 9_000)


def read_zarr(path):
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(path, mode="r")
    found = {name: group[name][:] for name in group}
    texts = {
        name: found.pop(name).tolist() for name in list(found) if name.partition(".")[0] in ("id", "path", "sha256")
    }
    return found, texts, group.attrs["run"]


def read_h5(path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(path) as file:
        run = json.loads(file["run"].asstr()[()])
        names = [name for name in file if name != "run"]
        texts = {name: file[name].asstr()[:].tolist() for name in names if file[name].dtype.kind == "O"}
        return {name: file[name][:] for name in names if name not in texts}, texts, run


def read_mat(path):
    found = pytest.importorskip("scipy.io").loadmat(path)
    run = json.loads(found.pop("run").item())
    found = {name: value for name, value in found.items() if not name.startswith("__")}
    texts = {name: [str(x[0][0]) for x in value] for name, value in found.items() if value.dtype.kind == "O"}
    return {name: value for name, value in found.items() if name not in texts}, texts, run


def read_parquet(path):
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(path)
    arrays, texts = {}, {}
    for field in table.schema:
        column = table[field.name].combine_chunks()
        if str(field.type) == "string":
            texts[field.name] = column.to_pylist()
        else:
            shape = json.loads(field.metadata[b"shape"])
            arrays[field.name] = column.flatten().to_numpy(zero_copy_only=False).reshape(len(table), *shape)
    return arrays, texts, json.loads(table.schema.metadata[b"vggfeat.run"])


def read_safetensors(path):
    with safe_open(path, "numpy") as file:
        about = file.metadata()
        run = json.loads(about.pop("run"))
        return {name: file.get_tensor(name) for name in file.keys()}, {k: json.loads(v) for k, v in about.items()}, run  # noqa: SIM118 (it is no mapping)


def read_csv(path):
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    texts = {name: [row[name] for row in rows] for name in ("id", "path", "sha256")}
    arrays = {}
    for column in rows[0]:
        if column not in texts:
            layer, reduction, *_ = column.split(".")
            arrays.setdefault(f"{layer}.{reduction}", []).append([row[column] for row in rows])
    run = json.loads(path.with_name(f"{path.name}.json").read_text("utf-8"))
    return {name: np.array(columns, dtype=np.float32).T for name, columns in arrays.items()}, texts, run


READERS = {
    "zarr": read_zarr,
    "h5": read_h5,
    "mat": read_mat,
    "csv": read_csv,
    "parquet": read_parquet,
    "safetensors": read_safetensors,
}


@pytest.mark.parametrize("form", READERS)
def test_what_others_read_is_what_was_dumped(form, dump, tmp_path):
    path = dump.export(tmp_path / f"x.{form}", form)
    assert path == tmp_path / f"x.{form}"
    arrays, texts, run = READERS[form](path)
    expected = {".".join(output): dump[output].to_numpy() for output in dump.outputs}
    assert len(expected) == 4
    if form == "mat":
        expected = {name.replace(".", "_"): value for name, value in expected.items()}
    assert set(arrays) == set(expected)
    for name, value in expected.items():
        found = arrays[name].reshape(value.shape) if form == "csv" else arrays[name]
        assert found.dtype == np.float32
        assert found.shape == value.shape
        assert np.array_equal(found, value), name
    good = [row for row in dump.manifest if row.ok]
    assert texts["id"] == list(dump.ids)
    assert texts["path"] == [row.path for row in good]
    assert texts["sha256"] == [row.sha256 for row in good]
    assert run == dump.run
    assert {x.name for x in tmp_path.iterdir()} == {path.name} | ({"x.csv.json"} if form == "csv" else set())


def test_zarr_of_the_second_version(dump, tmp_path):
    found = {version: dump.export(tmp_path / f"{version}.zarr", "zarr", zarr_format=version) for version in (2, 3)}
    assert [(path / ".zattrs").exists() for path in found.values()] == [True, False]
    assert not list(found[2].rglob("zarr.json"))
    (second, texts, run), (third, others, again) = (read_zarr(path) for path in found.values())
    assert (texts, run, second.keys()) == (others, again, third.keys())
    assert all(np.array_equal(second[name], third[name]) for name in third)
    with pytest.raises(RecipeError, match="unknown version 4 of zarr's format"):
        dump.export(tmp_path / "4.zarr", "zarr", zarr_format=4)


@pytest.mark.parametrize("form", ["zarr", "h5", "mat", "parquet", "safetensors"])
def test_half_precision(form, halves, tmp_path):
    arrays, _, _ = READERS[form](halves.export(tmp_path / "x", form))
    found = arrays["relu2_1_full" if form == "mat" else "relu2_1.full"]
    assert found.dtype == (np.float32 if form == "mat" else np.float16)
    assert np.array_equal(found, halves["relu2_1.full"])


def test_half_precision_in_text(halves, tmp_path):
    arrays, _, _ = read_csv(halves.export(tmp_path / "x.csv", "csv", reductions=["mean"]))
    assert np.array_equal(arrays["relu2_1.mean"].astype(np.float16), halves["relu2_1.mean"])


@pytest.mark.parametrize("form", ["zarr", "h5", "mat", "safetensors"])
def test_pictures_of_several_sizes(form, sizes, tmp_path):
    arrays, texts, _ = READERS[form](sizes.export(tmp_path / "x", form))
    whole = sizes["relu2_1.full"]
    assert len(whole.sizes) == 3
    for height, width in whole.sizes:
        name, ids = f"relu2_1.full.{height}x{width}", f"id.{height}x{width}"
        if form == "mat":
            name, ids = name.replace(".", "_"), ids.replace(".", "_")
        part = whole.of_size(height, width)
        assert np.array_equal(arrays[name], part)
        assert texts[ids] == list(part.ids)
    assert np.array_equal(arrays["relu2_1_mean" if form == "mat" else "relu2_1.mean"], sizes["relu2_1.mean"])


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_tables_have_no_place_for_several_sizes(form, sizes, tmp_path):
    with pytest.raises(RecipeError, match=rf"relu2_1\.full differ in shape, which {form} cannot store"):
        sizes.export(tmp_path / "x", form)
    assert not list(tmp_path.iterdir())
    sizes.export(tmp_path / "x", form, reductions=["mean"])


@pytest.mark.parametrize("form", READERS)
def test_no_pictures(form, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/0.png").write_text("no picture")
    empty = vggfeat.dump(tmp_path / "in", tmp_path / "out", **QUICK, reduce="mean")
    path = empty.export(tmp_path / "x", form)
    if form != "csv":
        arrays, texts, _ = READERS[form](path)
        assert len(arrays) == 2
        assert not any(value.size for value in arrays.values())
        assert not any(texts.values())


@pytest.mark.parametrize(
    ("layers", "reductions", "chosen"),
    [
        ((), (), ["relu1_1.mean", "relu1_1.center", "relu2_1.mean", "relu2_1.avg7"]),
        (("relu2_1",), (), ["relu2_1.mean", "relu2_1.avg7"]),
        (("relu1*",), ("mean", "avg7"), ["relu1_1.mean"]),
        ((), ("c*",), ["relu1_1.center"]),
    ],
)
def test_chooses(layers, reductions, chosen, dump):
    assert [".".join(output) for output in choose(dump, layers, reductions)] == chosen


@pytest.mark.parametrize(
    ("layers", "reductions", "message"),
    [
        (("relu3_1",), (), "no layer 'relu3_1' in the dump: did you mean relu"),
        ((), ("median",), "no reduction 'median' in the dump: did you mean mean"),
        (("relu1_1",), ("avg7",), "no array of these layers has these reductions: the dump holds relu1_1.mean"),
    ],
)
def test_refuses_what_is_not_there(layers, reductions, message, dump, tmp_path):
    with pytest.raises(RecipeError, match=message):
        export(dump, tmp_path / "x", "csv", layers=layers, reductions=reductions)


def test_nothing_is_replaced(dump, tmp_path):
    path = tmp_path / "x.csv"
    for name in ("x.csv", "x.csv.json"):
        (tmp_path / name).write_text("mine")
        with pytest.raises(VggfeatError, match=rf"{name}' exists: name another"):
            dump.export(path, "csv")
        assert [x.read_text() for x in tmp_path.iterdir()] == ["mine"]
        (tmp_path / name).unlink()
    with pytest.raises(VggfeatError, match="is inside the dump"):
        dump.export(dump.path / "x.csv", "csv")
    with pytest.raises(VggfeatError, match="no such folder"):
        dump.export(tmp_path / "nowhere/x.csv", "csv")
    with pytest.raises(RecipeError, match="unknown format 'hdf5': did you mean h5"):
        dump.export(path, "hdf5")


@pytest.mark.parametrize("form", READERS)
def test_what_comes_into_being_meanwhile_is_left(form, dump, tmp_path, monkeypatch):
    write = module.WRITERS[form]

    def slow(content, path, library):
        write(content, path, library)
        (tmp_path / "x").write_text("mine")

    monkeypatch.setitem(module.WRITERS, form, slow)
    with pytest.raises(VggfeatError, match="was created by another process meanwhile"):
        dump.export(tmp_path / "x", form)
    assert (tmp_path / "x").read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} <= {"x", "x.json"}


@pytest.mark.parametrize("form", READERS)
def test_a_full_disk_leaves_nothing(form, dump, tmp_path, monkeypatch):
    def full(_self, _index):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(FeatureArray, "__getitem__", full)
    with pytest.raises(VggfeatError, match="no space left on device"):
        dump.export(tmp_path / "x", form)
    assert not list(tmp_path.iterdir())


def test_limits_are_said(dump, halves, tmp_path, monkeypatch):
    with pytest.raises(RecipeError, match="would be 32896 columns, and csv has at most 16384"):
        halves.export(tmp_path / "x", "csv")
    monkeypatch.setattr(module, "MAT_BYTES", 4 * 10 * 128 - 1)
    with pytest.raises(RecipeError, match=r"relu2_1.mean has .* GB and a \.mat file holds at most 2 GB"):
        dump.export(tmp_path / "x", "mat", reductions=["mean"])
    dump.export(tmp_path / "y.mat", "mat", layers=["relu1_1"])
    monkeypatch.setattr(module, "SAFETENSORS_HEADER", 1000)
    with pytest.raises(RecipeError, match="10 ids and paths do not fit"):
        dump.export(tmp_path / "x", "safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["y.mat"]


@pytest.mark.parametrize(
    ("form", "package", "extra"),
    [
        *(("zarr", "zarr", "export"), ("h5", "h5py", "export"), ("mat", "scipy", "export")),
        *(("parquet", "pyarrow", "export"), ("faiss", "faiss", "faiss")),
    ],
)
def test_a_missing_library_is_said(form, package, extra, dump, tmp_path, monkeypatch):
    for name in (package, "scipy.io"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=rf'writing {form} needs {package}: pip install "vggfeat\[{extra}\]"'):
        dump.export(tmp_path / "x", form)


@pytest.mark.parametrize("form", ["zarr", "h5", "parquet", "safetensors"])
def test_is_streamed(form, tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    for number in range(40):
        Image.new("RGB", (64, 64), (number, 0, 0)).save(tmp_path / f"in/{number:02}.png")
    large = vggfeat.dump(
        tmp_path / "in", tmp_path / "out", **QUICK | {"layers": "relu1_1", "resize": 64}, shard_size=8, batch_size=8
    )
    size = 40 * 64 * 64 * 64 * 4
    monkeypatch.setattr(module, "BATCH_BYTES", 2 * 2**20)
    monkeypatch.setattr(module, "CHUNK_BYTES", 2**20)
    export(large, tmp_path / "warm", form, layers=["relu1_1"])
    tracemalloc.start()
    large.export(tmp_path / "x", form)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < size / 4
    assert np.array_equal(READERS[form](Path(tmp_path / "x"))[0]["relu1_1.full"], large["relu1_1.full"])


def test_a_faiss_index_finds_what_a_search_finds(dump, sizes, tmp_path):
    faiss = pytest.importorskip("faiss")
    path = dump.export(tmp_path / "x.faiss", "faiss", layers=["relu2_1"], reductions=["avg7"])
    about = json.loads((tmp_path / "x.faiss.json").read_text("utf-8"))
    assert about == {"arrays": ["relu2_1.avg7"], "ids": list(dump.ids), "run": dict(dump.run)}
    index = faiss.read_index(str(path))
    x = np.asarray(dump["relu2_1.avg7"]).reshape(len(dump), -1)
    squares, rows = index.search(x[:3], 4)
    for query in range(3):
        expected = dump.search(dump.ids[query], "relu2_1.avg7", top=3, metric="l2")[0]
        assert [dump.ids[row] for row in rows[query, 1:]] == list(expected.ids)
        assert np.sqrt(squares[query, 1:]) == pytest.approx(expected.distances, rel=1e-4)
    with pytest.raises(RecipeError, match=r"holds one array, not relu1_1.mean, .*: choose with --layer and --reduce"):
        dump.export(tmp_path / "y.faiss", "faiss")
    with pytest.raises(RecipeError, match="differ in shape, which faiss cannot store"):
        sizes.export(tmp_path / "y.faiss", "faiss", reductions=["full"])
    assert not list(tmp_path.glob("*y*"))
