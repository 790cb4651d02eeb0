"""Pictures are written whole or not at all, and come back as they were."""

import errno
import io
import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from picture_files import (
    ADOBE_ICC,
    ALPHA,
    COLOURS,
    RGB,
    chunk,
    encoded,
    png,
    refusal,
    saved,
)
from PIL import Image, JpegImagePlugin

from vggfeat.errors import ImageError, InputError
from vggfeat.pictures.images import (
    check_writable,
    read_picture,
    read_text,
    to_pil,
    write_picture,
)


@pytest.mark.parametrize("name", ["a.png", "a.WEBP", "a.tif", "a.TIFF"])
def test_written_pixels_come_back(tmp_path: Path, name: str) -> None:
    write_picture(tmp_path / name, RGB, alpha=ALPHA)
    picture = read_picture(tmp_path / name)
    assert torch.equal(picture.rgb, RGB)
    assert picture.alpha is not None
    assert torch.equal(picture.alpha, ALPHA)
    write_picture(str(tmp_path / name), RGB)
    assert read_picture(tmp_path / name).alpha is None
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["a.jpg", "a.JPEG"])
def test_jpeg_is_95_without_subsampling_and_drops_alpha(tmp_path: Path, name: str) -> None:
    rgb = RGB.repeat_interleave(16, 2).repeat_interleave(16, 3)
    write_picture(tmp_path / name, rgb, alpha=torch.zeros(1, 1, 32, 48))
    reference = Image.open(io.BytesIO(encoded(to_pil(rgb), "JPEG", quality=95)))
    with Image.open(tmp_path / name) as image:
        assert image.format == "JPEG"
        assert JpegImagePlugin.get_sampling(image) == 0
        assert image.quantization == reference.quantization
    assert (read_picture(tmp_path / name).rgb - rgb).abs().max() <= 3 / 255


def test_the_same_picture_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg", "a.webp", "a.tif"):
        write_picture(tmp_path / name, RGB, icc=ADOBE_ICC)
        first = (tmp_path / name).read_bytes()
        write_picture(tmp_path / name, RGB, icc=ADOBE_ICC)
        assert (tmp_path / name).read_bytes() == first


TEXTS = {
    "Title": "Größe \u65e5\u672c \U0001f3a8 'single' \"double\" \\",
    "lines and tabs": "\n\t\r\n\x01 x " * 50,
    "empty": "",
    "a" * 79: "{}",
}


@pytest.mark.parametrize("ending", ["png", "jpg", "jpeg", "webp", "tif", "tiff"])
def test_texts_come_back(tmp_path: Path, ending: str) -> None:
    rgb, alpha = torch.rand(1, 3, 5, 7), torch.rand(1, 1, 5, 7)
    plain, path = tmp_path / f"plain.{ending}", tmp_path / f"a.{ending}"
    write_picture(plain, rgb, alpha=alpha, icc=ADOBE_ICC)
    write_picture(path, rgb, alpha=alpha, icc=ADOBE_ICC, text=TEXTS)
    assert read_text(path) == TEXTS
    assert list(read_text(path)) == list(TEXTS)
    assert read_text(plain) == {}
    before, after = read_picture(plain), read_picture(path)
    assert torch.equal(before.rgb, after.rgb)
    assert before.icc == after.icc == ADOBE_ICC
    assert ending.startswith("jp") or torch.equal(before.alpha, after.alpha)
    write_picture(path, rgb, text={})
    assert read_text(path) == {}


