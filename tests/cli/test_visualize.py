import json

import numpy as np
import pytest
import torch

from vggfeat import dump, open_dump, read_picture, write_picture
from vggfeat.transfer.visualize import visualize

SMALL = ("--size", 32, "--steps", 3, "--device", "cpu")


def test_pictures_side_by_side_and_a_dump_to_compare_with(vggfeat, tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(3):
        noise = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(number))
        write_picture(tmp_path / "in" / f"{number}.png", noise)
    dump("in", "out", layers="relu1_1", resize=32, reduce="none", statistics=True, workers=0, device="cpu")
    options = ("--layer", "relu1_1", "--channel", 3, "--count", 2, *SMALL)
    output = vggfeat("visualize", *options, "--dump", "out").stdout.splitlines()
    assert output[0] == "relu1_1-3.png"
    run = visualize("relu1_1", channel=3, count=2, size=32, steps=3, device="cpu")
    expected = torch.cat([*run.result().split(1)], dim=3)
    assert (read_picture("relu1_1-3.png").rgb - expected).abs().max() < 0.51 / 255
    best = open_dump("out").statistics()["relu1_1"]
    ratio = max(run.responses()) / best.top[3][0]
    assert output[1] == (
        f"largest response {max(run.responses()):.4g}, {ratio:.3g} times that of '{best.top_ids[3][0]}', "
        f"{best.top[3][0]:.4g}"
    )
    summary = json.loads(vggfeat("visualize", *options, "--dump", "out", "--json").stdout)
    assert (summary["width"], summary["height"]) == (64, 32)
    assert summary["response"] == pytest.approx(max(run.responses()))
    assert (summary["strongest"], summary["of"]) == (pytest.approx(best.top[3][0]), best.top_ids[3][0])
    assert (
        "the dump is of vgg16, not of vgg19"
        in vggfeat("visualize", *options, "--dump", "out", "--network", "vgg19", code=2).stderr
    )


def test_a_direction_from_a_file(vggfeat):
    np.save("axis.npy", np.eye(64)[3])
    assert vggfeat("visualize", "-l", "relu1_1", "--direction", "axis.npy", *SMALL).stdout.startswith(
        "relu1_1-axis.png"
    )
    for arguments, message in (
        (("--direction", "no.npy"), "cannot read 'no.npy': no such file"),
        (("--channel", 64), "relu1_1 of vgg16 has the channels 0 to 63, not 64"),
        (("--direction", "axis.npy", "--dump", "out"), "--dump needs --channel"),
        ((), "name a channel or a direction"),
        (("--channel", 3, "--memory", "1MB"), "allow more memory"),
    ):
        assert message in vggfeat("visualize", "-l", "relu1_1", *arguments, *SMALL, code=2).stderr


@pytest.mark.parametrize("content", [b"no array", b""])
def test_a_damaged_direction_is_told(vggfeat, tmp_path, content):
    (tmp_path / "bad.npy").write_bytes(content)
    assert "cannot read 'bad.npy'" in vggfeat("visualize", "-l", "relu1_1", "--direction", "bad.npy", code=2).stderr
