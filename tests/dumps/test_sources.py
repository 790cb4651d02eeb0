import io
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from vggfeat.dumps.prepare import Preparation, prepare
from vggfeat.dumps.sources import Places, find, fingerprint, printable
from vggfeat.errors import InputError


def ids(*arguments):
    return [item.id for item in find(*arguments)]


def locate(place):
    """What the only row of a manifest names."""
    return Places({"id": place}).item("id")


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
    with pytest.raises(InputError, match=r"no such source '.*pictuers'; did you mean 'pictures'"):
        find(tmp_path / "pictuers")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no picture"):
        find(tmp_path / "empty")
    with pytest.raises(InputError, match="there is no source"):
        find([])


def test_tables(pictures, tmp_path):
    (tmp_path / "a.tsv").write_text("id\tlabel\tpath\nx\t1\tpictures/001.jpg\n")
    assert [(item.id, item.path) for item in find(tmp_path / "a.tsv")] == [("x", str(pictures / "001.jpg"))]
    (tmp_path / "b.csv").write_text("\ufeffid;label;path\nx;1,5;pictures/001.jpg\n", encoding="utf-8")
    [item] = find(tmp_path / "b.csv")
    assert (item.id, item.path, item.columns) == ("x", str(pictures / "001.jpg"), (("label", "1,5"),))
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


def packed(path, names, pictures):
    with tarfile.open(path, "w") as file:
        for name in names:
            file.add(pictures / "001.jpg", name)
    return path


def errors(items):
    return {item.id: prepare(item, Preparation()).error for item in items}


def test_a_damaged_header_within_a_tar_file_is_a_row(pictures, tmp_path):
    archive = packed(tmp_path / "set.tar", ["0.jpg", "1.jpg", "2.jpg"], pictures)
    second = find(archive)[1].offset - tarfile.BLOCKSIZE
    data = bytearray(archive.read_bytes())
    data[second + 100] ^= 255
    archive.write_bytes(data)
    told = errors(find(archive))
    assert list(told) == ["0", "set.tar"]
    assert told["0"] == ""
    assert told["set.tar"].endswith("damaged, or several were joined: the files after its first 1 are lost")


def test_a_tar_file_that_is_cut_off_keeps_what_it_shows(pictures, tmp_path):
    archive = packed(tmp_path / "set.tar", ["0.jpg", "1.jpg", "2.jpg"], pictures)
    whole = find(archive)
    data = archive.read_bytes()
    for end, listed in (
        (whole[2].offset + 10, ["0", "1", "2", "set.tar"]),  # within a picture
        (whole[2].offset - 100, ["0", "1", "set.tar"]),  # within a header
        (whole[2].offset - tarfile.BLOCKSIZE, ["0", "1", "set.tar"]),  # before a header
    ):
        archive.write_bytes(data[:end])
        told = errors(find(archive))
        assert list(told) == listed
        assert "cut off" in told["set.tar"] or "damaged" in told["set.tar"]
        assert told["0"] == told["1"] == ""
    both = packed(tmp_path / "good.tar", ["0.jpg"], pictures)
    assert len(find([both, archive])) == 4


def test_tar_files_put_together_are_told(pictures, tmp_path):
    archive = packed(tmp_path / "set.tar", ["0.jpg"], pictures)
    archive.write_bytes(archive.read_bytes() * 2)
    assert "several were joined" in errors(find(archive))["set.tar"]


def test_links_in_a_tar_file_are_followed(pictures, tmp_path):
    archive = packed(tmp_path / "set.tar", ["a/0.jpg"], pictures)
    kinds = {"a/hard.jpg": (tarfile.LNKTYPE, "a/0.jpg"), "b/soft.jpg": (tarfile.SYMTYPE, "../a/0.jpg")}
    kinds |= {"b/twice.jpg": (tarfile.SYMTYPE, "soft.jpg"), "b/lost.jpg": (tarfile.SYMTYPE, "nowhere.jpg")}
    kinds |= {"b/self.jpg": (tarfile.SYMTYPE, "self.jpg"), "b/folder.jpg": (tarfile.DIRTYPE, "")}
    with tarfile.open(archive, "a") as file:
        for name, (kind, link) in kinds.items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, link
            file.addfile(member, io.BytesIO())
    items = {item.id: item for item in find(archive)}
    first = prepare(items["a/0"], Preparation())
    for name in ("a/hard", "b/soft", "b/twice"):
        assert prepare(items[name], Preparation()).sha256 == first.sha256
    told = errors(items.values())
    assert told["b/lost"] == "it is a link to 'b/nowhere.jpg', which the tar file does not hold"
    assert "does not hold" in told["b/self"]
    assert told["b/folder"] == "not a regular file"


@pytest.mark.skipif(shutil.which("tar") is None, reason="needs tar")
def test_a_member_without_its_zeros_is_refused(tmp_path):
    with (tmp_path / "x.bmp").open("wb") as file:
        file.write(b"BM")
        file.truncate(2**20)
    subprocess.run([shutil.which("tar"), "--sparse", "-cf", "x.tar", "x.bmp"], cwd=tmp_path, check=True)
    with tarfile.open(tmp_path / "x.tar") as archive:
        if not archive.getmembers()[0].issparse():
            pytest.skip("this file system stores the zeros")
    assert "sparse file" in errors(find(tmp_path / "x.tar"))["x"]


@pytest.mark.parametrize("name", ["set.tar.gz", "set.TGZ", "set.tar.zst"])
def test_a_compressed_tar_file_is_told_as_that(name, tmp_path):
    (tmp_path / name).write_bytes(b"\x1f\x8b")
    with pytest.raises(InputError, match="is a compressed tar file: unpack it"):
        find(tmp_path / name)


def test_names_in_a_tar_file_are_found_as_they_stand(pictures, tmp_path):
    archive = packed(tmp_path / "set.tar", ["./6.png", "./a/7.png", "6.png", "6.png"], pictures)
    found = find(archive)
    assert [locate(item.place) for item in found[:3]] == list(found[:3])
    assert Places({row.id: row.place for row in found}).item(found[3].id).offset == found[3].offset
    with pytest.raises(InputError, match=r"set\.tar' no longer holds '8\.png'"):
        locate(f"{archive}/8.png")


def test_what_a_folder_does_not_show_is_told(pictures, tmp_path, monkeypatch):
    (tmp_path / "other").mkdir()
    (pictures / "linked").symlink_to(tmp_path / "other")
    (pictures / "secret").mkdir()
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("secret"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    told = errors(find(pictures))
    assert len(told) == 13
    assert told["linked"].startswith("it is a link to a folder, which is not followed")
    assert told["secret"].endswith("secret': permission denied")


def test_endings_of_what_is_no_picture_are_left_out(pictures):
    for name in ("features.h5", "film.mpg", "plot.eps", "plot.wmf"):
        (pictures / name).write_bytes(b"x")
    assert len(find(pictures)) == 11


def test_a_fresh_process_knows_the_same_endings(pictures):
    code = f"from vggfeat.dumps.sources import find; print(len(find({str(pictures)!r})))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["11"]


def test_the_folder_above_a_link_is_that_of_the_system(pictures, tmp_path):
    (tmp_path / "far/away").mkdir(parents=True)
    (tmp_path / "far/x.png").write_bytes((pictures / "000.png").read_bytes())
    (tmp_path / "link").symlink_to(tmp_path / "far/away")
    (tmp_path / "list.txt").write_text("link/../x.png\n")
    assert errors(find(tmp_path / "list.txt")) == {"link/../x.png": ""}
