import os
import tarfile
from pathlib import Path

import pytest

from vggfeat.dumps.prepare import Preparation, prepare
from vggfeat.dumps.sources import find, fingerprint, locate, printable
from vggfeat.errors import InputError


def ids(*arguments):
    return [item.id for item in find(*arguments)]


def test_folders_are_read_in_order(pictures):
    (pictures / "sub").mkdir()
    (pictures / "000.png").rename(pictures / "sub/b.PNG")
    (pictures / ".hidden.png").touch()
    (pictures / "notes.md").touch()
    found = find(pictures)
    assert [item.id for item in found] == [*(f"{n:03}.{('png', 'jpg')[n % 2]}" for n in range(1, 11)), "sub/b.PNG"]
    assert all(Path(item.path).is_absolute() for item in found)


def test_several_sources_keep_their_names(pictures, monkeypatch):
    monkeypatch.chdir(pictures.parent)
    assert ids(["pictures", "pictures/003.jpg"])[-2:] == ["pictures/010.png", "pictures/003.jpg#2"]
    assert ids("pictures/003.jpg") == ["pictures/003.jpg"]


def test_lists(pictures, tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_bytes(b"\xef\xbb\xbfpictures/001.jpg\r\n\npictures/gone.jpg\npictures/001.jpg\ncaf\xe9.png\n")
    found = find(listed)
    assert [item.id for item in found] == [
        "pictures/001.jpg",
        "pictures/gone.jpg",
        "pictures/001.jpg#2",
        "caf\\xe9.png",
    ]
    assert found[0].path == str(pictures / "001.jpg")
    assert "no such file" in prepare(found[1], Preparation()).error


def test_ids_that_look_like_repeats_stay_apart(tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_text("a.jpg#2\na.jpg\na.jpg\na.jpg\na.jpg#2\n")
    assert len(set(ids(listed))) == 5


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "file,id\na.jpg,1\n", "has no column 'path': it has file, id"),
        ("a.csv", "path,id\na.jpg,1\nb.jpg,1\n", "has the id '1' more than once"),
        ("a.csv", "path,id\na.jpg,1\nb.jpg,\n", "has an id in 1 of 2 rows"),
        ("a.csv", "path\n", "lists no picture"),
        ("a.txt", "\n\n", "lists no picture"),
        ("a.tar", "no tar", "is not a plain tar file"),
        ("a.parquet", "no parquet", "cannot read"),
    ],
)
def test_lists_that_are_refused(name, text, message, tmp_path):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message) as refusal:
        find(tmp_path / name)
    assert "\n" not in str(refusal.value)


def test_sources_that_do_not_exist(tmp_path):
    (tmp_path / "pictures").mkdir()
    with pytest.raises(InputError, match=r"no such source '.*pictuers'; near are pictures"):
        find(tmp_path / "pictuers")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no picture"):
        find(tmp_path / "empty")
    with pytest.raises(InputError, match="there is no source"):
        find([])


def test_tables(pictures, tmp_path):
    (tmp_path / "a.tsv").write_text("id\tlabel\tpath\nx\t1\tpictures/001.jpg\n")
    assert [(item.id, item.path) for item in find(tmp_path / "a.tsv")] == [("x", str(pictures / "001.jpg"))]
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(arrow.table({"path": ["pictures/001.jpg"], "label": [1]}), tmp_path / "a.parquet")
    assert ids(tmp_path / "a.parquet") == ["pictures/001.jpg"]


def test_tar_files_are_read_where_they_are(pictures, tmp_path):
    archive = tmp_path / "set.tar"
    with tarfile.open(archive, "w") as file:
        for number in range(3):
            file.add(pictures / "001.jpg", f"a/{number}.jpg")
            file.add(pictures / "000.png", f"a/{number}.seg.png" if number == 1 else f"b/{number}.x.png")
        file.add(Path(__file__), "a/0.cls")
    found = find(archive)
    assert [item.id for item in found] == ["a/0", "b/0", "a/1.jpg", "a/1.seg.png", "a/2", "b/2"]
    plain = prepare(find(pictures / "001.jpg")[0], Preparation())
    packed = prepare(found[0], Preparation())
    assert packed.sha256 == plain.sha256
    assert (packed.pixels == plain.pixels).all()
    assert all(locate(item.place) == item for item in found[::2] if "/1." not in item.place)
    with archive.open("r+b") as file:
        file.truncate(found[-1].offset + 10)
    assert "the tar file ends within it" in prepare(found[-1], Preparation()).error


def test_places_are_found_again(pictures):
    odd = os.fsencode(pictures) + b"/caf\xe9.jpg"
    os.rename(pictures / "001.jpg", odd)  # noqa: PTH104 (a name that is not UTF-8)
    item = next(item for item in find(pictures) if item.id.startswith("caf"))
    assert item.id == "caf\\xe9.jpg"
    assert locate(item.place).path == os.fsdecode(odd)
    assert printable(os.fsdecode(odd)) == item.place


def test_a_fingerprint_of_inputs_knows_their_order(pictures):
    items = find(pictures)
    assert fingerprint(items) != fingerprint(items[::-1])
    assert fingerprint(items) == fingerprint(find(pictures))
