"""State dicts as people save them become torchvision's."""

import argparse
import fractions

import numpy as np
import pytest
import torch
from torch import nn

from vggfeat import FeatureExtractor, vgg
from vggfeat.errors import WeightsError
from vggfeat.networks import arch, network, weights
from vggfeat.networks.checkpoints import with_torchvision_keys

PLAN = "8,M,16"


@pytest.fixture(scope="module")
def state():
    """A small whole network."""
    return vgg(PLAN, num_classes=3, hidden=4, seed=0).state_dict()


@pytest.mark.parametrize(
    "rename",
    [
        "module.{}",
        "_orig_mod.{}",
        "module._orig_mod.{}",
        "model.{}",
        "net.backbone.{}",
        "encoder.module.{}",
    ],
)
@pytest.mark.parametrize("wrappers", [[], ["model"], ["state_dict", "net"], ["model_state_dict"], ["params"]])
def test_prefixes_and_wrappers_in_any_combination(rename, wrappers, state, tmp_path):
    content = {rename.format(key): x for key, x in state.items()}
    for wrapper in wrappers:
        content = {wrapper: content, "epoch": 3}
    torch.save(content, path := tmp_path / "own.pth.tar")
    loaded = network.load(path, PLAN).state_dict()
    assert all(torch.equal(loaded[key], x) for key, x in state.items())


def test_features_wrapped_by_data_parallel(state, tmp_path):
    torch.save(
        {key.replace("features.", "features.module."): x for key, x in state.items()}, path := tmp_path / "own.pth"
    )
    found, _ = weights.load(PLAN, path)
    assert all(torch.equal(found[key], state[key]) for key in found)


@pytest.mark.parametrize("name", ["checkpoint", "best.pth.tar", "model.pytorch", "weights.bin"])
def test_an_existing_file_is_a_file_whatever_its_ending(name, state, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(state, name)
    assert torch.equal(weights.load(PLAN, name)[0]["features.0.bias"], state["features.0.bias"])


def test_a_name_of_the_table_is_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "oxford").touch()
    (tmp_path / "default").touch()
    assert weights.file_of("oxford") is weights.file_of("default") is None


def test_settings_beside_the_tensors_are_read(state, tmp_path):
    settings = argparse.Namespace(lr=0.1, arch="vgg16")
    content = {"state_dict": state, "args": settings, "best": np.float64(71.5), "loss": np.float32(0.5)}
    torch.save(content, path := tmp_path / "own.pth")
    assert torch.equal(weights.load(PLAN, path)[0]["features.0.bias"], state["features.0.bias"])


def test_a_refused_type_is_named(state, tmp_path):
    torch.save({"state_dict": state, "when": fractions.Fraction(1, 2)}, path := tmp_path / "own.pth")
    with pytest.raises(WeightsError, match=r"it holds a fractions.Fraction, which is not loaded"):
        weights.load(PLAN, path)


def test_heads_of_timm_and_of_caffe_conversions(state):
    timm = {"classifier.0.": "pre_logits.fc1.", "classifier.3.": "pre_logits.fc2.", "classifier.6.": "head.fc."}
    theirs = dict(state)
    for ours, name in timm.items():
        weight, bias = theirs.pop(f"{ours}weight"), theirs.pop(f"{ours}bias")
        side = 7 if "fc1" in name else 1
        weight = weight.unflatten(1, (-1, side, side)) if name != "head.fc." else weight
        theirs |= {f"{name}weight": weight, f"{name}bias": bias}
    caffe = {key.replace("classifier.0.", "classifier.1.").replace("classifier.3.", "classifier.4."): x
             for key, x in state.items()}  # fmt: skip
    for renamed in (theirs, caffe):
        found = with_torchvision_keys(renamed)
        assert found.keys() == state.keys()
        assert all(torch.equal(found[key], x) for key, x in state.items())


def test_two_networks_in_one_state_dict_are_refused(state):
    both = {f"{prefix}.{key}": x for prefix in ("model", "encoder") for key, x in state.items()}
    with pytest.raises(WeightsError, match=r"holds features.0.weight twice: as model.features.0.weight and as encoder"):
        weights.load(PLAN, both)


def test_a_tap_reads_through_data_parallel(images):
    model = vgg(PLAN, head=None, seed=0)
    expected = FeatureExtractor.of(model, "relu2_1")(images)["relu2_1"]
    assert torch.equal(FeatureExtractor.of(nn.DataParallel(model), "relu2_1")(images)["relu2_1"], expected)


def test_a_convolution_without_bias_before_batch_norm(tmp_path):
    state = vgg(PLAN, batch_norm=True, head=None, seed=0).state_dict()
    convolutions = [layer.index for layer in arch.layers(f"{PLAN}+bn") if layer.kind == "conv"]
    for index in convolutions:
        assert not state.pop(f"features.{index}.bias").any()
    torch.save(state, path := tmp_path / "own.pth")
    found, _ = weights.load(f"{PLAN}+bn", path)
    assert not any(found[f"features.{index}.bias"].any() for index in convolutions)
