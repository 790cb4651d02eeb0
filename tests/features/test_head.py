"""The layers after the features: avgpool, fc6 to fc8."""

import json
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.vgg import make_layers

from vggfeat import FeatureExtractor, arch, dump, match, recipe, vgg, view, write_picture
from vggfeat.dumps.verify import verify
from vggfeat.errors import LayerError, WeightsError
from vggfeat.explore.pages.layers import sheet
from vggfeat.networks import weights

PLAN = "8,M,16"
HEAD = ("avgpool", "fc6", "relu6", "fc7", "relu7", "fc8")
MODULES = ("avgpool", "classifier.0", "classifier.1", "classifier.3", "classifier.4", "classifier.6")
ZERO = {"mean": (0, 0, 0), "std": (1, 1, 1)}


@pytest.fixture(scope="module")
def theirs():
    """Torchvision's class with few channels, in evaluation mode."""
    torch.manual_seed(0)
    with torch.device("meta"):  # its own classifier is large
        model = torchvision.models.VGG(nn.Sequential(), init_weights=False)
    model.features = make_layers([8, "M", 512])
    model.classifier = nn.Sequential(
        *(nn.Linear(512 * 49, 24), nn.ReLU(True), nn.Dropout(), nn.Linear(24, 24), nn.ReLU(True), nn.Dropout()),
        nn.Linear(24, 5),
    )
    return model.eval()


def by_hand(model, x):
    """{name: activation} of a whole network, computed module by module."""
    found = {}
    x = found["avgpool"] = model.avgpool(model.features(x))
    x = x.flatten(1)
    for name, module in model.classifier.named_children():
        x = module(x.clone())
        found[f"classifier.{name}"] = x
    return [found[name].detach() for name in MODULES]


@pytest.mark.parametrize("size", [(32, 32), (14, 14), (50, 31), (2, 2)])
def test_equals_torchvision_at_any_size(size, theirs):
    images = torch.rand(5, 3, *size, generator=torch.Generator().manual_seed(1))
    expected = by_hand(theirs, images)
    extract = FeatureExtractor("8,M,512", ["relu2_1", *HEAD], weights=theirs.state_dict(), **ZERO)
    tap = FeatureExtractor.of(theirs, ["relu2_1", *HEAD], **ZERO)
    assert extract.layers == tap.layers == ("relu2_1", *HEAD)
    for found in (extract(images), tap(images)):
        for name, x in zip(HEAD, expected, strict=True):
            torch.testing.assert_close(found[name], x)
        torch.testing.assert_close(found["fc8"], theirs(images).detach())
    assert extract.feature_info.module_name() == tap.feature_info.module_name() == ["features.4", *MODULES]
    assert extract.feature_info.channels() == [512, 512, 24, 24, 24, 24, 5]


def test_a_batch_in_pieces_equals_single_images(theirs):
    extract = FeatureExtractor("8,M,512", "conv1_1,fc7", weights=theirs.state_dict(), **ZERO)
    images = torch.rand(3, 3, 136, 136)  # of two such images, conv2_1 takes over 16 MiB
    whole = extract(images)
    for number in range(3):
        for name, x in extract(images[number : number + 1]).items():
            torch.testing.assert_close(whole[name][number : number + 1], x)


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("fc*", ["fc6", "fc7", "fc8"]),
        ("classifier.3", ["fc7"]),
        ("classifier.*", ["fc6", "relu6", "fc7", "relu7", "fc8"]),
        ("relu[67]", ["relu6", "relu7"]),
        ("avgpool,relu2_1", ["relu2_1", "avgpool"]),
        ("relu*", ["relu1_1", "relu2_1"]),
        ("*", ["conv1_1", "relu1_1", "pool1", "conv2_1", "relu2_1"]),
    ],
)
def test_names(pattern, names, theirs):
    for known in (
        FeatureExtractor("8,M,512", pattern, weights=theirs.state_dict()),
        FeatureExtractor.of(theirs, pattern),
    ):
        assert list(known.layers) == names


def test_one_linear_layer_over_the_average(images):
    model = vgg(PLAN, head="gap", num_classes=3, seed=0).eval()
    for found in (
        FeatureExtractor(PLAN, "avgpool,fc8", weights=model.state_dict())(images),
        FeatureExtractor.of(model, "avgpool,fc8")(images),
    ):
        torch.testing.assert_close(found["fc8"], model(model.normalise(images)).detach())
        assert found["avgpool"].shape == (len(images), 16, 1, 1)
    with pytest.raises(LayerError, match=r"unknown layer 'fc7' of 8,M,16: its head has avgpool, fc8 \(classifier.0\)"):
        FeatureExtractor(PLAN, "fc7", weights=model.state_dict())


