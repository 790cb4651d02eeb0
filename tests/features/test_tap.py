import pytest
import torch
import torchvision
from torch import nn

from vggfeat import FeatureExtractor
from vggfeat.errors import InputError, LayerError
from vggfeat.networks.network import vgg


@pytest.fixture
def model():
    model = vgg("8,8,M,16+bn", head="gap", num_classes=3, seed=0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model


def test_a_frozen_tap_equals_the_extractor_of_the_same_weights(model, images):
    features = FeatureExtractor.of(model, "*")(images)
    expected = FeatureExtractor(model.network.name, "*", weights=model.state_dict())(images)
    assert list(features) == list(expected)
    for name, x in expected.items():
        torch.testing.assert_close(features[name], x)
    assert features["conv2_1"].min() < 0


def test_a_frozen_tap_is_out_of_the_way(model, images):
    tap = FeatureExtractor.of(model, ["bn1_2", "relu2_1"]).train()
    parent = nn.ModuleList([tap])
    assert not list(parent.parameters())
    assert not parent.state_dict()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    x = images.clone().requires_grad_()
    tap(x)["relu2_1"].sum().backward()
    assert x.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())
    assert model.training


def test_a_frozen_tap_follows_the_training_of_its_model(model, images):
    tap = FeatureExtractor.of(model, "conv1_1")
    before = tap(images)["conv1_1"]
    with torch.no_grad():
        model.features[0].bias += 1
    torch.testing.assert_close(tap(images)["conv1_1"], before + 1)


def test_a_tap_that_is_not_frozen_trains_its_model(model, images):
    tap = FeatureExtractor.of(model, ["conv1_1", "relu2_1"], frozen=False)
    assert set(map(id, tap.parameters())) == set(map(id, model.parameters()))
    means = model.features[1].running_mean.clone()
    features = tap(images)
    expected = nn.functional.conv2d(model.normalise(images), *model.features[0].parameters(), padding=1)
    torch.testing.assert_close(features["conv1_1"], expected)
    features["relu2_1"].square().mean().backward()
    assert model.features[0].weight.grad.abs().sum() > 0
    assert not torch.equal(means, model.features[1].running_mean)
    tap.eval()
    assert not model.training
    still = FeatureExtractor.of(model, "relu2_1")(images)["relu2_1"]
    torch.testing.assert_close(tap(images)["relu2_1"], still)


@pytest.mark.parametrize("frozen", [True, False])
def test_in_place_activations_overwrite_nothing(frozen, images):
    model = torchvision.models.vgg11(weights=None).features[:5]
    features = FeatureExtractor.of(model, "*", frozen=frozen)(images)
    assert features["conv1_1"].min() < 0
    torch.testing.assert_close(features["relu1_1"], features["conv1_1"].relu())
    torch.testing.assert_close(features["relu2_1"], features["conv2_1"].relu())


def test_anybodys_module_has_the_same_names(images):
    class Theirs(nn.Module):
        def __init__(self):
            super().__init__()
            self.features = nn.Sequential(
                nn.Conv2d(3, 4, 3, padding=1), nn.LeakyReLU(0.1, inplace=True), nn.MaxPool2d(2)
            )

    tap = FeatureExtractor.of(Theirs(), "relu1_1,pool1", mean=(0, 0, 0), std=(1, 1, 1))
    assert tap.network == "4,M+leaky_relu:0.1"
    assert {name: tuple(x.shape) for name, x in tap(images).items()} == {
        "relu1_1": (2, 4, 48, 64),
        "pool1": (2, 4, 24, 32),
    }


def test_other_channels_than_three():
    tap = FeatureExtractor.of(vgg("4,M+in:1", head=None, seed=0), "pool1")
    assert tap(torch.rand(1, 1, 8, 8))["pool1"].shape == (1, 4, 4, 4)
    with pytest.raises(InputError, match="images have 3 channels, not 1"):
        tap(torch.rand(1, 3, 8, 8))


def test_training_precision_is_the_models(model, images):
    tap = FeatureExtractor.of(model, "conv1_1", frozen=False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert tap(images)["conv1_1"].dtype == torch.bfloat16
        assert FeatureExtractor.of(model, "conv1_1")(images)["conv1_1"].dtype == torch.float32
    assert FeatureExtractor.of(model.bfloat16(), "conv1_1")(images)["conv1_1"].dtype == torch.bfloat16


def test_refusals(model):
    with pytest.raises(LayerError, match=r"unknown layer 'relu2_2' of 8,8,M,16\+bn: block 2 has relu2_1"):
        FeatureExtractor.of(model, "relu2_2")
    with pytest.raises(LayerError, match="a Linear has no `features`"):
        FeatureExtractor.of(nn.Linear(2, 2), "relu1_1")
