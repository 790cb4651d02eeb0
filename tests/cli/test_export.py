import onnx
import pytest


def test_a_network(vggfeat, tmp_path):
    lines = vggfeat("export", "vgg16", "--layers", "relu1_1,pool1", "--opset", 19).stdout.splitlines()
    assert [line.partition(":")[0] for line in lines[:3]] == ["1x3x32x32", "2x3x45x72", "3x3x96x63"]
    assert lines[3] == "images -> relu1_1, pool1"
    assert lines[4].startswith("vgg16 ")
    assert lines[5].startswith("vgg16.onnx: opset 19, ")
    model = onnx.load(tmp_path / "vgg16.onnx")
    assert [x.name for x in model.graph.output] == ["relu1_1", "pool1"]


@pytest.mark.slow
def test_a_metric(vggfeat, tmp_path):
    text = vggfeat("export", "lpips-alex", "-o", "metric.onnx", "--no-check", "--input-range", "signed").stdout
    assert text.startswith("prediction, target -> value\n")
    assert "input_range=signed" in text
    assert onnx.load(tmp_path / "metric.onnx").graph.output[0].name == "value"


def test_errors(vggfeat, tmp_path):
    assert "did you mean lpips-vgg" in vggfeat("export", "lpips-vg", code=2).stderr
    assert "name the layers of vgg19" in vggfeat("export", "vgg19", code=2).stderr
    assert not list(tmp_path.iterdir())
