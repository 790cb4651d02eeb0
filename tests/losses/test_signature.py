"""One line identifies a metric: equal for equal metrics, different where anything that changes the value differs."""

import itertools
from importlib.metadata import version

import pytest
import torch

from vggfeat import (
    ADISTS,
    DISTS,
    DMM,
    LPIPS,
    STLPIPS,
    ContextualLoss,
    FeatureExtractor,
    NearestNeighbourLoss,
    PerceptualLoss,
    StyleLoss,
    weights,
)
from vggfeat.losses.signature import signature

ALEX = {f"lin{i}.model.1.weight": LPIPS("alex").loss.get_buffer(f"head{i}") for i in range(5)}
DIFFERENT = {
    "lpips": LPIPS,
    "alex": lambda: LPIPS("alex"),
    "heads": lambda: LPIPS("alex", heads={**ALEX, "lin4.model.1.weight": ALEX["lin4.model.1.weight"] * 2}),
    "0.0": lambda: LPIPS(version="0.0"),
    "3dgs": lambda: LPIPS(convention="3dgs"),
    "torchmetrics": lambda: LPIPS("alex", convention="torchmetrics", input_range="unit"),
    "spatial": lambda: LPIPS(spatial=True),
    "signed": lambda: LPIPS(input_range="signed"),
    "bfloat16": lambda: LPIPS(precision="bfloat16"),
    "random": lambda: LPIPS(weights=None),
    "squeeze": lambda: LPIPS("squeeze", weights=None),
    "dists": DISTS,
    "stlpips": STLPIPS,
    "adists": ADISTS,
    "dmm": DMM,
    "dists-256": lambda: DISTS(resize=256),
    "content": PerceptualLoss,
    "layers": lambda: PerceptualLoss({"relu3_3": 0.5}),
    "distance": lambda: PerceptualLoss(distance="l1"),
    "terms": lambda: PerceptualLoss(pixel=1.0),
    "style": StyleLoss,
    "chw": lambda: StyleLoss(divide_by="chw"),
}


@pytest.fixture(scope="module")
def lines():
    return {name: make().signature() for name, make in DIFFERENT.items()}


def test_what_changes_the_value_changes_the_line(lines):
    for one, other in itertools.combinations(lines, 2):
        assert lines[one] != lines[other], (one, other)


def test_one_line_names_all_that_matters(lines):
    assert not any("\n" in line for line in lines.values())
    assert f"vgg16 imagenet1k_v1 {weights.find_entry('vgg16').sha256[:12]}" in lines["lpips"]
    for word in ("net=vgg", "version=0.1", "convention=lpips", "input_range=unit", "resize=none", "precision=float32"):
        assert word in lines["lpips"]
    assert lines["lpips"].endswith(f"vggfeat {version('vggfeat')}")
    assert "shorter side to 256" in lines["dists-256"]


def test_what_does_not_change_a_value_does_not_change_the_line(lines):
    assert LPIPS(reduction="none", check="off", both=True).signature() == lines["lpips"]
    assert LPIPS("alex", heads=ALEX).signature() == lines["alex"]
    assert LPIPS().to(torch.float64).to(torch.float32).signature() == lines["lpips"]


@pytest.mark.parametrize("loss", [ContextualLoss, NearestNeighbourLoss])
def test_chunks_do_not_change_the_line(loss):
    trunk = FeatureExtractor("8", "relu1_1", weights=None)
    assert signature(trunk, loss("relu1_1", chunk=7)) == signature(trunk, loss("relu1_1"))
