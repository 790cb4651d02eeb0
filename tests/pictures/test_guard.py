"""Damaged files give a picture or a one-line error, and Pillow's settings stay as they were."""

import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from picture_files import (
    COLOURS,
    ORIENTATION,
    chunk,
    encoded,
    pixels,
    png,
    refusal,
    saved,
)
from PIL import Image

from vggfeat.errors import ImageError
from vggfeat.pictures.images import (
    from_pil,
    read_picture,
)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_truncated(tmp_path: Path, kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    whole = encoded(Image.fromarray(noise), kind)
    path = tmp_path / "a.bin"
    path.write_bytes(whole[: len(whole) // 2])
    reason = refusal(path)
    assert reason.startswith("the file is ")
    if kind in {"JPEG", "PNG"}:
        assert reason == "the file is truncated"


PLAIN = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "TGA", "ICO", "JPEG2000", "PCX", "SGI", "DDS")

BROKEN = [*((kind, {}) for kind in PLAIN), *(("TIFF", {"compression": name}) for name in ("tiff_lzw", "jpeg"))]


@pytest.mark.parametrize(("kind", "options"), BROKEN, ids=[" ".join((kind, *o.values())) for kind, o in BROKEN])
def test_any_bytes_give_a_picture_or_an_image_error(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], kind: str, options: dict[str, str]
) -> None:
    generator = np.random.default_rng(7)
    exif = {} if kind in {"BMP", "PPM", "TGA", "ICO", "PCX", "SGI", "DDS", "GIF"} else {"exif": Image.Exif()}
    if exif:
        exif["exif"][ORIENTATION] = 6
    smooth = np.add.outer(np.arange(30), np.arange(20))[..., None].repeat(3, -1).astype(np.uint8)
    whole = encoded(Image.fromarray(smooth), kind, **options, **exif)
    path, refused = tmp_path / "broken.bin", 0
    cuts = [whole[: int(len(whole) * part)] for part in np.linspace(0, 1, 14)[:-1]]
    flips = []
    for count in (1, 1, 1, 1, 2, 2, 3, 5, 8, 13, 21, 34):
        data = np.frombuffer(whole, np.uint8).copy()
        reach = len(data) if count % 2 else min(len(data), 200)  # headers are where parsers break
        data[generator.integers(0, reach, count)] = generator.integers(0, 256, count)
        flips.append(data.tobytes())
    for data in (*cuts, *flips, generator.bytes(500), whole[:20] + generator.bytes(500)):
        path.write_bytes(data)
        try:
            picture = read_picture(path, max_pixels=1_000_000)
        except ImageError as error:
            refused += 1
            assert str(error).startswith(f"cannot read {str(path)!r}: ")  # noqa: PT017 - only some are refused
            assert str(error).isprintable()  # noqa: PT017
        else:
            assert 0 <= pixels(picture).min() <= pixels(picture).max() <= 255
    assert refused >= 5
    if kind != "TIFF":  # libtiff itself speaks on the process's stderr
        assert capfd.readouterr() == ("", "")


MORE = " (max_pixels, or --max-megapixels, allows more)"


def test_corrupt_png_chunks(tmp_path: Path) -> None:
    whole = encoded(Image.fromarray(COLOURS), "PNG")
    path = tmp_path / "a.png"
    for name in (b"IHDR", b"IDAT"):
        at = whole.index(name) + 4
        path.write_bytes(whole[:at] + b"\xff\xff" + whole[at + 2 :])
        assert len(refusal(path)) > 10


def test_no_pixels(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(0, 5, 8, 2, b""))
    refusal(tmp_path / "a.png")
    with pytest.raises(ImageError, match="cannot read the PIL image: it has no pixels: its size is 0 x 5"):
        from_pil(Image.new("RGB", (0, 5)))


def test_too_many_pixels_are_refused_before_decoding(tmp_path: Path) -> None:
    limit, path = Image.MAX_IMAGE_PIXELS, tmp_path / "a.png"
    path.write_bytes(png(15000, 15000, 8, 2, b""))  # no data: decoding would call it truncated
    assert refusal(path) == "it has 15000 x 15000 = 225000000 pixels, the limit is 200000000" + MORE
    path.write_bytes(png(100000, 100000, 8, 2, b""))
    assert refusal(path) == "it has more than 400000000 pixels, the limit is 200000000" + MORE
    saved(path, Image.fromarray(COLOURS))
    assert read_picture(path, max_pixels=6).rgb.shape == (1, 3, 2, 3)
    with pytest.raises(ImageError, match="it has 3 x 2 = 6 pixels, the limit is 5"):
        read_picture(path, max_pixels=5)
    assert limit == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("ending", ["png", "tiff", "jpg"])
def test_the_limit_given_counts_instead_of_pillows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    path = saved(tmp_path / f"a.{ending}", Image.fromarray(COLOURS))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2)
    assert read_picture(path).rgb.shape == (1, 3, 2, 3)
    assert Image.MAX_IMAGE_PIXELS == 2


def test_pillows_warnings_stay_inside_in_many_threads(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(1, 1, 8, 0, b"\0\x80", chunk(b"acTL", bytes(8))))
    with pytest.warns(UserWarning, match="Invalid APNG"), Image.open(path):
        pass
    filters, limit, failures = list(warnings.filters), Image.MAX_IMAGE_PIXELS, []

    def work() -> None:
        try:
            for _ in range(20):
                read_picture(path, max_pixels=9)
        except Exception as error:  # noqa: BLE001 - told to the main thread
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert list(warnings.filters) == filters
    assert limit == Image.MAX_IMAGE_PIXELS
