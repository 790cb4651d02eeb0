import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vggfeat import read_picture, write_picture
from vggfeat.explore import view
from vggfeat.explore.pages.layers import sheet


@pytest.fixture(autouse=True)
def picture(vggfeat):  # noqa: ARG001 (which makes the folder)
    write_picture("photo.png", torch.rand(1, 3, 48, 64, generator=torch.Generator().manual_seed(0)))


def same(path, page):
    return (read_picture(path).rgb - page).abs().max() < 0.51 / 255


def test_a_page(vggfeat):
    assert vggfeat("show", "photo.png", "--layer", "relu2_1", "-l", "relu1_2").stdout == "photo-show.png\n"
    seen = view.inspect("photo.png", ["relu2_1", "relu1_2"])
    assert [layer.name for layer in seen.layers] == ["relu1_2", "relu2_1"]
    assert same("photo-show.png", sheet(seen))
    assert vggfeat("show", "photo.png", "-l", "relu1_1").stdout == "photo-show-2.png\n"


def test_options(vggfeat):
    options = ["--channels", "3, 17,3", "--at", "10,20", "--scale", "layer", "--size", 32, "--network", "vgg19"]
    assert vggfeat("show", "photo.png", "-l", "conv1_2,relu2_1", "-o", "out.png", *options).stdout == "out.png\n"
    seen = view.inspect("photo.png", "conv1_2,relu2_1", "vgg19", size=32)
    assert same("out.png", sheet(seen, channels=(3, 17), at=(10, 20), scale="layer"))
    vggfeat("show", "photo.png", "-l", "relu1_1", "--top", 4, "-o", "out.png")
    assert same("out.png", sheet(view.inspect("photo.png", "relu1_1"), top=4))


def test_help_needs_no_torch():
    code = "import sys; from vggfeat_cli import show, match; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["photo.png"], "Missing option '-l' / '--layer'"),
        (["photo.png", "-l", "relu1_9"], "unknown layer 'relu1_9' of vgg16"),
        (["photo.png", "-l", "relu1_1", "--network", "vgg17"], "unknown network 'vgg17'"),
        (["photo.png", "-l", "relu1_1", "--weights", "imagenet"], "imagenet"),
        (["absent.png", "-l", "relu1_1"], "cannot read 'absent.png': no such file"),
        (["photo.png", "-l", "relu1_1", "--channels", "3;4"], "'3;4' is not a list of channels such as 3,17"),
        (["photo.png", "-l", "relu1_1", "--channels", "64"], "no channel 64 in relu1_1: choose from 0 to 63"),
        (["photo.png", "-l", "relu1_1", "--channels", "1", "--top", "2"], "channels and top cannot both be given"),
        (["photo.png", "-l", "relu1_1", "--at", "5"], "'5' is not a pixel X,Y such as 120,80"),
        (["photo.png", "-l", "relu1_1", "--at", "64,5"], "position 64,5 lies outside the picture: x is 0 to 63"),
        (["photo.png", "-l", "relu1_1", "-o", "out.gif"], "unknown ending '.gif'"),
        (["photo.png", "-l", "relu1_1", "-o", "photo.png"], "the output 'photo.png' is one of the inputs"),
        (["photo.png", "-l", "relu5_3", "--size", "9"], "too small for relu5_3"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(arguments, message, vggfeat):
    before = Path("photo.png").read_bytes()
    assert message in vggfeat("show", *arguments, code=2).stderr
    assert [path.name for path in Path().iterdir()] == ["photo.png"]
    assert Path("photo.png").read_bytes() == before


def test_class_activation_maps(vggfeat, tmp_path):
    from vggfeat import Classifier, vgg
    from vggfeat.explore import colours
    from vggfeat.networks import network

    model = vgg("4,M,8", head="gap", num_classes=3, seed=0)
    model.classes, model.size, model.resize = ("cat", "dog", "cow"), 224, 224
    network.save(model, tmp_path / "own.safetensors")
    options = ("--weights", "own.safetensors", "--device", "cpu")
    assert vggfeat("show", "photo.png", "--cam", "--class", "dog", *options).stdout == "photo-cam.png\n"
    found = Classifier(weights="own.safetensors", device="cpu").cam("photo.png", classes=["dog"])
    cell = colours.over(found.picture, found.maps["relu2_1"])
    page = read_picture("photo-cam.png").rgb
    assert (page[..., 164 : 164 + 224, 166 : 166 + 224] - cell).abs().max() < 0.51 / 255
    vggfeat("show", "photo.png", "--cam", "-l", "relu1_1,relu2_1", *options, "-o", "two.png")
    assert read_picture("two.png").rgb.shape[2] > page.shape[2]
    assert "--class needs --cam" in vggfeat("show", "photo.png", "-l", "relu1_1", "--class", "x", code=2).stderr
    assert "unknown class 'dogg'" in vggfeat("show", "photo.png", "--cam", "--class", "dogg", *options, code=2).stderr
    assert "cannot be combined with --at" in vggfeat("show", "photo.png", "--cam", "--at", "1,1", code=2).stderr
