"""Files appear whole or not at all."""

import io
import stat

import pytest

from vggfeat import files
from vggfeat.errors import ImageError


def test_text_and_bytes_are_written_as_they_are(tmp_path):
    files.write(tmp_path / "text", "a\r\nb\n\u00e9")
    assert (tmp_path / "text").read_bytes() == b"a\r\nb\n\xc3\xa9"
    files.write(tmp_path / "text", b"\x00")
    assert (tmp_path / "text").read_bytes() == b"\x00"
    assert [path.name for path in tmp_path.iterdir()] == ["text"]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "kept.txt"
    path.write_text("old")

    def interrupted():
        with files.replacing(path) as unfinished:
            unfinished.write_text("half")
            assert unfinished.suffix == ".txt"
            assert unfinished.name.startswith(files.PREFIX)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_links_and_modes_stay(tmp_path):
    path, link = tmp_path / "file", tmp_path / "link"
    path.write_text("old")
    path.chmod(0o640)
    link.symlink_to(path)
    files.write(link, "new")
    assert link.is_symlink()
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_the_systems_reason(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        files.write(tmp_path / "missing" / "file", "")
    assert files.reason(caught.value) == "no such file or directory"
    assert files.reason(OSError("Odd")) == "odd"


def test_an_os_error_becomes_one_line_and_others_pass():
    error = FileNotFoundError(2, "No such file or directory")
    refused = pytest.raises(ImageError, match=r"^cannot read 'x': no such file or directory$")
    with refused, files.os_errors_as(ImageError, "cannot read 'x'"):
        raise error
    with pytest.raises(KeyError), files.os_errors_as(ImageError, "cannot read 'x'"):
        raise KeyError


@pytest.mark.parametrize("ending", [".jpg", ".jfif", ".png", ".ppm", ".tga", ".jp2", ".avif", ".TIF", ".WebP"])
def test_what_pillow_reads_is_a_picture(ending):
    assert files.is_picture(f"a{ending}")
    assert not files.is_picture(f"folder/._a{ending}")


@pytest.mark.parametrize("name", ["a", "a.txt", "a.eps", "a.wmf", "a.mpg", ".png", "a.png.part"])
def test_what_is_not_a_picture(name):
    assert not files.is_picture(name)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_is_read_by_its_byte_order_mark(encoding, tmp_path):
    (tmp_path / "a.toml").write_bytes("# é\r\nsteps = 3".encode(encoding))
    assert files.read_text(tmp_path / "a.toml") == "# é\nsteps = 3"


def test_natural_order():
    names = ["b", "a10", "a2", "A1", "a", "2", "a02"]
    assert sorted(names, key=files.natural_order) == ["2", "a", "A1", "a02", "a2", "a10", "b"]


def test_lines_of_csv():
    text = io.StringIO()
    files.CsvWriter(text).writerow(["plain", 'quo"ted', "a,b", "a\nb", "a\rb", 3, ""])
    assert text.getvalue() == 'plain,"quo""ted","a,b","a\nb","a\rb",3,\n'
