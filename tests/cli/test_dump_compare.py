import json

import torch

from vggfeat import dump, open_dump, write_picture


def test_the_table_and_json(vggfeat, tmp_path):
    for name, first in (("a", 0), ("b", 8)):
        (tmp_path / name).mkdir()
        for number in range(12):
            noise = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(number + first))
            write_picture(tmp_path / name / f"{number}.png", torch.nn.functional.interpolate(noise, 32))
        options = {"network": "vgg11", "weights": None, "resize": 32, "device": "cpu", "workers": 0}
        dump(name, f"out-{name}", layers="relu1_1", reduce="mean", **options)
    found = json.loads(vggfeat("dump-compare", "out-a", "out-b", "--k", 2, "--json").stdout)
    expected = open_dump("out-a").compare(open_dump("out-b"), k=2)
    assert found == json.loads(json.dumps(expected.as_dict()))
    table = vggfeat("dump-compare", "out-a", "out-b", "--measures", "frechet").stdout.splitlines()
    assert table[0].startswith("relu1_1.mean, 12 and 12 pictures")
    interval = f"{expected.frechet.low:.6g} to {expected.frechet.high:.6g}"
    assert table[1].split(maxsplit=2) == ["frechet", f"{expected.frechet.value:.6g}", interval]
    assert "unknown measure 'fid'" in vggfeat("dump-compare", "out-a", "out-b", "--measures", "fid", code=2).stderr
    assert "'a' is not a dump" in vggfeat("dump-compare", "out-a", "a", code=2).stderr
