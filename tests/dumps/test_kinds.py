"""Archives, tables, lists and arrays as sources of a dump."""

import io
import json
import sys
import tarfile
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import vggfeat
from vggfeat.dumps.manifest import COLUMNS
from vggfeat.dumps.prepare import Preparation, prepare, side_of
from vggfeat.dumps.sources import Item, Places, SourceFilter, find
from vggfeat.dumps.sources.item import RESERVED
from vggfeat.dumps.verify import verify
from vggfeat.errors import InputError

from .conftest import QUICK, hashes

HOW = Preparation(32, 32)


def told(items):
    return {item.id: dict(item.columns) for item in items}


def pixels(item):
    found = prepare(item, HOW)
    assert not found.error
    return found.pixels


def found_again(items):
    """The items that `Places` finds for the manifest of `items`."""
    places = Places({item.id: item.place for item in items})
    return [places.item(item.id) for item in items]


def at(items):
    return [(item.path, item.member, item.offset, item.length) for item in items]


@pytest.fixture
def archive(pictures, tmp_path):
    """A zip file as macOS makes it."""
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.write(pictures / "001.jpg", "set/1.jpg", zipfile.ZIP_STORED)
        file.write(pictures / "000.png", "set/0.png", zipfile.ZIP_DEFLATED)
        file.write(pictures / "000.png", "set/0.seg.png", zipfile.ZIP_BZIP2)
        for name in ("__MACOSX/set/._1.jpg", "set/._0.png", "set/.DS_Store", "set/.hidden.png", "set/readme.txt"):
            file.writestr(name, "x")
        file.mkdir("set/folder.png")
    return path


def test_zip_files_are_read_in_place(archive, pictures):
    selection = SourceFilter()
    found = find(archive, selection)
    assert [item.id for item in found] == ["set/1.jpg", "set/0.png", "set/0.seg.png"]
    assert selection.summary() == "1 hidden, 1 not a picture, 3 of macOS (._*, __MACOSX)"
    plain = find([pictures / "001.jpg", pictures / "000.png"])
    for packed, single in zip(found, (*plain, plain[1]), strict=True):
        assert prepare(packed, HOW).sha256 == prepare(single, HOW).sha256
        assert (pixels(packed) == pixels(single)).all()
    assert at(found_again(found)) == at(found)


def test_members_are_filtered(archive):
    chosen = find(archive, SourceFilter("*.png", ["*.seg.png"]))
    assert [item.id for item in chosen] == ["set/0.png"]
    assert [item.id for item in find(archive, SourceFilter(["set/1.*"]))] == ["set/1.jpg"]
    with pytest.raises(InputError, match=r"holds no picture that --include and --exclude leave"):
        find(archive, SourceFilter("*.webp"))


def test_damaged_zip_files(archive, tmp_path):
    data = bytearray(archive.read_bytes())
    (tmp_path / "cut.zip").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="it is not a zip file, or is damaged"):
        find(tmp_path / "cut.zip")
    second = find(archive)[1]
    data[second.offset + 60] ^= 255
    archive.write_bytes(data)
    assert "the zip file is damaged" in prepare(second, HOW).error
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as file:
        file.writestr("a.png", b"first")
        with pytest.warns(UserWarning, match="Duplicate name"):
            file.writestr("a.png", b"second")
    twice = find(tmp_path / "two.zip")
    assert [item.id for item in twice] == ["a.png", "a.png#2"]
    assert [prepare(item, HOW).size for item in found_again(twice)] == [5, 6]


def test_labels_of_webdataset(pictures, tmp_path):
    archive = tmp_path / "set.tar"
    beside = {
        "a/0.cls": b"7\n",
        "a/0.json": json.dumps({"caption": "a cat", "width": 3, "boxes": [1]}).encode(),
        "a/1.txt": "caf\u00e9, \xff".encode("latin-1"),
        "a/1.json": b"{no json",
        "a/lost.cls": b"9",
        "a/._0.jpg": b"x",
    }
    with tarfile.open(archive, "w") as file:
        for number in range(2):
            file.add(pictures / "001.jpg", f"a/{number}.jpg")
            file.add(pictures / "000.png", f"a/{number}.seg.png")
        file.add(pictures / "001.jpg", "a/b..jpg")
        for name, data in beside.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))
    selection = SourceFilter("*.jpg", "*.seg.png")
    assert told(find(archive, selection)) == {
        "a/0": {"cls": "7", "caption": "a cat", "source_width": "3"},
        "a/1": {"txt": "caf\\xe9, \\xff", "json": "{no json"},
        "a/b": {},
    }
    assert selection.summary() == "2 left out by --include and --exclude, 1 of macOS (._*, __MACOSX)"


