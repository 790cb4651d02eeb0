import csv
import io
import json
import math
import os
from functools import cache
from pathlib import Path

import kornia
import pytest
import torch
from PIL import Image
from torchvision.models import squeezenet1_1

import vggfeat
from vggfeat import DISTS, LPIPS, ImageError, InputError, PerceptualLoss, WeightsError, compare, images, pairs, weights


def picture(seed: int, height: int = 48, width: int = 64) -> torch.Tensor:
    """Soft colours, as a file holds them: in steps of 1/255."""
    coarse = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return images.resize(coarse, height, width).mul(255).round() / 255


def save(path: Path | str, rgb: torch.Tensor) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    vggfeat.write_picture(path, rgb)


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    """Folders `a` and `b` of three pairs, of two sizes, one in a sub-folder and one of two endings."""
    monkeypatch.chdir(tmp_path)
    for seed, (name, other, size) in enumerate(
        [
            ("one.png", "one.png", (48, 64)),
            ("two.png", "two.webp", (40, 40)),
            ("sub/three.png", "sub/three.png", (48, 64)),
        ]
    ):
        save(f"a/{name}", picture(seed, *size))
        save(f"b/{other}", picture(seed + 10, *size))


@pytest.fixture
def spied(monkeypatch):
    """Let a function `before(a, b)` see every batch first."""

    def spy(before):
        call = pairs._Measures.__call__  # noqa: SLF001
        monkeypatch.setattr("vggfeat.pairs._Measures.__call__", lambda self, a, b: before(a, b) or call(self, a, b))

    return spy


def read(path: Path) -> torch.Tensor:
    return vggfeat.read_picture(path).rgb


ORACLES = {
    "lpips-vgg": cache(LPIPS),
    "lpips-alex": cache(lambda: LPIPS("alex")),
    "dists": cache(DISTS),
    "perceptual": cache(PerceptualLoss),
    "psnr": lambda: lambda x, y: kornia.metrics.psnr(x, y, 1.0),
    "ssim": lambda: lambda x, y: kornia.metrics.ssim(x, y, 11, padding="valid").mean(),
}


@pytest.mark.parametrize("batch_size", [1, 8])
def test_every_pair_has_the_values_it_has_alone(batch_size):
    found = compare("a", "b", tuple(ORACLES), batch_size=batch_size, device="cpu")
    assert [row.pair.name for row in found.rows] == ["one.png", "sub/three.png", "two.png"]
    for row in found.rows:
        x, y = read(row.pair.a), read(row.pair.b)
        assert (row.height, row.width) == x.shape[2:]
        assert list(row.values) == list(ORACLES)
        for name, oracle in ORACLES.items():
            assert row.values[name] == pytest.approx(float(oracle()(x, y)), rel=1e-4), name
    for name in ORACLES:
        assert found.mean[name] == pytest.approx(sum(row.values[name] for row in found.rows) / 3)
    assert not found.failures
    assert not found.unmatched


def test_perceptual_alone_stops_early_and_is_the_same():
    [row] = compare("a/one.png", "b/one.png", "perceptual", device="cpu").rows
    assert row.values["perceptual"] == pytest.approx(
        float(ORACLES["perceptual"]()(read("a/one.png"), read("b/one.png"))), rel=1e-5
    )


def test_metrics_of_one_network_share_its_pass(monkeypatch):
    passes = []
    run = vggfeat.FeatureExtractor.run
    monkeypatch.setattr(vggfeat.FeatureExtractor, "run", lambda self, x: passes.append(len(x)) or run(self, x))
    compare("a/one.png", "b/one.png", ("lpips-vgg", "perceptual"), heatmaps="heat", layers=True)
    assert passes == [1, 1]


