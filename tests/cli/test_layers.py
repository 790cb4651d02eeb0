import json

import torch

from vggfeat.features import algorithms

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


def test_algorithms(vggfeat):
    layers = json.loads(vggfeat("layers", "--size", 224, "--algorithms", "--json").output)
    chosen = {layer["name"]: layer["algorithm"] for layer in layers}
    capability = torch.backends.cpu.get_cpu_capability()
    expected = algorithms.choose(capability, torch.float32, (256, 128), (56, 56))
    assert chosen["conv1_1"] == chosen["conv5_1"] == "torch"
    assert chosen["conv3_1"] == expected
    assert chosen["relu3_1"] == ""
    text = vggfeat("layers", "--algorithms").output
    assert text.splitlines()[0].endswith("algorithm")
    assert torch.backends.cpu.get_cpu_capability() in text.splitlines()[-1]


def test_errors(vggfeat):
    assert "unknown network 'vgg12'" in vggfeat("layers", "vgg12", code=2).stderr
    assert "pool5 needs at least 32 pixels" in vggfeat("layers", "--size", 31, code=2).stderr


def test_rows_of_ones_own(vggfeat):
    lines = vggfeat("layers", "--config", "64,64,M,conv1-128,LRN,M").output.splitlines()
    assert [line.split()[0] for line in lines[1:-2]] == [
        *("conv1_1", "relu1_1", "conv1_2", "relu1_2", "pool1"),
        *("conv2_1", "relu2_1", "lrn2_1", "pool2"),
    ]
    assert lines[-1].startswith("224 -> 112 -> 56 pixels; 0.05 M parameters of features, 46.57 M of the paper head")
    assert (
        vggfeat("layers", "--config", "[64, 'M', 128]", "--json").output
        == vggfeat("layers", "64,M,128", "--json").output
    )


def test_the_papers_table(vggfeat):
    text = vggfeat("layers", "A-LRN", "--paper").output
    assert "224 -> 112 -> 56 -> 28 -> 14 -> 7 pixels" in text
    rows = [line.split() for line in text.splitlines()]
    assert ["A-LRN", "11", "132.86", "133", "93.1%", "7.49"] in rows
    assert ["E", "19", "143.67", "144", "86.1%", "19.51"] in rows
    assert ["D", "256-512", "256", "384", "512", "24.8", "7.5"] in rows


def test_why_three_small_kernels(vggfeat):
    rows = [line.split() for line in vggfeat("layers", "--compare-kernels").output.splitlines()]
    assert ["3", "of", "3x3", "7x7", "27", "C²", "3"] in rows
    assert ["1", "of", "7x7", "7x7", "49", "C²", "1"] in rows
    found = json.loads(vggfeat("layers", "--compare-kernels", "--json").output)
    assert found[2] == {"kernel": 3, "depth": 3, "receptive_field": 7, "weights": 27, "activations": 3}


def test_bad_rows(vggfeat):
    message = vggfeat("layers", "--config", "64,Q", code=2).stderr
    assert "a plan holds channels such as 64, M, LRN or conv1-256, not 'Q'" in message