@pytest.mark.parametrize(
    ("name", "text", "columns"),
    [
        ("a.csv", "file_name,label,width\npictures/001.jpg,cat,\n", {"label": "cat"}),
        ("a.tsv", "image\tpath2\npictures/001.jpg\t3\n", {"path2": "3"}),
        ("a.csv", "id,picture,size\nx,pictures/001.jpg,9\n", {"source_size": "9"}),
        ("a.jsonl", '{"file_name": "pictures/001.jpg", "label": 3, "box": [1]}\n\n', {"label": "3"}),
        (
            "a.ndjson",
            '\ufeff{"image": "pictures/001.jpg", "good": true, "score": 0.5}',
            {"good": "True", "score": "0.5"},
        ),
        ("a.txt", "pictures/001.jpg 17\n", {"label": "17"}),
        ("a.lst", "pictures/001.jpg,tabby cat\n", {"label": "tabby cat"}),
        ("a.txt", "pictures/001.jpg\0", {}),
    ],
)
def test_labels_of_lists_and_tables(name, text, columns, pictures, tmp_path):
    (tmp_path / name).write_text(text, encoding="utf-8")
    found = find(tmp_path / name, SourceFilter(column="picture" if "picture," in text else None))
    assert [item.path for item in found] == [str(pictures / "001.jpg")]
    assert dict(found[0].columns) == columns


@pytest.mark.parametrize(
    ("name", "text", "column", "message"),
    [
        ("a.csv", "path,id\na.jpg,1,2\n", None, "line 2 of '.*' has more fields than the first"),
        ("a.csv", "path,pth\na.jpg,1\n", "pht", "no column 'pht': did you mean pth"),
        ("a.jsonl", "{}\n", None, "has no column 'path'"),
        ("a.jsonl", '{"path": "a.jpg"}\nx\n', None, "line 2 of '.*' is not JSON"),
        ("a.jsonl", '["a.jpg"]', None, "line 1 of '.*' is not a JSON object"),
        ("a.jsonl", "", None, "lists no picture"),
        ("a.npy", "x", None, "cannot read"),
        ("a.npz", "x", None, "cannot read"),
        ("a.h5", "x", None, "cannot read"),
        ("a.zip", "x", None, "it is not a zip file"),
        ("a.npy", "", None, "cannot read"),
    ],
)
def test_sources_that_are_refused(name, text, column, message, tmp_path):
    pytest.importorskip("h5py")
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message) as refusal:
        find(tmp_path / name, SourceFilter(column=column))
    assert "\n" not in str(refusal.value)


def test_rows_without_a_path_have_an_id(tmp_path):
    (tmp_path / "a.csv").write_text("path,label\n,1\na.jpg,2\n  ,3\n")
    (tmp_path / "b.jsonl").write_text('{"path": null}\n{"path": 3}\n{"path": "\\ud800.jpg"}\n')
    found = find([tmp_path / "a.csv", tmp_path / "b.jsonl"])
    assert all(not item.id.endswith("/") for item in found)
    assert [bool(item.error) for item in found] == [True, False, True, True, True, False]
    assert found[0].error == f"row 1 of '{tmp_path / 'a.csv'}' has no path"
    assert all(prepare(item, HOW).error for item in found)
    (tmp_path / "c.tar").touch()
    with tarfile.open(tmp_path / "c.tar", "w") as file:
        file.addfile(tarfile.TarInfo("a/..jpg"))
        file.addfile(tarfile.TarInfo("a/b.jpg"))
    assert all(item.id for item in find(tmp_path / "c.tar"))


