import math
from functools import cache

import kornia
import pytest
import torch
from torchvision.models import squeezenet1_1

import vggfeat
from vggfeat import ADISTS, DISTS, LPIPS, STLPIPS, PerceptualLoss, compare
from vggfeat.networks import weights

ORACLES = {
    "lpips-vgg": cache(LPIPS),
    "lpips-alex": cache(lambda: LPIPS("alex")),
    "dists": cache(DISTS),
    "stlpips-alex": cache(STLPIPS),
    "a-dists": cache(ADISTS),
    "perceptual": cache(PerceptualLoss),
    "psnr": lambda: lambda x, y: kornia.metrics.psnr(x, y, 1.0),
    "ssim": lambda: lambda x, y: kornia.metrics.ssim(x, y, 11, padding="valid").mean(),
}


@pytest.mark.parametrize("batch_size", [1, 8])
def test_every_pair_has_the_values_it_has_alone(batch_size, read):
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


def test_perceptual_alone_stops_early_and_is_the_same(read):
    [row] = compare("a/one.png", "b/one.png", "perceptual", device="cpu").rows
    assert row.values["perceptual"] == pytest.approx(
        float(ORACLES["perceptual"]()(read("a/one.png"), read("b/one.png"))), rel=1e-5
    )


@pytest.mark.parametrize(
    ("metrics", "count"),
    [(("lpips-vgg", "perceptual"), 1), (("perceptual", "lpips-vgg"), 1), (("dists", "a-dists"), 1),
     (("a-dists", "lpips-vgg", "dists", "lpips-alex"), 3)],
)  # fmt: skip
def test_metrics_of_one_network_share_its_pass(metrics, count, monkeypatch):
    passes = []
    run = vggfeat.FeatureExtractor.run
    monkeypatch.setattr(vggfeat.FeatureExtractor, "run", lambda self, x: passes.append(len(x)) or run(self, x))
    [row] = compare("a/one.png", "b/one.png", metrics, layers=True).rows
    assert passes == [1, 1] * count
    alone = {}
    for metric in metrics:
        alone |= compare("a/one.png", "b/one.png", metric, layers=metric != "perceptual").rows[0].values
    assert row.values == pytest.approx(alone, rel=1e-5)


def test_heat_maps_take_no_pass_of_their_own(monkeypatch):
    passes = []
    run = vggfeat.FeatureExtractor.run
    monkeypatch.setattr(vggfeat.FeatureExtractor, "run", lambda self, x: passes.append(len(x)) or run(self, x))
    compare("a/one.png", "b/one.png", ("lpips-vgg", "perceptual"), heatmaps="heat")
    assert passes == [1, 1]


def test_layers_add_up():
    found = compare("a/one.png", "b/one.png", ("lpips-alex", "dists", "stlpips-alex", "a-dists", "psnr"), layers=True)
    for metric, count in (("lpips-alex", 5), ("dists", 6), ("stlpips-alex", 5), ("a-dists", 6)):
        parts = [value for name, value in found.mean.items() if name.startswith(f"{metric}/")]
        assert len(parts) == count
        assert sum(parts) == pytest.approx(found.mean[metric], rel=1e-5)
    assert list(found.mean)[:2] == ["lpips-alex", "lpips-alex/relu1_1"]
    assert list(found.mean)[-1] == "psnr"


def test_equal_pictures():
    mean = compare("a", "a").mean
    assert mean["lpips-vgg"] == 0
    assert 0 <= mean["dists"] < 1e-6
    assert mean["psnr"] == math.inf
    assert mean["ssim"] == pytest.approx(1, abs=1e-4)


def test_dists_and_its_layers_are_never_negative(monkeypatch):
    loss = vggfeat.DISTSLoss
    per_layer = loss.per_layer
    monkeypatch.setattr(loss, "per_layer", lambda *x: {name: y * 0 - 1e-9 for name, y in per_layer(*x).items()})
    other = vggfeat.ADISTSLoss
    monkeypatch.setattr(other, "per_layer", lambda _, x, __: {"image": x["image"].sum((1, 2, 3)) * 0 - 1})
    [row] = compare("a/one.png", "a/one.png", ("dists", "a-dists", "lpips-alex"), layers=True).rows
    values = {name: value for name, value in row.values.items() if not name.startswith("a-dists")}
    assert all(value == 0 for value in values.values())
    assert row.values["a-dists"] == -1  # a fault would show


def test_squeeze_names_its_weights(monkeypatch, tmp_path):
    torch.save(squeezenet1_1(weights=None).state_dict(), tmp_path / "squeeze.pth")
    monkeypatch.setattr("vggfeat.features.squeezenet.torchvision_file", lambda *_, **__: tmp_path / "squeeze.pth")
    found = compare("a", "b", "lpips-squeeze")
    assert found.metadata["metrics"]["lpips-squeeze"]["sha256"] == "b8a52dc0"
    assert len(found.rows) == 3


def test_metadata_says_what_the_values_depend_on():
    about = compare(
        "a/one.png", "b/one.png", ("lpips-alex", "dists", "stlpips-alex", "psnr"), precision="auto"
    ).metadata
    assert (
        about["metrics"]["lpips-alex"].items()
        >= {
            "net": "alexnet",
            "version": "0.1",
            "weights": "imagenet1k_v1",
            "sha256": weights.find_entry("alexnet").sha256,
        }.items()
    )
    assert about["metrics"]["dists"]["alpha_beta_sha256"] == weights.DISTS_SHA256
    assert about["metrics"]["stlpips-alex"]["net"] == "shift-tolerant alexnet"
    assert about["metrics"]["stlpips-alex"]["sha256"] == weights.STLPIPS_SHA256
    assert about["metrics"]["psnr"]["by"] == f"kornia {kornia.__version__}"
    assert about["vggfeat"] == vggfeat.__version__
    assert about["input_range"] == [0, 1]
    assert about["resize"] is None
    assert about["precision"] in ("float32", "bfloat16")


def test_every_metric_has_a_signature():
    metrics = ("lpips-alex", "dists", "stlpips-alex", "psnr", "perceptual")
    plain, resized = (compare("a/one.png", "b/one.png", metrics, resize=resize) for resize in (None, (40, 36)))
    assert list(plain.signatures) == list(metrics)
    assert plain.signatures["lpips-alex"] == vggfeat.LPIPS("alex").signature()
    assert plain.signatures["dists"] == vggfeat.DISTS().signature()
    assert plain.signatures["stlpips-alex"] == vggfeat.STLPIPS().signature()
    assert plain.signatures["psnr"].startswith(f"psnr | kornia {kornia.__version__} | input_range=unit | resize=none |")
    for name, line in resized.signatures.items():
        assert line == plain.signatures[name].replace("resize=none", "resize=40x36")
    assert resized.signatures["dists"] in resized.as_json()
