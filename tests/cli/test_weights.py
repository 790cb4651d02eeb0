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