def test_a_list_on_standard_input(pictures, monkeypatch):
    monkeypatch.chdir(pictures.parent)
    text = b"pictures/001.jpg 3\n__MACOSX/x.jpg\npictures/000.png 4\n"
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(text)))
    selection = SourceFilter()
    found = find("-", selection)
    assert [(item.id, item.path, dict(item.columns)) for item in found] == [
        ("pictures/001.jpg", str(pictures / "001.jpg"), {"label": "3"}),
        ("pictures/000.png", str(pictures / "000.png"), {"label": "4"}),
    ]
    assert selection.summary() == "1 of macOS (._*, __MACOSX)"


def test_a_name_with_a_space_is_not_a_label(pictures, tmp_path):
    (pictures / "001.jpg 2").write_bytes((pictures / "001.jpg").read_bytes())
    (tmp_path / "a.txt").write_text("pictures/001.jpg 2\npictures/001.jpg 3\nmy cat 1.jpg\n")
    assert told(find(tmp_path / "a.txt")) == {
        "pictures/001.jpg 2": {},
        "pictures/001.jpg": {"label": "3"},
        "my cat 1.jpg": {},
    }


def test_links_to_folders_are_followed_once(pictures, tmp_path):
    (tmp_path / "other/deep").mkdir(parents=True)
    (pictures / "000.png").rename(tmp_path / "other/deep/x.png")
    (pictures / "a").symlink_to(tmp_path / "other")
    (pictures / "again").symlink_to(tmp_path / "other")
    (tmp_path / "other/deep/back").symlink_to(pictures)
    (tmp_path / "other/self").symlink_to(tmp_path / "other")
    selection = SourceFilter(follow_links=True)
    found = find(pictures, selection)
    assert [item.id for item in found] == [*(f"{n:03}.{('png', 'jpg')[n % 2]}" for n in range(1, 11)), "a/deep/x.png"]
    assert selection.summary() == "3 a folder that was read before, under another name"
    assert sum(bool(item.error) for item in find(pictures)) == 2


@pytest.fixture
def colours(pictures):
    """Three pictures as an array, (3, 40, 48, 3), and as PNG files."""
    folder = pictures.parent / "colours"
    folder.mkdir()
    array = np.random.default_rng(0).integers(0, 256, (3, 40, 48, 3), dtype=np.uint8)
    for number, picture in enumerate(array):
        Image.fromarray(picture).save(folder / f"{number}.png")
    return array, [pixels(item) for item in find(folder)]


def test_arrays_are_the_same_as_files(colours, tmp_path):
    h5py = pytest.importorskip("h5py")
    array, expected = colours
    np.save(tmp_path / "last.npy", array)
    np.save(tmp_path / "first.npy", array.transpose(0, 3, 1, 2))
    np.save(tmp_path / "float.npy", np.asfortranarray(array / np.float32(255)))
    np.save(tmp_path / "deep.npy", array.astype(np.uint16) * 257)
    np.savez(tmp_path / "a.npz", x=array, y=[3, 4, 5], names=["a", "b", "c"], more=[1, 2])
    np.savez_compressed(tmp_path / "b.npz", images=array, masks=array[..., 0])
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("train/x", data=array, compression="gzip", chunks=(1, 40, 48, 3))
        file["train/y"] = np.array([b"cat", b"dog", b"\xff"])
        file["mean"] = np.zeros(5)
        encoded = file.create_dataset("files/jpg", 3, h5py.vlen_dtype(np.uint8))
        for number in range(3):
            encoded[number] = np.frombuffer((tmp_path / f"colours/{number}.png").read_bytes(), np.uint8)
        file["files/y"] = [1, 2, 3]
    for name, column in (
        ("last.npy", None),
        ("first.npy", None),
        ("float.npy", None),
        ("deep.npy", None),
        ("a.npz", None),
        ("b.npz", None),
        ("a.h5", "train/x"),
        ("a.h5", "/files/jpg"),
    ):
        found = find(tmp_path / name, SourceFilter(column=column))
        assert [item.id for item in found] == ["000000", "000001", "000002"]
        for item, again, right in zip(found, found_again(found), expected, strict=True):
            assert np.allclose(pixels(item), right, atol=1e-6), name
            assert prepare(again, HOW).sha256 == prepare(item, HOW).sha256
            assert side_of(item, Preparation(None, None)) == (40, 48)
    assert told(find(tmp_path / "a.npz"))["000001"] == {"y": "4", "names": "b"}
    assert told(find(tmp_path / "a.h5", SourceFilter(column="train/x")))["000002"] == {"y": "\\xff"}
    assert told(find(tmp_path / "a.h5", SourceFilter(column="files/jpg")))["000002"] == {"y": "3"}
    with pytest.raises(InputError, match="several arrays can be pictures: name one of train/x, files/jpg"):
        find(tmp_path / "a.h5")
    with pytest.raises(InputError, match="no array 'imags'"):
        find(tmp_path / "b.npz", SourceFilter(column="imags"))
    with pytest.raises(InputError, match="'mean' is no array of pictures: its shape"):
        find(tmp_path / "a.h5", SourceFilter(column="mean"))


