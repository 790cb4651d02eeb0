"""Weights that are carried to a machine without network."""

import hashlib
from dataclasses import replace

import pytest
import torch

from vggfeat import FeatureExtractor, vgg
from vggfeat.errors import WeightsError
from vggfeat.networks import carry, table, weights


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """Change to a machine of a name, with a cache folder of its own and no network."""

    def change(name):
        monkeypatch.setenv("VGGFEAT_CACHE", str(tmp_path / name / "cache"))
        monkeypatch.setenv("TORCH_HOME", str(tmp_path / name / "torch"))
        return tmp_path / name

    def refuse(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr("vggfeat.networks.downloads.request.urlopen", refuse)
    change("one")
    return change


@pytest.fixture
def file(tmp_path, monkeypatch):
    """The file of a whole network, here a small one in the place of VGG-11, and its entry."""
    model = vgg("vgg11", num_classes=3, hidden=8, seed=0)
    torch.save(model.state_dict(), made := tmp_path / "made")
    digest = hashlib.sha256(made.read_bytes()).hexdigest()
    entry = replace(weights.find_entry("vgg11"), file=f"vgg11-{digest[:8]}.pth")
    for module in (table, carry, weights):
        monkeypatch.setattr(module, "TABLE", tuple(entry if e.network == "vgg11" else e for e in table.TABLE))
    made.rename(path := tmp_path / entry.file)
    return path


def test_torchvisions_file_is_imported(file, images):
    entry = weights.find_entry("vgg11")
    with pytest.raises(WeightsError, match="no route to host"):
        carry.fetch(entry)
    renamed = file.rename(file.with_name("carried.bin"))
    [kept] = carry.import_file(renamed)
    assert kept == carry.fetch(entry) == (entry, entry.path, False)
    assert entry.status == "cached"
    weights.verify(entry)
    with pytest.raises(WeightsError, match="no route to host"):
        carry.fetch(entry, classifier=True)
    features, whole = carry.import_file(renamed, classifier=True)
    assert features == kept
    assert carry.fetch(entry, classifier=True) == whole
    extract = FeatureExtractor("vgg11", "fc7", weights="imagenet1k_v1")
    assert extract(images)["fc7"].shape == (len(images), 8)


def test_features_are_exported_and_imported(file, machine, tmp_path):
    carry.import_file(file)
    entry = weights.find_entry("vgg11")
    digest = carry.export(entry, carried := tmp_path / "carried.safetensors")
    expected = weights.load_entry(entry)
    machine("two")
    with pytest.raises(WeightsError, match="no route to host"):
        weights.load("vgg11")
    for wrong in ("0" * 64, digest[:7], ""):
        with pytest.raises(WeightsError, match=f"is {digest}, not '{wrong}'"):
            carry.import_file(carried, digest=wrong)
    assert not list(weights.cache_dir().iterdir())
    assert carry.import_file(carried, digest=digest[:16].upper())[0].path == entry.path
    assert all(torch.equal(x, expected[key]) for key, x in weights.load("vgg11")[0].items())
    weights.verify(entry)


def test_whole_networks_are_exported(file, machine, tmp_path):
    carry.import_file(file, classifier=True)
    entry = weights.find_entry("vgg11")
    digest = carry.export(entry, carried := tmp_path / "carried.pth", classifier=True)
    assert carried.read_bytes() == file.read_bytes()
    machine("two")
    assert [kept.whole for kept in carry.import_file(carried, digest=digest, classifier=True)] == [False, True]


def test_what_is_not_imported(file, tmp_path):
    carry.import_file(file)
    entry = weights.find_entry("vgg11")
    carry.export(entry, carried := tmp_path / "carried.safetensors")
    before = entry.path.read_bytes()
    with pytest.raises(WeightsError, match=r"carried.safetensors': it exists"):
        carry.export(entry, carried)
    content = bytearray(carried.read_bytes())
    content[-5] ^= 1
    carried.write_bytes(content)
    with pytest.raises(WeightsError, match="is damaged: its layers are not"):
        carry.import_file(carried)
    carried.write_bytes(content[:-9])
    with pytest.raises(WeightsError, match=r"none of the known weights|truncated"):
        carry.import_file(carried)
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(WeightsError, match=r"is none of the known weights, by its sha256 or its description"):
        carry.import_file(file)
    with pytest.raises(WeightsError, match="cannot read weights"):
        carry.import_file(tmp_path / "absent")
    bundled = weights.find_entry("vgg16")
    with pytest.raises(WeightsError, match="vgg16 imagenet1k_v1 ship with vggfeat: there is nothing to import"):
        carry.import_file(bundled.path)
    with pytest.raises(WeightsError, match="weights alexnet imagenet1k_v1 have no classifier"):
        carry.fetch(weights.find_entry("alexnet"), classifier=True)
    assert entry.path.read_bytes() == before


def test_a_cache_that_cannot_be_written(file, tmp_path, monkeypatch):
    (tmp_path / "blocked").write_text("a file")
    monkeypatch.setenv("VGGFEAT_CACHE", str(tmp_path / "blocked" / "cache"))
    with pytest.raises(WeightsError, match="cannot write '"):
        carry.import_file(file)


def test_the_whole_network_whose_features_are_bundled(tmp_path, monkeypatch, images):
    """A small file in the place of torchvision's VGG-16."""
    torch.save(vgg("vgg16", num_classes=3, hidden=8, seed=0).state_dict(), made := tmp_path / "made")
    digest = hashlib.sha256(made.read_bytes()).hexdigest()
    monkeypatch.setitem(table.WHOLE_FILES, "vgg16", name := f"vgg16-{digest[:8]}.pth")
    with pytest.raises(WeightsError, match="bundled weights of vgg16 have no classifier"):
        FeatureExtractor("vgg16", "fc7")
    [kept] = carry.import_file(made)
    assert kept.path == weights.cache_dir() / name
    for weight in ("default", "imagenet1k_v1"):
        assert FeatureExtractor("vgg16", "fc7", weights=weight)(images)["fc7"].shape == (len(images), 8)
