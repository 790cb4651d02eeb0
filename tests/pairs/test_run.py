import math
import os
from pathlib import Path

import kornia
import pytest
import torch

from vggfeat import ImageError, InputError, WeightsError, compare
from vggfeat.pairs import run
from vggfeat.pairs.measure import Measures
from vggfeat.pairs.run import Comparing
from vggfeat.pictures import images


@pytest.fixture
def spied(monkeypatch):
    """Let a function `before(a, b)` see every batch first."""

    def spy(before):
        call = Measures.__call__
        monkeypatch.setattr(Measures, "__call__", lambda self, a, b: before(a, b) or call(self, a, b))

    return spy


def test_batches_hold_pairs_of_one_size(spied, monkeypatch, picture, save):
    for seed in range(12):
        save(f"c/{seed:02}.png", picture(seed, 32, 32 + seed % 2))
    shapes = []
    spied(lambda a, _: shapes.append(tuple(a.shape)))
    found = compare("c", "c", "psnr", batch_size=4)
    assert shapes == [(4, 3, 32, 32), (4, 3, 32, 33), (2, 3, 32, 32), (2, 3, 32, 33)]
    assert [row.pair.name for row in found.rows] == [f"{number:02}.png" for number in range(12)]
    shapes.clear()
    monkeypatch.setattr("vggfeat.pictures.batching.USUAL_PIXELS", 2 * 32 * 33 // 4)  # room for two pictures
    assert len(compare("c", "c", "psnr", batch_size=4).rows) == 12
    assert [shape[0] for shape in shapes] == [2] * 6


def test_what_waits_for_its_batch_is_bounded(spied, monkeypatch, picture, save):
    for seed in range(9):
        save(f"c/{seed}.png", picture(seed, 32, 30 + seed))
    opened, waiting = [], []
    read_picture = images.read_picture
    monkeypatch.setattr(images, "read_picture", lambda path: opened.append(path) or read_picture(path))
    spied(lambda a, _: waiting.append(len(opened) // 2 - len(waiting) * len(a)))
    monkeypatch.setattr("vggfeat.pictures.batching.USUAL_PIXELS", 3 * 32 * 40 // 4)  # room for three pictures
    assert len(compare("c", "c", "psnr", batch_size=4).rows) == 9
    assert max(waiting) == 4


def test_a_bad_pair_does_not_keep_the_others(picture, save):
    Path("a/bad.png").write_text("no picture")
    save("b/bad.png", picture(1))
    for folder, size in (("a", (48, 64)), ("b", (24, 32))):
        save(f"{folder}/sizes.png", picture(1, *size))
        save(f"{folder}/small.png", picture(1, 8, 8))
    found = compare("a", "b", ("lpips-alex", "ssim"))
    assert len(found.rows) == 3
    reasons = {failure.pair.name: failure.reason for failure in found.failures}
    assert list(reasons) == ["bad.png", "sizes.png", "small.png"]
    assert "cannot read 'a/bad.png': it is not a picture" in reasons["bad.png"]
    assert "'a/sizes.png' is 64x48 and 'b/sizes.png' 32x24 pixels" in reasons["sizes.png"]
    assert "pass --resize 32x24, in Python resize=(32, 24)" in reasons["sizes.png"]
    assert "too small for" in reasons["small.png"]
    assert found.mean["ssim"] == pytest.approx(sum(row.values["ssim"] for row in found.rows) / 3)


def test_a_batch_that_does_not_fit_is_tried_pair_by_pair(spied):
    def run_out(a, _):
        if len(a) > 1 or a.shape[3] == 40:
            raise torch.OutOfMemoryError("out of memory\nand much more")

    spied(run_out)
    found = compare("a", "b", "psnr")
    assert [row.pair.name for row in found.rows] == ["one.png", "sub/three.png"]
    assert [(failure.pair.name, failure.reason) for failure in found.failures] == [("two.png", "out of memory")]


def test_what_is_too_large_to_load_is_one_bad_pair(monkeypatch, picture, save):
    for folder in ("a", "b"):
        save(f"{folder}/line.png", picture(1, 1, 20000))
    read_picture = images.read_picture

    def read(path):
        if path.name in ("one.png", "two.png"):
            raise {"one.png": MemoryError(), "two.png": RuntimeError("cannot allocate memory\nat")}[path.name]
        return read_picture(path)

    monkeypatch.setattr(images, "read_picture", read)
    found = compare("a", "b", "psnr", resize=120)
    assert [row.pair.name for row in found.rows] == ["sub/three.png"]
    assert {failure.pair.name: failure.reason for failure in found.failures} == {
        "line.png": "'a/line.png' would have 2400000 x 120 = 288000000 pixels, the limit is 200000000",
        "one.png": "out of memory",
        "two.png": "cannot allocate memory",
    }
    with pytest.raises(InputError, match=r"cannot compare 'a/one.png' and 'b/one.png': out of memory"):
        compare("a/one.png", "b/one.png", "psnr")


def test_a_heat_map_that_does_not_fit_is_one_bad_pair(monkeypatch):
    save_heatmap = run.save_heatmap

    def save(path, *arguments):
        if path.name == "one.png":
            raise MemoryError
        save_heatmap(path, *arguments)

    monkeypatch.setattr(run, "save_heatmap", save)
    found = compare("a", "b", "lpips-alex", heatmaps="heat")
    assert [failure.pair.name for failure in found.failures] == ["one.png"]
    assert sorted(path.name for path in Path("heat").rglob("*.png")) == ["three.png", "two.png"]


def test_values_that_are_not_finite_are_failures(monkeypatch):
    monkeypatch.setattr("kornia.metrics.ssim", lambda x, *_, **__: x * math.nan)
    found = compare("a", "b", "ssim")
    assert len(found.failures) == 3
    assert "ssim of 'one.png' is nan" in found.failures[0].reason
    assert found.mean == {}


def test_two_pictures_that_cannot_be_compared_raise(monkeypatch, picture, save):
    with pytest.raises(ImageError, match="no such file; did you mean"):
        compare("a/ona.png", "b/one.png")
    with pytest.raises(InputError, match=r"is 64x48 and 'b/two.webp' 40x40 pixels"):
        compare("a/one.png", "b/two.webp")
    save("tiny.png", picture(1, 10, 10))
    with pytest.raises(InputError, match="10x10 pixels are too small for ssim: it needs at least 11"):
        compare("tiny.png", "tiny.png", "ssim")
    monkeypatch.setattr("kornia.metrics.psnr", lambda *_: torch.zeros(2) @ torch.zeros(3))
    with pytest.raises(InputError, match=r"cannot compare 'tiny.png' and 'tiny.png': inconsistent tensor size"):
        compare("tiny.png", "tiny.png", "psnr")


@pytest.mark.parametrize(("resize", "text", "size"), [((32, 24), "32x24", (32, 24)), (36, "shorter side 36", (48, 36))])
def test_resize(resize, text, size, picture, read, save):
    save("large.png", picture(3, 96, 128))
    found = compare("large.png", "b/one.png", ("psnr", "dists"), resize=resize)
    [row] = found.rows
    assert (row.width, row.height) == size
    assert found.metadata["resize"] == text
    x, y = (images.resize(read(path), size[1], size[0]) for path in ("large.png", "b/one.png"))
    assert row.values["psnr"] == pytest.approx(float(kornia.metrics.psnr(x, y, 1.0)), rel=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": "dist"}, "unknown metric 'dist': did you mean dists"),
        ({"metrics": ()}, "no metric to compare by"),
        ({"metrics": None}, "unknown metric 'None': it is of type NoneType; choose from lpips-vgg, "),
        ({"metrics": ["psnr", None]}, "unknown metric 'None': it is of type NoneType; choose from lpips-vgg, "),
        ({"metrics": [["psnr"]]}, "it is of type list; choose from lpips-vgg, "),
        (
            {"metrics": ("psnr", "ssim"), "layers": True},
            "no layers in psnr, ssim: known for lpips-vgg, lpips-alex, lpips-squeeze, dists",
        ),
        ({"heatmaps": ""}, "the folder of the heat maps has an empty name"),
        ({"resize": 0}, "resize is 0"),
        ({"resize": (0, 5)}, "resize is 0"),
        ({"resize": 999999999}, "resize is 999999999: that makes 999999998000000001 pixels, the limit is 200000000"),
        ({"resize": (200000001, 1)}, r"resize is \(200000001, 1\): that makes 200000001 pixels"),
        ({"batch_size": 0}, "batch.size is 0: it must be a whole number of at least 1"),
        ({"device": "gpu"}, "unknown device 'gpu'"),
        ({"precision": "float8"}, "unknown precision 'float8'"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(InputError, match=message):
        compare("a", "b", **options)


def test_missing_weights_are_no_bad_pair(monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise OSError("no route to host")

    for folder in ("VGGFEAT_CACHE", "TORCH_HOME"):
        monkeypatch.setenv(folder, str(tmp_path / "none"))
    monkeypatch.setattr("urllib.request.urlopen", refuse)
    with pytest.raises(WeightsError, match="not bundled"):
        compare("a", "b", "lpips-squeeze")


@pytest.mark.skipif(os.name == "nt", reason="names there are text")
def test_names_that_are_no_text_are_compared_too():
    os.link(b"a/one.png", b"a/\xff.png")
    os.link(b"b/one.png", b"b/\xff.png")
    found = compare("a", "b", "psnr", heatmaps=None)
    [row] = [row for row in found.rows if row.pair.name == "\ufffd.png"]
    assert row.values == next(row for row in found.rows if row.pair.name == "one.png").values
    found.as_csv().encode()


def test_progress_comes_pair_by_pair():
    run = Comparing(
        *("a", "b", "psnr"), layers=False, resize=None, heatmaps=None, batch_size=1, device="cpu", precision="float32"
    )
    assert len(run) == 3
    assert next(iter(run)).pair.name == "one.png"
    assert len(run.result().rows) == 3