def test_batches_hold_pairs_of_one_size(spied, monkeypatch):
    for seed in range(12):
        save(f"c/{seed:02}.png", picture(seed, 32, 32 + seed % 2))
    shapes = []
    spied(lambda a, _: shapes.append(tuple(a.shape)))
    found = compare("c", "c", "psnr", batch_size=4)
    assert shapes == [(4, 3, 32, 32), (4, 3, 32, 33), (2, 3, 32, 32), (2, 3, 32, 33)]
    assert [row.pair.name for row in found.rows] == [f"{number:02}.png" for number in range(12)]
    shapes.clear()
    monkeypatch.setattr(pairs, "_USUAL_PIXELS", 2 * 32 * 33 // 4)  # room for two pictures
    assert len(compare("c", "c", "psnr", batch_size=4).rows) == 12
    assert [shape[0] for shape in shapes] == [2] * 6


def test_what_waits_for_its_batch_is_bounded(spied, monkeypatch):
    for seed in range(9):
        save(f"c/{seed}.png", picture(seed, 32, 30 + seed))
    opened, waiting = [], []
    read_picture = images.read_picture
    monkeypatch.setattr(images, "read_picture", lambda path: opened.append(path) or read_picture(path))
    spied(lambda a, _: waiting.append(len(opened) // 2 - len(waiting) * len(a)))
    monkeypatch.setattr(pairs, "_USUAL_PIXELS", 3 * 32 * 40 // 4)  # room for three pictures
    assert len(compare("c", "c", "psnr", batch_size=4).rows) == 9
    assert max(waiting) == 4


def test_layers_add_up():
    found = compare("a/one.png", "b/one.png", ("lpips-alex", "dists", "psnr"), layers=True)
    for metric, count in (("lpips-alex", 5), ("dists", 6)):
        parts = [value for name, value in found.mean.items() if name.startswith(f"{metric}/")]
        assert len(parts) == count
        assert sum(parts) == pytest.approx(found.mean[metric], rel=1e-5)
    assert list(found.mean)[:2] == ["lpips-alex", "lpips-alex/relu1_1"]
    assert list(found.mean)[-1] == "psnr"


def test_equal_pictures():
    mean = compare("a", "a").mean
    assert mean["lpips-vgg"] == 0
    assert mean["dists"] == pytest.approx(0, abs=1e-6)
    assert mean["psnr"] == math.inf
    assert mean["ssim"] == pytest.approx(1, abs=1e-4)


def test_matching():
    for name in ("b/only.png", "a/.hidden.png", "a/notes.txt", "a/.git/x.png", "a/odd.png", "b/odd.webp", "b/odd.tif"):
        save(f"{name}.png", picture(1)) if name.endswith("txt") else save(name, picture(1))
    Path("a/notes.txt.png").rename("a/notes.txt")
    found, unmatched = pairs.match("a", "b")
    assert [(pair.name, str(pair.b)) for pair in found] == [
        ("one.png", "b/one.png"),
        ("sub/three.png", "b/sub/three.png"),
        ("two.png", "b/two.webp"),
    ]
    assert unmatched == {
        "b/only.png": "no counterpart in 'a'",
        "a/odd.png": "odd.tif, odd.webp in 'b' could be its counterpart, endings differ",
        "b/odd.tif": "odd.png in 'a' could be its counterpart, endings differ",
        "b/odd.webp": "odd.png in 'a' could be its counterpart, endings differ",
    }


def test_the_same_name_comes_before_the_same_stem():
    save("a/two.webp", picture(1))
    found, unmatched = pairs.match("a", "b")
    assert [str(pair.a) for pair in found if pair.b.name == "two.webp"] == ["a/two.webp"]
    assert unmatched == {"a/two.png": "no counterpart in 'b'"}


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ("a", "b/sub", r"no picture of 'a' \(one.png, sub/three.png, ...\) has the name of one of 'b/sub' \(three.png"),
        ("a", "empty", r"of 'empty' \(no pictures\)"),
        ("a", "b/one.png", "'a' is a folder and 'b/one.png' is not a folder: compare two pictures or two folders"),
        ("a/one.png", "b", "'b' is a folder and 'a/one.png' is not a folder"),
        ("a", "absent", "'a' is a folder and 'absent' is not there"),
    ],
)
def test_nothing_to_compare(a, b, message):
    Path("empty").mkdir()
    with pytest.raises(InputError, match=message):
        compare(a, b)


def test_a_bad_pair_does_not_keep_the_others():
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


def test_values_that_are_not_finite_are_failures(monkeypatch):
    monkeypatch.setattr("kornia.metrics.ssim", lambda x, *_, **__: x * math.nan)
    found = compare("a", "b", "ssim")
    assert len(found.failures) == 3
    assert "ssim of 'one.png' is nan" in found.failures[0].reason
    assert found.mean == {}


def test_two_pictures_that_cannot_be_compared_raise(monkeypatch):
    with pytest.raises(ImageError, match="no such file; near"):
        compare("a/ona.png", "b/one.png")
    with pytest.raises(InputError, match=r"is 64x48 and 'b/two.webp' 40x40 pixels"):
        compare("a/one.png", "b/two.webp")
    save("tiny.png", picture(1, 10, 10))
    with pytest.raises(InputError, match="10x10 pixels are too small for ssim: it needs at least 11"):
        compare("tiny.png", "tiny.png", "ssim")
    monkeypatch.setattr(pairs, "_kornia", lambda *_: torch.zeros(2) @ torch.zeros(3))
    with pytest.raises(InputError, match=r"cannot compare 'tiny.png' and 'tiny.png': inconsistent tensor size"):
        compare("tiny.png", "tiny.png", "psnr")


@pytest.mark.parametrize(("resize", "text", "size"), [((32, 24), "32x24", (32, 24)), (36, "shorter side 36", (48, 36))])
def test_resize(resize, text, size):
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
        ({"metrics": "dist"}, "unknown metric 'dist': near are dists"),
        ({"metrics": ()}, "no metric to compare by"),
        ({"resize": 0}, "resize is 0"),
        ({"resize": (0, 5)}, r"resize is \(0, 5\)"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"device": "gpu"}, "unknown device 'gpu'"),
        ({"precision": "float8"}, "unknown precision 'float8'"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(InputError, match=message):
        compare("a", "b", **options)


def test_missing_weights_are_no_bad_pair(monkeypatch):
    def refuse(*_):
        raise WeightsError("not bundled")

    monkeypatch.setattr("vggfeat.similarity._squeezenet_state", refuse)
    with pytest.raises(WeightsError, match="not bundled"):
        compare("a", "b", "lpips-squeeze")


def test_squeeze_names_its_weights(monkeypatch):
    state = squeezenet1_1(weights=None).features.state_dict()
    monkeypatch.setattr("vggfeat.similarity._squeezenet_state", lambda _: state)
    found = compare("a", "b", "lpips-squeeze")
    assert found.metadata["metrics"]["lpips-squeeze"]["sha256"] == "b8a52dc0"
    assert len(found.rows) == 3


def test_metadata_says_what_the_values_depend_on():
    about = compare("a/one.png", "b/one.png", ("lpips-alex", "dists", "psnr"), precision="auto").metadata
    assert (
        about["metrics"]["lpips-alex"].items()
        >= {
            "net": "alexnet",
            "version": "0.1",
            "weights": "imagenet1k_v1",
            "sha256": weights.find("alexnet").sha256,
        }.items()
    )
    assert about["metrics"]["dists"]["alpha_beta_sha256"] == weights.DISTS_SHA256
    assert about["metrics"]["psnr"]["by"] == f"kornia {kornia.__version__}"
    assert about["vggfeat"] == vggfeat.__version__
    assert about["input_range"] == [0, 1]
    assert about["resize"] is None
    assert about["precision"] in ("float32", "bfloat16")


def test_json_and_csv_hold_everything():
    Path("a/bad.png").write_text("no picture")
    save("b/bad.png", picture(1))
    save('a/lone, or "alone".png', picture(1))
    save("b/one.png", read("a/one.png"))
    found = compare("a", "b", ("psnr", "lpips-alex"), layers=True)
    content = json.loads(found.as_json(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert list(content) == ["metadata", "pairs", "mean", "unmatched", "failed"]
    assert [row["pair"] for row in content["pairs"]] == ["one.png", "sub/three.png", "two.png"]
    assert [row["psnr"] for row in content["pairs"]] == [None, *(row.values["psnr"] for row in found.rows[1:])]
    assert content["pairs"][2].items() >= {"a": "a/two.png", "b": "b/two.webp", "width": 40, "height": 40}.items()
    assert content["mean"] == {**found.mean, "psnr": None}
    assert content["metadata"] == json.loads(json.dumps(found.metadata))
    assert content["unmatched"] == [{"picture": 'a/lone, or "alone".png', "reason": "no counterpart in 'b'"}]
    assert [(row["pair"], "not a picture" in row["reason"]) for row in content["failed"]] == [("bad.png", True)]

    rows = list(csv.DictReader(io.StringIO(found.as_csv())))
    assert list(rows[0]) == ["pair", "a", "b", "width", "height", *found.mean, "error", "metadata"]
    assert [row["pair"] for row in rows] == ["one.png", "sub/three.png", "two.png", "bad.png", "mean"]
    assert float(rows[0]["psnr"]) == math.inf
    for name, value in found.rows[1].values.items():
        assert float(rows[1][name]) == value
        assert float(rows[-1][name]) == found.mean[name]
    assert rows[3]["psnr"] == ""
    assert "not a picture" in rows[3]["error"]
    assert json.loads(rows[-1]["metadata"]) == content["metadata"]


@pytest.mark.skipif(os.name == "nt", reason="names there are text")
def test_names_that_are_no_text_are_compared_too():
    os.link(b"a/one.png", b"a/\xff.png")
    os.link(b"b/one.png", b"b/\xff.png")
    found = compare("a", "b", "psnr", heatmaps=None)
    [row] = [row for row in found.rows if row.pair.name == "\ufffd.png"]
    assert row.values == next(row for row in found.rows if row.pair.name == "one.png").values
    found.as_csv().encode()


def test_progress_comes_pair_by_pair():
    run = pairs.Comparing(
        *("a", "b", "psnr"), layers=False, resize=None, heatmaps=None, batch_size=1, device="cpu", precision="float32"
    )
    assert len(run) == 3
    assert next(iter(run)).pair.name == "one.png"
    assert len(run.result().rows) == 3


def test_heat_map_is_bright_where_a_patch_differs():
    x = picture(1, 96, 96)
    y = x.clone()
    y[..., 32:64, 48:80] = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    save("c/x.png", x)
    save("d/x.png", y)
    found = compare("c", "d", "psnr", heatmaps="heat")
    with Image.open("heat/x.png") as heat:
        assert heat.size == (96, 96)
    grey = read("heat/x.png").mean(1)[0]
    inside = grey[36:60, 52:76]
    outside = torch.cat([grey[:20].flatten(), grey[76:].flatten(), grey[:, :32].flatten()])
    assert inside.mean() > 0.4
    assert inside.min() > outside.max()
    assert outside.mean() < 0.25
    assert found.metadata["heatmap"] == {"metric": "lpips-vgg, spatial", "black": 0, "white": 0.8}
    assert list(found.mean) == ["psnr"]


def test_the_heat_map_of_equal_pictures_is_their_dim_grey():
    compare("a/one.png", "a/one.png", "lpips-alex", heatmaps="heat")
    grey = kornia.color.rgb_to_grayscale(read("a/one.png"), torch.tensor([0.2126, 0.7152, 0.0722]))
    assert (read("heat/one.png") - 0.25 * grey).abs().max() < 1 / 255


def test_heat_maps_show_spatial_lpips(monkeypatch):
    shown = {}
    monkeypatch.setattr(pairs, "_save_heatmap", lambda path, picture, heat: shown.update({str(path): (picture, heat)}))
    compare("a", "b", ("psnr", "lpips-alex"), heatmaps="heat", device="cpu")
    assert set(shown) == {"heat/one.png", "heat/two.png", "heat/sub/three.png"}
    expected = LPIPS("alex", spatial=True)(read("a/sub/three.png"), read("b/sub/three.png"))
    torch.testing.assert_close(shown["heat/sub/three.png"][1], expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(shown["heat/sub/three.png"][0], read("b/sub/three.png"))


def test_heat_maps_of_pictures_that_differ_by_ending_alone():
    save("a/one.webp", picture(4))
    save("b/one.webp", picture(5))
    compare("a", "b", "lpips-alex", heatmaps="heat")
    assert sorted(path.name for path in Path("heat").glob("*.png")) == ["one.png.png", "one.webp.png", "two.png"]


def test_heat_maps_replace_no_picture():
    before = Path("b/one.png").read_bytes()
    with pytest.raises(ImageError, match=r"the heat map 'b/one.png' would replace a picture"):
        compare("a", "b", "psnr", heatmaps="b")
    with pytest.raises(ImageError, match=r"cannot make the folder 'b/one.png'"):
        compare("a/one.png", "a/one.png", "psnr", heatmaps="b/one.png")
    assert Path("b/one.png").read_bytes() == before


def test_colours_are_in_gamut_and_evenly_lighter():
    rgb = pairs.colours(torch.linspace(0, 1, 101).reshape(1, 1, 1, 101))
    assert rgb[0, :, 0, 0].max() < 0.01
    assert rgb[0, :, 0, -1].min() > 0.9
    lightness = kornia.color.rgb_to_lab(rgb)[0, 0, 0]
    assert lightness.diff().min() > 0
    steps = lightness[25:].diff()  # in the dark CIELAB and OKLab disagree
    assert steps.max() < 1.3 * steps.min()
    assert rgb.diff(dim=3).norm(dim=1).max() < 0.06  # no edges
