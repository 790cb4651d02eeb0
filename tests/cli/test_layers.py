import json

COLUMNS = ["name", "index", "kind", "channels", "stride", "receptive_field", "height", "width", "parameters", "macs"]


def test_table(vggfeat):
    lines = vggfeat("layers").output.splitlines()
    assert lines[0].split() == " ".join(COLUMNS).replace("_", " ").split()
    [row] = [line.split() for line in lines if line.startswith("relu3_3")]
    assert row[1:] == ["15", "relu", "256", "4", "40", "56", "56", "1735488", "9335144448"]


def test_json(vggfeat):
    rows = json.loads(vggfeat("layers", "vgg19", "--size", 256, "--json").output)
    assert len(rows) == 37
    assert list(rows[0]) == COLUMNS
    assert rows[-1]["height"] == 8


def test_errors(vggfeat):
    assert "unknown network 'vgg12'" in vggfeat("layers", "vgg12", code=2).stderr
    assert "pool5 needs at least 32 pixels" in vggfeat("layers", "--size", 31, code=2).stderr
