import json

import numpy as np
import pytest
import torch

from vggfeat import dump, open_dump, write_picture
from vggfeat.dumps.representations import explain, similarities


@pytest.fixture
def dumped(vggfeat, tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(6):
        noise = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(number))
        write_picture(tmp_path / "in" / f"{number}.png", torch.nn.functional.interpolate(noise, 32))
    options = {"network": "vgg11", "weights": None, "resize": 32, "device": "cpu", "workers": 0, "cka": True}
    dump("in", "out", layers="relu1_1,relu2_1", reduce="mean", **options)
    return vggfeat


def test_layers_with_each_other_and_with_data(dumped):
    names, matrix = similarities(open_dump("out"), method="whitened", distance="euclidean")
    options = ("--method", "whitened", "--distance", "euclidean")
    found = json.loads(dumped("rsa", "out", *options, "--json").stdout)
    assert found == {"method": "whitened", "arrays": names, "values": matrix.tolist()}
    lines = dumped("rsa", "out", *options).stdout.splitlines()
    assert lines[1].split() == [names[0], *(f"{value:.4f}" for value in matrix[0])]
    subjects = np.stack([open_dump("out").rdm(layer, "mean")[1] for layer in ("relu1_1", "relu2_1")])
    np.save("subjects.npy", subjects)
    few = ("--bootstrap", 20, "--permutations", 20)
    expected = explain(open_dump("out"), subjects, bootstrap=20, permutations=20)
    found = json.loads(dumped("rsa", "out", "--reference", "subjects.npy", *few, "--json").stdout)
    assert found == json.loads(json.dumps(expected.as_dict()))
    lines = dumped("rsa", "out", "--reference", "subjects.npy", *few).stdout.splitlines()
    assert lines[-1] == f"noise ceiling: {expected.ceiling[0]:.4f} to {expected.ceiling[1]:.4f}"
    assert "no layer 'relu3_1' in the dump" in dumped("rsa", "out", "--layer", "relu3_1", code=2).stderr
    assert "no such file" in dumped("rsa", "out", "--reference", "no.npy", code=2).stderr


def test_unbiased_cka_is_printed(dumped):
    value = open_dump("out").cka(unbiased=True)[1][0, 1]
    assert f"{value:.4f}" in dumped("dump-stats", "out", "--unbiased").stdout
    assert json.loads(dumped("dump-stats", "out", "--json").stdout)["cka"]["unbiased"][0][1] == pytest.approx(value)