def test_other_programs_read_the_texts(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png", torch.rand(1, 3, 5, 7), text=TEXTS)
    data = (tmp_path / "a.png").read_bytes()
    assert chunk(b"iTXt", b"Title\0\0\0\0\0" + TEXTS["Title"].encode()) in data
    assert data.index(b"iTXt") < data.index(b"IDAT")
    write_picture(tmp_path / "a.jpg", torch.rand(1, 3, 5, 7), text=TEXTS)
    with Image.open(tmp_path / "a.jpg") as image:
        assert json.loads(image.getexif()[0x010E]) == TEXTS


@pytest.mark.parametrize("description", ["a plain caption", "[1]", "{", '{"a": 1}', "NaN"])
def test_what_others_describe_is_no_text_of_ours(tmp_path: Path, description: str) -> None:
    exif = Image.Exif()
    exif[0x010E] = description
    assert read_text(saved(tmp_path / "a.jpg", Image.fromarray(COLOURS), exif=exif)) == {}
    assert read_text(saved(tmp_path / "b.jpg", Image.fromarray(COLOURS), exif=b"Exif\0\0broken")) == {}


def test_a_text_behind_the_pixels_is_read(tmp_path: Path) -> None:
    end = chunk(b"IEND", b"")
    data = png(1, 1, 8, 0, b"\0\0").removesuffix(end) + chunk(b"tEXt", b"Comment\0late") + end
    (tmp_path / "a.png").write_bytes(data)
    assert read_text(tmp_path / "a.png") == {"Comment": "late"}


@pytest.mark.parametrize("name", ["", "a" * 80, "ü", " a", "a ", "a  b", "a\nb", "a\0b"])
def test_names_of_texts_that_png_cannot_hold(tmp_path: Path, name: str) -> None:
    for ending in ("png", "jpg"):
        with pytest.raises(InputError, match="names are 1 to 79 printable ASCII characters"):
            write_picture(tmp_path / f"a.{ending}", torch.rand(1, 3, 2, 2), text={name: ""})
    with pytest.raises(InputError, match="'a' has a NUL character"):
        write_picture(tmp_path / "a.png", torch.rand(1, 3, 2, 2), text={"a": "b\0c"})
    assert not list(tmp_path.iterdir())


def test_texts_of_what_is_no_picture(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"cannot read '.*a\.png': it is not a picture"):
        read_text(tmp_path / "a.png")
    with pytest.raises(ImageError, match="no such file"):
        read_text(tmp_path / "absent.png")
    write_picture(tmp_path / "b.png", torch.rand(1, 3, 8, 8))
    with pytest.raises(ImageError, match="the limit is 63"):
        read_text(tmp_path / "b.png", max_pixels=63)


def test_rounding_is_half_to_even_after_the_clamp() -> None:
    halves = (torch.arange(255) + 0.5) / 255
    halves = halves[(halves * 255) % 1 == 0.5]  # those that float32 can say
    assert len(halves) > 100
    row = np.array(to_pil(halves.expand(1, 3, 1, -1)))[0, :, 0]
    assert (row % 2 == 0).all()
    assert (np.abs(row - (halves * 255).numpy()) == 0.5).all()
    wild = torch.tensor([-3.0, -0.001, 1.001, 77.0, 0.4]).expand(1, 3, 1, -1)
    assert np.array(to_pil(wild))[0, :, 1].tolist() == [0, 0, 255, 255, 102]


def test_to_pil_takes_any_float_and_leaves_it_alone() -> None:
    for kind in (torch.float64, torch.float16, torch.bfloat16):
        assert np.array_equal(np.array(to_pil(RGB.to(kind).requires_grad_()))[0], COLOURS[0])
    wild = torch.full((1, 3, 1, 1), 2.0)
    to_pil(wild)
    assert wild.unique().tolist() == [2]
    both = to_pil(RGB, ALPHA)
    assert both.mode == "RGBA"
    assert np.array_equal(np.array(both)[..., 3], (ALPHA[0, 0] * 255).round().numpy())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_refused(tmp_path: Path, bad: float) -> None:
    for rgb, alpha in [(torch.full((1, 3, 2, 2), bad), None), (torch.zeros(1, 3, 2, 2), torch.full((1, 1, 2, 2), bad))]:
        with pytest.raises(ImageError, match="values are NaN or infinite"):
            write_picture(tmp_path / "a.png", rgb, alpha=alpha)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("rgb", [
    torch.zeros(3, 2, 2), torch.zeros(2, 3, 2, 2), torch.zeros(1, 1, 2, 2), torch.zeros(1, 3, 0, 2),
    torch.zeros(1, 3, 2, 2, dtype=torch.uint8),
])  # fmt: skip
def test_tensors_of_another_kind_are_refused(rgb: torch.Tensor) -> None:
    with pytest.raises(
        InputError, match=r"rgb is a torch\.\w+ tensor of shape .*not a floating one of shape \(1, 3, H, W\)"
    ):
        to_pil(rgb)
    with pytest.raises(InputError, match=r"alpha is .* of shape \(1, 1, 2, 3\)"):
        to_pil(RGB, torch.zeros(1, 1, 3, 2))


def unwritable(path: Path) -> str:
    """The reason that check_writable and write_picture both give, word for word."""
    with pytest.raises(ImageError) as early:
        check_writable(path)
    with pytest.raises(ImageError) as late:
        write_picture(path, RGB)
    assert str(early.value) == str(late.value)
    assert str(early.value).isprintable()
    assert str(early.value).startswith(f"cannot write {str(path)!r}: ")
    return str(early.value).partition(f"{str(path)!r}: ")[2]


def test_paths_that_cannot_be_written(tmp_path: Path) -> None:
    known = "choose from .png, .jpg, .jpeg, .webp, .tif, .tiff"
    assert unwritable(tmp_path / "a.gif") == f"unknown ending '.gif': {known}"
    assert unwritable(tmp_path / "png") == f"unknown ending '': {known}"
    assert unwritable(tmp_path / "no" / "a.png") == f"no such folder {str(tmp_path / 'no')!r}"
    (tmp_path / "folder.png").mkdir()
    assert unwritable(tmp_path / "folder.png") == "it is a folder"
    os.mkfifo(tmp_path / "pipe.png")
    assert unwritable(tmp_path / "pipe.png") == "it is not a regular file"
    (tmp_path / "loop.png").symlink_to("loop.png")
    assert "loop" in unwritable(tmp_path / "loop.png")
    assert "null" in unwritable(tmp_path / "a\0b.png")
    check_writable(tmp_path / "good.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.png", "loop.png", "pipe.png"]


@pytest.fixture
def someone() -> Iterator[Path]:
    """A folder of a user who is not root: root may do anything."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        if os.geteuid():
            yield Path(name)
            return
        Path(name).chmod(0o777)
        os.setresuid(65534, 65534, 0)
        try:
            yield Path(name)
        finally:
            os.setresuid(0, 0, 0)


def test_permissions(someone: Path) -> None:
    write_picture(someone / "a.png", RGB)
    (someone / "a.png").chmod(0o444)
    assert unwritable(someone / "a.png") == "permission denied"
    (someone / "a.png").chmod(0)
    assert refusal(someone / "a.png") == "permission denied"
    (someone / "closed").mkdir()
    (someone / "closed").chmod(0o555)
    assert unwritable(someone / "closed" / "a.png") == "permission denied"
    (someone / "closed").chmod(0)
    assert refusal(someone / "closed" / "a.png") == "permission denied"
    assert unwritable(someone / "closed" / "a.png") == "permission denied"


def test_mode_of_a_new_file_is_what_the_umask_leaves(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_picture(tmp_path / "a.png", RGB)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.png").stat().st_mode) == 0o640


def test_mode_of_an_old_file_is_kept(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"old")
    (tmp_path / "a.png").chmod(0o604)
    write_picture(tmp_path / "a.png", RGB)
    assert stat.S_IMODE((tmp_path / "a.png").stat().st_mode) == 0o604
    assert torch.equal(read_picture(tmp_path / "a.png").rgb, RGB)


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_stays_and_its_target_is_written(tmp_path: Path, *, exists: bool) -> None:
    (tmp_path / "deep").mkdir()
    target = tmp_path / "deep" / "target.png"
    if exists:
        target.write_bytes(b"old")
    (tmp_path / "link.png").symlink_to(target)
    write_picture(tmp_path / "link.png", RGB)
    assert (tmp_path / "link.png").is_symlink()
    assert torch.equal(read_picture(target).rgb, RGB)
    assert [path.name for path in target.parent.iterdir()] == ["target.png"]


@pytest.mark.parametrize("step", ["os.fsync", "shutil.copymode", "pathlib.Path.replace"])
def test_a_failing_save_leaves_everything_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "a.png").write_bytes(b"old")
    with monkeypatch.context() as patch:
        patch.setattr(step, full)
        with pytest.raises(ImageError, match=r"^cannot write '.*a\.png': no space left on device$"):
            write_picture(tmp_path / "a.png", RGB)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a.png", b"old")]


def test_an_interrupt_removes_the_temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_picture(tmp_path / "a.png", RGB)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("ending", "most"), [("webp", 16383), ("jpg", 65500)])
def test_what_a_format_cannot_hold_is_saved_as_png(tmp_path: Path, ending: str, most: int) -> None:
    path = tmp_path / f"a.{ending}"
    check_writable(path, size=(1, most))
    write_picture(path, torch.zeros(1, 3, 1, most))
    path.unlink()
    rgb = torch.arange(most + 1).remainder(256).div(255).expand(1, 3, 1, -1)
    told = f"at most {most} pixels a side, not {most + 1}x1"
    with pytest.raises(ImageError, match=told):
        check_writable(path, size=(1, most + 1))
    (tmp_path / "a.png").write_bytes(b"another")
    with pytest.raises(ImageError, match=rf"cannot write '.*a\.{ending}': .*{told}.*; it is saved as '.*a-2\.png'"):
        write_picture(path, rgb)
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "a-2.png"}
    assert torch.equal(read_picture(tmp_path / "a-2.png").rgb, rgb)


def test_a_kill_in_mid_write_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"old")
    code = (
        "import os, sys, torch; from vggfeat.pictures.images import write_picture\n"
        "os.fsync = lambda fd: os.kill(os.getpid(), 9)\n"
        "write_picture(sys.argv[1], torch.rand(1, 3, 64, 64))"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "a.png"], check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "a.png").read_bytes() == b"old"
    left = [path.name for path in tmp_path.iterdir() if path.name != "a.png"]
    assert len(left) == 1
    assert left[0].startswith(".vggfeat-")
