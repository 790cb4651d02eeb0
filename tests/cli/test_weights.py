import pytest

from vggfeat.networks import weights


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VGGFEAT_CACHE", str(tmp_path / "cache"))


def test_table_lists_every_row(vggfeat):
    lines = vggfeat("weights").output.splitlines()
    assert len(lines) == len(weights.TABLE) + 1
    [row] = [line for line in lines if line.startswith("vgg19") and "oxford" in line]
    assert "bundled" in row
    assert "CC-BY-4.0" in row
    assert sum("to be downloaded" in line for line in lines) == len(weights.TABLE) - 3


def test_verify(vggfeat):
    output = vggfeat("weights", "verify").output
    assert output.splitlines() == [f"{row}: bundled, intact" for row in weights.TABLE if row.bundled]


def test_verify_finds_damage(vggfeat, monkeypatch):
    monkeypatch.setattr("vggfeat.networks.weights.sha256", lambda _path: "0" * 64)
    assert "is damaged: its sha256 is 0000" in vggfeat("weights", "verify", code=2).stderr


def test_list_is_the_default(vggfeat):
    assert vggfeat("weights", "list").output == vggfeat("weights").output


def test_fetch_export_import(vggfeat, tmp_path):
    said = vggfeat("weights", "fetch", "vgg16", "alexnet").stdout.splitlines()
    assert said[1].startswith("alexnet imagenet1k_v1, features: ")
    line = vggfeat("weights", "export", "vgg19", "--name", "oxford").stdout
    assert line.startswith("vgg19-oxford.safetensors: sha256 d6c239f2")
    assert "it exists" in vggfeat("weights", "export", "vgg19", "--name", "oxford", code=2).stderr
    assert "nothing to import" in vggfeat("weights", "import", "vgg19-oxford.safetensors", code=2).stderr
    assert "is d6c239f2" in vggfeat("weights", "import", "vgg19-oxford.safetensors", "--sha256", "0" * 8, code=2).stderr
    entry = next(entry for entry in weights.TABLE if entry.network == "vgg11")
    features, _ = weights.load("vgg11", None)
    weights.pack(tmp_path / "carried.safetensors", entry, features, features)
    said = vggfeat("weights", "import", "carried.safetensors").stdout
    assert said == f"vgg11 imagenet1k_v1, features: '{entry.path}'\n"
    assert "vgg11 imagenet1k_v1: cached, intact" in vggfeat("weights", "verify").stdout


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("fetch",), "NETWORK"),
        (("fetch", "vgg12"), "vgg12"),
        (("fetch", "vgg16", "--name", "mine"), "unknown weights 'mine' of vgg16: choose from imagenet1k_v1, oxford"),
        (("fetch", "alexnet", "--whole"), "have no classifier"),
        (("import", "absent.pth"), "cannot read weights 'absent.pth'"),
        (("import", "a", "b", "--sha256", "0"), "--sha256 needs a single FILE"),
        (("carry",), "carry"),
    ],
)
def test_what_cannot_be_carried(arguments, reason, vggfeat):
    assert reason in vggfeat("weights", *arguments, code=2).stderr
