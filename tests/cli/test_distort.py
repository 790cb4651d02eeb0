import json

import pytest
import torch

from vggfeat import eigendistortions, read_picture
from vggfeat.pictures import images

pytestmark = pytest.mark.usefixtures("pictures")

SMALL = ("--size", 32, "--steps", 2, "--device", "cpu", "--quiet")


def test_a_layer(vggfeat):
    output = vggfeat("distort", "content.png", "--layer", "relu1_2", *SMALL).stdout.splitlines()
    assert output[0] == "content-distort.png"
    page = read_picture("content-distort.png").rgb
    # The picture, and its two changes and their amplified copies, which do not leave the page grey.
    assert page.shape[2] > 2 * 32
    assert page.shape[3] > 3 * 32
    picture = images.resize(read_picture("content.png").rgb, 24, 32)
    run = eigendistortions(picture, "relu1_2", steps=2, device="cpu")
    run.result()
    assert output[1] == f"relu1_2 of vgg16: most {run.values['most']:.4g}, least {run.values['least']:.4g}"
    assert json.loads(images.read_text("content-distort.png")["vggfeat-distort"])["layer"] == "relu1_2"


def test_a_metric_at_equal_distance_by_another(vggfeat):
    options = ("--metric", "ssim", "--hold", "mse", "--noise", 0.05, *SMALL, "-o", "out.png", "--json")
    found = json.loads(vggfeat("distort", "content.png", *options).stdout)
    assert found["output"] == "out.png"
    assert found["most"] > found["least"]
    assert torch.isfinite(read_picture("out.png").rgb).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give --layer NAME or --metric NAME, one of them"),
        (("--layer", "relu1_1", "--metric", "ssim"), "give --layer NAME or --metric NAME, one of them"),
        (("--layer", "relu1_1", "--hold", "ssim"), "--hold needs --metric"),
        (("--metric", "ssim", "--network", "vgg19"), "--metric cannot be combined with --network"),
        (("--metric", "lpips"), "unknown metric 'lpips': did you mean lpips-"),
        (("--layer", "relu9_9"), "relu9_9"),
        (("--layer", "relu1_1", "-o", "content.png"), "the output 'content.png' is one of the inputs"),
    ],
)
def test_wrong_requests(vggfeat, arguments, message):
    assert message in vggfeat("distort", "content.png", *arguments, *SMALL, code=2).stderr