def test_grey_and_transparent_arrays(tmp_path):
    grey = np.random.default_rng(0).integers(0, 256, (2, 40, 50), dtype=np.uint8)
    np.save(tmp_path / "grey.npy", grey)
    np.save(tmp_path / "channel.npy", grey[..., None])
    np.save(tmp_path / "mask.npy", grey > 127)
    np.save(tmp_path / "one.npy", np.stack([grey[0]] * 3 + [np.full_like(grey[0], 255)], -1))
    Image.fromarray(grey[0]).save(tmp_path / "grey.png")
    right = pixels(find(tmp_path / "grey.png")[0])
    for name in ("grey.npy", "channel.npy", "one.npy"):
        assert np.allclose(pixels(find(tmp_path / name)[0]), right)
    assert len(find(tmp_path / "one.npy")) == 1
    assert set(np.unique(prepare(find(tmp_path / "mask.npy")[0], Preparation(None, None)).pixels)) == {0, 1}


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 40, 40), np.uint8), "may be 3 grey pictures or one"),
        (np.zeros((5, 3, 40, 3), np.uint8), "either axis 1 or axis 3 may be the channels"),
        (np.zeros((5, 7, 40, 7), np.uint8), "neither axis 1 nor axis 3 may be the channels"),
        (np.zeros((5, 7), np.uint8), r"its shape is \(5, 7\)"),
        (np.zeros((0, 7, 8, 3), np.uint8), r"its shape is \(0, 7, 8, 3\)"),
        (np.zeros((5, 7, 8, 3), np.int64), "it holds int64"),
        (np.array([{}]), "cannot read"),
    ],
)
def test_arrays_that_are_refused(array, message, tmp_path):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(InputError, match=message) as refusal:
        find(tmp_path / "a.npy")
    assert "\n" not in str(refusal.value)


def test_values_of_arrays_are_checked(tmp_path):
    array = np.zeros((4, 8, 8, 3), np.float32)
    array[1], array[2, 0, 0, 0], array[3, 0, 0, 0] = 255, np.nan, -1e-3
    np.save(tmp_path / "a.npy", array)
    errors = [prepare(item, Preparation(None, None)).error for item in find(tmp_path / "a.npy")]
    assert errors[0] == ""
    assert all("its values span [" in error for error in errors[1:])
    np.save(tmp_path / "a.npy", array[:2])
    assert "the file has no row 3" in prepare(Item("x", str(tmp_path / "a.npy"), "3"), HOW).error


@pytest.fixture
def huggingface(pictures, tmp_path):
    """A data set of eleven pictures in row groups of four; the last one has only its path."""
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    files = sorted(pictures.iterdir())
    images = [{"bytes": path.read_bytes(), "path": path.name} for path in files[:-1]]
    images.append({"bytes": None, "path": f"pictures/{files[-1].name}"})
    kind = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    columns = {"image": arrow.array(images, kind), "label": arrow.array([*range(10), None])}
    columns["boxes"] = arrow.array([[1, 2]] * 11)
    parquet.write_table(arrow.table(columns), tmp_path / "train.parquet", row_group_size=4)
    return tmp_path / "train.parquet"


