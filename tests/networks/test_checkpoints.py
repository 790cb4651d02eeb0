"""State dicts as people save them become torchvision's."""

import argparse
import collections
import fractions
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from vggfeat import Classifier, FeatureExtractor, vgg
from vggfeat.errors import InputError, WeightsError
from vggfeat.networks import arch, network, weights
from vggfeat.networks.checkpoints import fitting_networks
from vggfeat.networks.naming import with_torchvision_keys

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
        "student.{}",
        "loss.vgg.module.{}",
    ],
)
@pytest.mark.parametrize(
    "wrappers", [[], ["model"], ["state_dict", "net"], ["model_state_dict"], ["params"], ["params_ema"]]
)
def test_prefixes_and_wrappers_in_any_combination(rename, wrappers, state, tmp_path):
    content = {rename.format(key): x for key, x in state.items()}
    for wrapper in wrappers:
        content = {wrapper: content, "epoch": 3}
    torch.save(content, path := tmp_path / "own.pth.tar")
    loaded = network.load(path, PLAN).state_dict()
    assert all(torch.equal(loaded[key], x) for key, x in state.items())


PREFIXES = ("module", "_orig_mod", "model", "net", "backbone", "encoder")


@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_order_of_prefixes(count, state):
    for chosen in itertools.permutations(PREFIXES, count):
        prefix = ".".join(chosen)
        for inside in ("features", "features.module", "features._orig_mod"):
            renamed = {f"{prefix}.{key}".replace("features", inside): x for key, x in state.items()}
            assert with_torchvision_keys(renamed).keys() == state.keys()


def test_of_two_networks_none_is_chosen(state, tmp_path):
    both = {f"{part}.{key}": x for part in ("student", "teacher") for key, x in state.items()}
    torch.save({"student": state, "teacher": state}, tmp_path / "nested.pth")
    torch.save(both, tmp_path / "flat.pth")
    for name in ("nested.pth", "flat.pth"):
        with pytest.raises(WeightsError, match=r"it holds no tensor called features\.N\.weight"):
            network.load(tmp_path / name, PLAN)


@pytest.mark.parametrize("wrap", [torch.compile, lambda model: nn.DataParallel(torch.compile(model))])
def test_a_tap_reads_through_compile(wrap, images):
    model = vgg(PLAN, head=None, seed=0)
    expected = FeatureExtractor.of(model, "relu2_1")(images)["relu2_1"]
    assert torch.equal(FeatureExtractor.of(wrap(model), "relu2_1")(images)["relu2_1"], expected)


@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel])
def test_a_tap_reads_features_that_are_wrapped(wrap, images):
    """As in torchvision's example of training on ImageNet."""
    model = vgg(PLAN, head=None, seed=0)
    expected = FeatureExtractor.of(model, "relu2_1")(images)["relu2_1"]
    model.features = wrap(model.features)
    assert torch.equal(FeatureExtractor.of(model, "relu2_1")(images)["relu2_1"], expected)


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


