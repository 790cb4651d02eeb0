import json

import pytest
import torch

from vggfeat import dump, open_dump, read_picture, write_picture


@pytest.fixture
def dumped(vggfeat, tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(5):
        noise = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(number))
        write_picture(tmp_path / "in" / f"{number}.png", noise)
    options = {"network": "vgg11", "weights": None, "resize": 32, "device": "cpu", "workers": 0}
    dump("in", "out", layers="relu1_1", reduce="mean", **options)
    return vggfeat


def test_the_table_and_json_say_the_same(dumped):
    found = json.loads(dumped("search", "out", "1.png", "in/2.png", "--top", 2, "--json", "--device", "cpu").stdout)
    expected = open_dump("out").search(["1.png", "in/2.png"], top=2, device="cpu")
    assert found == json.loads(json.dumps(expected.as_dict()))
    assert found["results"][1]["neighbours"][0]["id"] == "2.png"
    lines = dumped("search", "out", "1.png", "in/2.png", "--top", 2, "--device", "cpu").stdout.splitlines()
    assert [line.split() for line in lines[1:]] == [
        [each["query"], f"{one['distance']:.6f}", one["id"]] for each in found["results"] for one in each["neighbours"]
    ]


def test_the_contact_sheet_shows_the_pictures(dumped, tmp_path):
    dumped("search", "out", "1.png", "--top", 3, "-o", "sheet.png", "--array", "relu1_1.mean")
    page = read_picture("sheet.png").rgb
    nearest = open_dump("out").search("1.png", top=3)[0].ids
    enlarged = [
        torch.nn.functional.interpolate(read_picture(f"in/{name}").rgb, 168, mode="nearest-exact")
        for name in ("1.png", *nearest)
    ]
    corners = [36, *(36 + 12 + place * 180 for place in (1, 2, 3))]
    for picture, x in zip(enlarged, corners, strict=True):
        assert torch.allclose(page[..., 104:272, x : x + 168], picture, atol=0.01)
    (tmp_path / "in" / nearest[0]).unlink()
    dumped("search", "out", "1.png", "--top", 3, "-o", "gone.png")
    assert not torch.equal(read_picture("gone.png").rgb, page)


def test_wrong_input_is_told(dumped):
    assert "neither an id of the dump nor a file" in dumped("search", "out", "zebra.png", code=2).stderr
    assert "is not a dump" in dumped("search", "in", "1.png", code=2).stderr
    assert "is one of the inputs" in dumped("search", "out", "in/1.png", "-o", "in/1.png", code=2).stderr
    assert "unknown ending '.gif'" in dumped("search", "out", "1.png", "-o", "a.gif", code=2).stderr