def test_the_pool_alone_needs_no_classifier(images):
    extract = FeatureExtractor("vgg16", "avgpool")
    found = extract(images)["avgpool"]
    pool5 = FeatureExtractor("vgg16", "pool5")(images)["pool5"]
    assert torch.equal(found, torch.nn.functional.adaptive_avg_pool2d(pool5, 7))


def test_networks_without_a_classifier_say_so(theirs, monkeypatch, tmp_path):
    monkeypatch.setenv("VGGFEAT_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(
        WeightsError, match=r"bundled weights of vgg16 have no classifier: fetch .*`vggfeat weights fetch vgg16"
    ):
        FeatureExtractor("vgg16", "fc7")
    with pytest.raises(WeightsError, match="weights vgg19 oxford have no classifier: pass imagenet1k_v1"):
        FeatureExtractor("vgg19", "relu6")
    with pytest.raises(LayerError, match="'fc6' is a layer of a classifier, and only features are read here: alexnet"):
        FeatureExtractor("alexnet", "fc6")
    features = {key: x for key, x in theirs.state_dict().items() if key.startswith("features")}
    torch.save(features, path := tmp_path / "features.pth")
    with pytest.raises(
        WeightsError, match=r"features.pth' holds features without a classifier: pass the file of a whole"
    ):
        FeatureExtractor("8,M,512", "fc7", weights=path)
    with pytest.raises(LayerError, match="'fc7' is a layer of a classifier"):
        FeatureExtractor.of(theirs.features, "fc7")
    broken = {**theirs.state_dict(), "classifier.3.bias": torch.full((24,), torch.nan)}
    with pytest.raises(WeightsError, match=r"no usable classifier: classifier.3.bias holds values that are not finite"):
        FeatureExtractor("8,M,512", "fc7", weights=broken)
    assert FeatureExtractor("8,M,512", "relu2_1", weights=broken)
    broken["classifier.3.weight"] = torch.zeros(24, 23)
    with pytest.raises(
        WeightsError, match=r"the classifier of the state dict does not fit 8,M,512: classifier.3.weight is"
    ):
        FeatureExtractor("8,M,512", "fc7", weights=broken)


def test_what_reads_only_features_refuses_the_head():
    image = torch.rand(1, 3, 32, 32)
    for call in (
        lambda: match(image, image, "fc7"),
        lambda: recipe("default", style_layers={"fc6": 1.0}),
        lambda: arch.find_layers("vgg16", "classifier.3"),
    ):
        with pytest.raises(LayerError, match="is a layer of a classifier, and only features are read here"):
            call()


def test_torchvisions_whole_file_is_used_where_it_is(monkeypatch, tmp_path, images):
    """A small network in the place of VGG-16."""
    model = vgg(PLAN, num_classes=4, hidden=6, seed=0).eval()
    torch.save(model.state_dict(), path := tmp_path / "vgg16-397923af.pth")
    asked = []
    monkeypatch.setattr(weights, "whole", lambda *name: asked.append(name) or path)
    monkeypatch.setattr(weights, "find_entry", lambda *_: weights.TABLE[0])
    found = FeatureExtractor(PLAN, "fc8", weights="imagenet1k_v1")(images)["fc8"]
    torch.testing.assert_close(found, model(model.normalise(images)).detach())
    assert asked == [(PLAN, "imagenet1k_v1")]


def test_gradients_reach_the_images_and_a_live_model(theirs):
    images = torch.rand(1, 3, 16, 16, requires_grad=True)
    FeatureExtractor("8,M,512", "fc7", weights=theirs.state_dict())(images)["fc7"].sum().backward()
    assert images.grad.abs().sum() > 0
    model = vgg(PLAN, num_classes=3, hidden=50, dropout=0.5, seed=0).train()
    tap = FeatureExtractor.of(model, "relu6,fc7", frozen=False)
    one, other = (tap(images)["fc7"] for _ in range(2))
    assert not torch.equal(one, other)  # dropout
    one.sum().backward()
    assert model.classifier[0].weight.grad.abs().sum() > 0
    frozen = FeatureExtractor.of(model, "relu6,fc7")
    assert torch.equal(frozen(images)["fc7"], frozen(images)["fc7"])


def test_half_precision_and_moves(theirs):
    images = torch.rand(2, 3, 16, 16)
    expected = FeatureExtractor("8,M,512", "fc8", weights=theirs.state_dict())(images)["fc8"]
    half = FeatureExtractor("8,M,512", "fc8", weights=theirs.state_dict(), precision="bfloat16")(images)["fc8"]
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), expected, rtol=0.1, atol=0.02)
    double = FeatureExtractor("8,M,512", "fc8", weights=theirs.state_dict()).double()(images)["fc8"]
    torch.testing.assert_close(double.float(), expected)