@pytest.mark.parametrize(
    "value",
    [
        np.arange(3.0), np.int64(3), np.uint8(3), np.bool_(True), np.str_("cat"), np.complex64(1j), Path("runs"),
        argparse.Namespace(out=Path("runs")), collections.OrderedDict(a=1), {1, 2},
        b"bytes", torch.float32, torch.device("cpu"),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_harmless_types_beside_the_tensors(value, state, tmp_path):
    torch.save({"state_dict": state, "other": value}, path := tmp_path / "own.pth")
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


@pytest.mark.parametrize("heads", [("fc6", "fc7", "fc8"), ("linear0", "linear1", "last_linear")])
def test_the_names_of_the_paper(heads, state):
    """As in the files of Gatys et al. and of pretrainedmodels."""
    places = {0: "conv1_1", 3: "conv2_1"}
    theirs = {}
    for key, x in state.items():
        part, index, field = key.split(".")
        name = places[int(index)] if part == "features" else heads[int(index) // 3]
        theirs[f"{name}.{field}"] = x
    found = with_torchvision_keys(theirs)
    assert found.keys() == state.keys()
    assert all(torch.equal(found[key], x) for key, x in state.items())


def test_the_names_of_a_paper_with_batch_norm():
    made = vgg("8,8,M,16+bn", head=None, seed=0).state_dict()
    names = {0: "conv1_1", 1: "bn1_1", 3: "conv1_2", 4: "bn1_2", 7: "conv2_1", 8: "bn2_1"}
    theirs = {f"{names[int(key.split('.')[1])]}.{key.split('.')[2]}": x for key, x in made.items()}
    assert with_torchvision_keys(theirs).keys() == made.keys()


@pytest.mark.parametrize("name", ["classifier", "fc", "head", "linear", "module.classifier"])
def test_a_single_linear_layer_of_any_name(name, tmp_path):
    made = vgg(PLAN, head="gap", num_classes=3, seed=0)
    theirs = {key.replace("classifier.0", name): x for key, x in made.state_dict().items()}
    torch.save(theirs, path := tmp_path / "own.pth")
    loaded = network.load(path, PLAN)
    assert (loaded.head, len(loaded.classes)) == ("gap", 3)
    assert torch.equal(loaded.classifier[0].weight, made.classifier[0].weight)


@pytest.mark.parametrize(
    ("others", "reason"),
    [
        ({}, "holds features without a classifier"),
        ({"projection.weight": (3, 16)}, r"and its other tensors are no known classifier: projection.weight \(3x16\)"),
        (
            {f"mlp.{index}.weight": (3, 3) for index in range(5)},
            r"known classifier: mlp.0.weight \(3x3\), mlp.1.weight \(3x3\), mlp.2.weight \(3x3\), 2 others",
        ),
        ({f"classifier.{index}.weight": (3, 3) for index in (0, 2)}, "has a head that is neither the paper's nor one"),
        ({"fc.weight": (3, 784), "fc.bias": (3,)}, r"does not fit 8,M,16 with the gap head"),
    ],
)
def test_what_is_said_of_a_classifier_is_true(others, reason, state, tmp_path):
    features = {key: x for key, x in state.items() if key.startswith("features.")}
    torch.save(features | {key: torch.zeros(shape) for key, shape in others.items()}, path := tmp_path / "own.pth")
    with pytest.raises((WeightsError, InputError), match=rf"own.pth' .*{reason}"):
        Classifier(PLAN, path, device="cpu")


def test_shapes_name_a_network():
    """No two networks with different layers have the same shapes, so `auto` is never in doubt."""
    for name in arch.NETWORKS:
        shapes = arch.state_shapes(name)
        state = {f"module.{key}": torch.empty(shape, device="meta") for key, shape in shapes.items()}
        state |= {"epoch": 3, "module.features.0.num_batches_tracked": torch.empty((), device="meta")}
        assert arch.same_stack(weights.network_for("auto", state), name)
        assert all(arch.same_stack(other, name) for other in fitting_networks(state))
        if arch.network(name).batch_norm:  # without the biases of convolutions
            convolutions = {layer.index for layer in arch.layers(name) if layer.kind == "conv"}
            for index in convolutions:
                del state[f"module.features.{index}.bias"]
            assert arch.same_stack(weights.network_for("auto", state), name)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_plain_file_names_its_network(legacy, tmp_path):
    made = vgg("vgg11_bn", head="gap", num_classes=2, seed=0)
    path = tmp_path / "own.pth"
    torch.save({"state_dict": made.state_dict()}, path, _use_new_zipfile_serialization=not legacy)
    classify = Classifier(weights=path, device="cpu")
    assert classify.model.network.name == "vgg11_bn"
    assert FeatureExtractor("auto", "relu1_1", weights=path).network == "vgg11_bn"


def test_weights_that_name_no_network(state, tmp_path):
    torch.save(state, path := tmp_path / "own.pth")
    for origin, given in (("the state dict", state), (f"'{path}'", path)):
        with pytest.raises(WeightsError, match=f"{origin} records no network, and its shapes fit no network"):
            weights.network_for("auto", given)
    with pytest.raises(WeightsError, match="only a file or a state dict tells its network, and weights is None"):
        weights.network_for("auto", None)
    with pytest.raises(WeightsError, match="no weights file"):
        weights.network_for("auto", tmp_path / "missing.pth")


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
