import hashlib
from importlib.resources import files

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models import VGG16_Weights

from vggfeat import Classifier
from vggfeat.errors import InputError, WeightsError
from vggfeat.networks import network, weights
from vggfeat.networks.network import vgg

CAT = files("vggfeat_assets") / "images" / "chelsea.jpg"


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VGGFEAT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


@pytest.fixture
def trained(tmp_path):
    model = vgg("4,M,8", head="gap", num_classes=3, seed=0)
    model.classes = ("cat", "dog", "cow")
    model.mean, model.std, model.size, model.resize = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4), 20, 24
    network.save(model, tmp_path / "trained.safetensors")
    return model, tmp_path / "trained.safetensors"


def narrow(path, classes=1000):
    """A file of torchvision's form, with a head narrow enough for a test."""
    with torch.device("meta"):
        model = torchvision.models.vgg11(weights=None)
        for index, shape in zip((0, 3, 6), ((512 * 49, 8), (8, 8), (8, classes)), strict=True):
            model.classifier[index] = nn.Linear(*shape)
    model.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    for tensor in model.parameters():
        scale = (2 / tensor[0].numel()) ** 0.5 if tensor.ndim > 1 else 0.1
        tensor.data.normal_(std=scale, generator=generator)
    torch.save(model.state_dict(), path)
    return model.eval()


def test_probabilities_are_those_of_torchvisions_module_and_preset(tmp_path):
    model = narrow(tmp_path / "vgg11.pth")
    picture = torch.rand(1, 3, 250, 333, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model(VGG16_Weights.IMAGENET1K_V1.transforms()(picture)).softmax(1)
    classify = Classifier("vgg11", tmp_path / "vgg11.pth", device="cpu")
    torch.testing.assert_close(classify.probabilities(picture), expected, rtol=1e-4, atol=1e-6)
    best = classify(picture)
    assert [prediction.index for prediction in best] == expected[0].topk(5).indices.tolist()
    names = VGG16_Weights.IMAGENET1K_V1.meta["categories"]
    assert [prediction.name for prediction in best] == [names[prediction.index] for prediction in best]


def test_a_trained_file_brings_all_it_needs(trained):
    model, path = trained
    classify = Classifier(weights=path, device="cpu")
    found = classify(CAT)
    assert sorted(prediction.name for prediction in found) == ["cat", "cow", "dog"]
    assert sum(prediction.probability for prediction in found) == pytest.approx(1)
    assert [p.probability for p in found] == sorted((p.probability for p in found), reverse=True)
    pixels = torch.rand(2, 3, 24, 24)
    with torch.no_grad():
        expected = model.eval()(model.normalise(pixels[..., 2:22, 2:22])).softmax(1)
    torch.testing.assert_close(classify.probabilities(pixels), expected)
    assert len(classify(pixels[0], top=2)) == 2


def test_one_channel_sees_grey(tmp_path):
    network.save(vgg("4,M+in:1", head="gap", num_classes=2, seed=0), tmp_path / "grey.safetensors")
    assert len(Classifier(weights=tmp_path / "grey.safetensors", device="cpu")(CAT)) == 2


def test_torchvisions_file_is_kept_whole_and_checked(tmp_path, monkeypatch):
    source = tmp_path / "served.pth"
    narrow(source)
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    served = tmp_path / f"vgg11-{digest[:8]}.pth"
    source.rename(served)

    monkeypatch.setattr("vggfeat.networks.weights.whole_url", lambda _entry: served.as_uri())
    assert len(Classifier("A", device="cpu").classes) == 1000
    kept = weights.cache_dir() / served.name
    assert [path.name for path in weights.cache_dir().iterdir()] == [served.name]
    served.unlink()  # a second time nothing is downloaded
    assert weights.whole("vgg11") == kept
    kept.write_bytes(kept.read_bytes()[:-1] + b"x")
    with pytest.raises(WeightsError, match="is not torchvision's: its sha256 begins with"):
        weights.whole("vgg11")


def test_refusals(trained, monkeypatch):
    _, path = trained

    def offline(*_arguments, **_options):
        raise OSError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    with pytest.raises(
        WeightsError, match=r"the whole vgg16 could not be downloaded .no route to host.; bundled are features"
    ):
        Classifier()
    with pytest.raises(WeightsError, match="vgg19 oxford have no classifier"):
        Classifier("vgg19", "oxford")
    with pytest.raises(WeightsError, match="alexnet imagenet1k_v1 have no classifier"):
        Classifier("alexnet")
    with pytest.raises(InputError, match="holds features without a classifier"):
        Classifier("vgg16", weights.find_entry("vgg16").path)
    classify = Classifier(weights=path, device="cpu")
    with pytest.raises(InputError, match=r"the picture is torch.uint8"):
        classify(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
    with pytest.raises(InputError, match=r"outside \[0, 1\]"):
        classify(torch.full((1, 3, 8, 8), 255.0))
    with pytest.raises(InputError, match=r"pictures are torch.uint8"):
        classify.probabilities(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))


def test_the_maps_are_those_of_the_network(trained):
    from vggfeat.explore.cam import class_activation

    model, path = trained
    picture = torch.rand(1, 3, 30, 40, generator=torch.Generator().manual_seed(3))
    classify = Classifier(weights=path, device="cpu")
    found = classify.cam(picture, ["relu1_1", "relu2_1"], classes=["cow", 0], method="layer-cam")
    assert [each.name for each in found.predictions] == ["cow", "cat"]
    assert found.predictions[1].probability == pytest.approx(float(classify.probabilities(picture)[0, 0]))
    x = model.normalise(found.picture).repeat(2, 1, 1, 1)
    for layer, maps in found.maps.items():
        expected = class_activation(model, x, layer, [2, 0], method="layer-cam").shares(20, 20)
        assert torch.allclose(maps, expected, atol=1e-5)
    assert list(classify.cam(picture, top=3).maps) == ["relu2_1"]
    best = classify(picture, top=3)
    assert [each.name for each in classify.cam(picture, top=3).predictions] == [each.name for each in best]
    with pytest.raises(InputError, match="unknown class 'cat2': did you mean cat"):
        classify.cam(picture, classes=["cat2"])
    with pytest.raises(InputError, match="unknown class '3'"):
        classify.cam(picture, classes=[3])