def test_dumps(theirs, tmp_path):
    generator = torch.Generator().manual_seed(0)
    for name in ("a.png", "b.png"):
        write_picture(tmp_path / name, torch.rand(1, 3, 24, 32, generator=generator))
    torch.save(theirs.state_dict(), file := tmp_path / "own.pth")
    options = {"network": "8,M,512", "weights": file, "resize": None, "workers": 0, "device": "cpu"}
    pictures = [tmp_path / "a.png", tmp_path / "b.png"]
    found = dump(
        pictures, tmp_path / "out", layers="avgpool,fc7,fc8", reduce="full,fc8:mean", statistics=True, **options
    )
    extract = FeatureExtractor("8,M,512", "avgpool,fc7,fc8", weights=file)
    expected = extract(view.inspect(tmp_path / "a.png", "relu1_1", weights=None, device="cpu").picture)
    assert found["fc7"].shape == (2, 24)
    assert found["fc8", "mean"].shape == found["fc8", "full"].shape == (2, 5)
    for name, output in (("avgpool", "avgpool"), ("fc7", "fc7"), ("fc8", ("fc8", "full")), ("fc8", ("fc8", "mean"))):
        torch.testing.assert_close(torch.tensor(found[output][0]), expected[name][0], rtol=1e-4, atol=1e-5)
    assert verify(tmp_path / "out", device="cpu") == []
    # Another classifier over the same features is another dump.
    other = {**theirs.state_dict(), "classifier.3.bias": torch.ones(24)}
    torch.save(other, file)
    with pytest.raises(Exception, match=r"weights\.sha256"):
        dump(pictures, tmp_path / "out", layers="avgpool,fc7,fc8", reduce="full,fc8:mean", statistics=True, **options)


def test_a_page(theirs, tmp_path):
    write_picture(tmp_path / "a.png", torch.rand(1, 3, 24, 32, generator=torch.Generator().manual_seed(0)))
    torch.save(theirs.state_dict(), file := tmp_path / "own.pth")
    found = view.inspect(tmp_path / "a.png", "relu2_1,avgpool,fc7", "8,M,512", weights=file, device="cpu")
    assert found.features["fc7"].shape == (1, 24, 1, 1)
    assert sheet(found, top=4, at=(3, 4)).shape[0] == 1


def test_the_command_line(theirs, tmp_path, monkeypatch):
    from click.testing import CliRunner
    from vggfeat_cli import main

    monkeypatch.chdir(tmp_path)
    write_picture("a.png", torch.rand(1, 3, 24, 32))
    torch.save(theirs.state_dict(), "own.pth")
    network = ["--network", "8,M,512", "--weights", "own.pth"]
    for arguments in (
        ["dump", "a.png", "--layers", "fc7,relu7", "--resize", "none", "--workers", "0", "-o", "out", *network],
        ["show", "a.png", "--layer", "fc7", "-o", "page.png", *network],
    ):
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0, result.output
    assert json.loads(Path("out/run.json").read_text())["fingerprint"]["layers"] == ["fc7", "relu7"]
    bundled = CliRunner().invoke(main, ["dump", "a.png", "--layers", "fc7", "--resize", "32", "-o", "none"])
    if bundled.exit_code:  # unless torchvision's file is on this machine
        assert "have no classifier" in bundled.stderr


@pytest.mark.slow
def test_a_whole_vgg16_equals_torchvision_and_torch_fidelity(tmp_path):
    from torch_fidelity.feature_extractor_vgg16 import FeatureExtractorVGG16

    torch.manual_seed(0)
    model = torchvision.models.vgg16().eval()
    torch.save(model.state_dict(), path := tmp_path / "vgg16.pth")
    images = torch.randint(0, 256, (1, 3, 224, 224), dtype=torch.uint8)
    extract = FeatureExtractor("vgg16", HEAD, weights=path)
    found = extract(images / 255)
    torch.testing.assert_close(found["fc8"], model(extract.normalised(images / 255)).detach(), rtol=1e-4, atol=1e-5)
    random = FeatureExtractor("vgg16", "fc8", weights=None, seed=3)
    assert torch.equal(
        random(images / 255)["fc8"], FeatureExtractor("vgg16", "fc8", weights=None, seed=3)(images / 255)["fc8"]
    )
    theirs = FeatureExtractorVGG16("vgg16", ["fc2", "fc2_relu"], feature_extractor_weights_path=str(path))
    for name, x in zip(("fc7", "relu7"), theirs(images), strict=True):
        torch.testing.assert_close(found[name], x, rtol=1e-4, atol=1e-5)
