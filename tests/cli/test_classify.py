import json
from importlib.resources import files
from pathlib import Path

import pytest

from vggfeat.networks import network
from vggfeat.networks.network import vgg

CAT = str(files("vggfeat_assets") / "images" / "chelsea.jpg")


@pytest.fixture
def trained(tmp_path):
    model = vgg("4,M", head="gap", num_classes=2, seed=0)
    model.classes, model.size, model.resize = ("cat", "dog"), 16, 16
    network.save(model, tmp_path / "trained.safetensors")
    return "trained.safetensors"


def test_names_and_probabilities(trained, vggfeat):
    lines = vggfeat("classify", CAT, "--weights", trained).output.splitlines()
    assert CAT in lines[0]
    found = dict(reversed(line.split()) for line in lines[1:3])
    assert set(found) == {"cat", "dog"}
    assert sum(float(share.rstrip("%")) for share in found.values()) == pytest.approx(100, abs=0.02)


def test_json_and_pictures_that_cannot_be_read(trained, vggfeat):
    Path("text.png").write_text("no picture")
    result = vggfeat("classify", CAT, "text.png", CAT, "--weights", trained, "--json", "--top", 1, code=3)
    found = json.loads(result.stdout)
    assert [len(entry["predictions"]) for entry in found] == [1, 1]
    assert set(found[0]["predictions"][0]) == {"index", "name", "probability"}
    assert result.stderr.startswith("failed: 'text.png': cannot read")


def test_errors(vggfeat, monkeypatch, tmp_path):
    monkeypatch.setenv("VGGFEAT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))

    def offline(*_arguments, **_options):
        raise OSError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    message = vggfeat("classify", CAT, code=2).stderr
    assert "put torchvision's vgg16-397923af.pth into" in message
    assert (
        "no weights file 'absent.safetensors'"
        in vggfeat("classify", CAT, "--weights", "absent.safetensors", code=2).stderr
    )