def test_parquet_that_holds_pictures(huggingface, pictures):
    selection = SourceFilter()
    found = find(huggingface, selection)
    plain = find(pictures)
    assert [item.id for item in found[:-1]] == [item.id for item in plain[:-1]]
    assert [prepare(item, HOW).sha256 for item in found] == [prepare(item, HOW).sha256 for item in plain]
    assert [dict(item.columns) for item in found] == [*({"label": str(n)} for n in range(10)), {}]
    assert selection.summary() == "columns that are neither text nor numbers: boxes"
    assert at(found_again(found)) == at(found)
    assert "the file has no row 99" in prepare(Item("x", str(huggingface), "image/99"), HOW).error


def test_columns_of_parquet(pictures, tmp_path):
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    data = [(pictures / "001.jpg").read_bytes(), b"no picture"]
    table = {"photo": data, "path": ["pictures/000.png", "pictures/001.jpg"], "id": ["a", "b"]}
    parquet.write_table(arrow.table(table), tmp_path / "a.parquet")
    assert [item.path for item in find(tmp_path / "a.parquet")] == [
        str(pictures / name) for name in ("000.png", "001.jpg")
    ]
    held = find(tmp_path / "a.parquet", SourceFilter(column="photo"))
    assert told(held) == {
        "a": {"source_path": "pictures/000.png"},
        "b": {"source_path": "pictures/001.jpg"},
    }
    assert [bool(prepare(item, HOW).error) for item in held] == [False, True]
    parquet.write_table(arrow.table({"one": data, "two": data}), tmp_path / "b.parquet")
    with pytest.raises(InputError, match="several columns of bytes: choose with --column: one, two"):
        find(tmp_path / "b.parquet")


def test_labels_travel_into_the_manifest_and_the_exports(huggingface, tmp_path):
    pytest.importorskip("h5py")
    import h5py
    from scipy import io as scipy_io

    options = QUICK | {"reduce": "mean", "shard_size": 3, "batch_size": 3}
    dumps = {form: vggfeat.dump(huggingface, tmp_path / form, **options, manifest=form) for form in ("csv", "parquet")}
    assert dumps["csv"].manifest == dumps["parquet"].manifest
    dump = dumps["csv"]
    assert dump.columns == ("label",)
    assert dump.column("label") == (*map(str, range(10)), "")
    assert dump.manifest[3].columns == {"label": "3"}
    with pytest.raises(InputError, match="no column 'labl': did you mean label"):
        dump.column("labl")
    assert verify(dump.path) == []
    for name in ("a.h5", "a.csv", "a.parquet", "a.mat", "a.safetensors", "a.zarr"):
        dump.export(tmp_path / name, name.rpartition(".")[2])
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["label"].asstr()[2:4].tolist() == ["2", "3"]
    assert (tmp_path / "a.csv").read_text().startswith("id,path,sha256,label,relu1_1.mean.0,")
    assert scipy_io.loadmat(tmp_path / "a.mat")["label"][3, 0] == ["3"]


def test_any_number_of_workers_reads_every_kind(huggingface, archive, colours, tmp_path):
    np.save(tmp_path / "a.npy", colours[0])
    sources = [huggingface, archive, tmp_path / "a.npy"]
    for workers in (0, 1):
        options = QUICK | {"workers": workers, "layers": "relu1_1", "reduce": "mean", "shard_size": 5, "batch_size": 5}
        dump = vggfeat.dump(sources, tmp_path / str(workers), **options)
        assert len(dump) == 17
    assert verify(tmp_path / "0") == []
    assert hashes(tmp_path / "0") == hashes(tmp_path / "1")


def test_links_to_nothing_and_urls_are_told(tmp_path):
    (tmp_path / "photos").symlink_to("gone/photos")
    with pytest.raises(InputError, match=r"no such source '.*photos': it is a link to 'gone/photos'"):
        find(tmp_path / "photos")
    with pytest.raises(InputError, match=r"the source 'https://a.org/b.jpg' is a URL: download it"):
        find("https://a.org/b.jpg")
    (tmp_path / "a.txt").write_text("https://a.org/b.jpg 3\n")
    (tmp_path / "a.csv").write_text("path\nhttps://a.org/b.jpg\n")
    for name in ("a.txt", "a.csv"):
        (item,) = find(tmp_path / name)
        assert item.error == "'https://a.org/b.jpg' is a URL: download it, and list the file"
        assert item.id == "https://a.org/b.jpg"


def test_names_of_the_manifest_are_kept():
    assert {*COLUMNS, "run"} == RESERVED
