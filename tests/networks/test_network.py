import json

import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file
from torch import nn

from vggfeat import FeatureExtractor
from vggfeat.errors import InputError, LayerError, WeightsError
from vggfeat.networks import arch, network, weights
from vggfeat.networks.describe import describe
from vggfeat.networks.network import vgg

TORCHVISION = ("vgg11", "vgg13", "vgg16", "vgg19", "vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn")
PAPER = ("A", "A-LRN", "B", "C", "D", "E")


def theirs(name: str, hidden: int = 8, classes: int = 5) -> nn.Module:
    """A network of torchvision's with a narrowed head, random weights and random batch statistics."""
    with torch.device("meta"):
        model = getattr(torchvision.models, name)(weights=None)
        head = (nn.Linear(512 * 49, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, classes))
        for index, layer in zip((0, 3, 6), head, strict=True):
            model.classifier[index] = layer
    model.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    for key, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            fan = tensor[0].numel() if tensor.ndim > 1 else 1
            tensor.normal_(std=(2 / fan) ** 0.5 if tensor.ndim > 1 else 0.1, generator=generator)
            if "running_var" in key or (tensor.ndim == 1 and "weight" in key):
                tensor.add_(1).abs_()
        else:
            tensor.zero_()
    return model.eval()


@pytest.mark.parametrize("name", TORCHVISION)
def test_whole_networks_have_torchvisions_keys_and_shapes(name):
    with torch.device("meta"):
        expected = getattr(torchvision.models, name)(weights=None).state_dict()
    ours = vgg(name, device="meta").state_dict()
    assert list(ours) == list(expected)
    assert all(ours[key].shape == tensor.shape for key, tensor in expected.items())


@pytest.mark.parametrize("name", TORCHVISION)
def test_state_dicts_interchange_with_torchvision_both_ways(name):
    one = theirs(name)
    ours = vgg(name, num_classes=5, hidden=8, seed=1).eval()
    images = torch.randn(2, 3, 64, 40, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        before = ours(images)
        ours.load_state_dict(one.state_dict(), strict=True)
        expected = one(images)
        assert (ours(images) - expected).abs().max() <= 1e-6 * expected.abs().max().clamp_min(1)
        assert not torch.allclose(before, expected)
        again = vgg(name, num_classes=5, hidden=8, seed=3).eval()
        one.load_state_dict(again.state_dict(), strict=True)
        assert (one(images) - again(images)).abs().max() <= 1e-6


@pytest.mark.slow
def test_one_whole_network_gives_torchvisions_logits():
    torch.manual_seed(0)
    one = torchvision.models.vgg16(weights=None).eval()
    ours = vgg("vgg16", device="meta").to_empty(device="cpu").eval()
    ours.load_state_dict(one.state_dict(), strict=True)
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), one(images), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", PAPER)
@pytest.mark.parametrize("batch_norm", [False, True])
def test_parameters_are_those_of_arch_and_of_the_paper(name, batch_norm):
    model = vgg(name, batch_norm=batch_norm, device="meta")
    counted = arch.count_parameters(model.network)
    assert counted.features == sum(tensor.numel() for tensor in model.features.parameters())
    assert counted.head == sum(tensor.numel() for tensor in model.classifier.parameters())
    assert round(counted.total / 1e6) == arch.PUBLISHED_MILLIONS[name]
    assert 0.85 < counted.head_share < 0.94
    assert model.network.name == name + "_bn" * batch_norm


@pytest.mark.parametrize("name", [*PAPER, "64,conv5-32,M,conv1-16,LRN,M3s1p1+leaky_relu:0.2+in:2"])
def test_every_block_has_the_size_that_arch_says(name):
    model = vgg(name, head="gap", device="meta")
    x = torch.empty(1, model.network.in_channels, 224, 224, device="meta")
    sides = [224]
    for layer, module in zip(arch.sized_layers(name), model.features, strict=True):
        x = module(x)
        assert x.shape[1:] == (layer.channels, layer.height, layer.width)
        if layer.kind == "pool":
            sides.append(x.shape[-1])
    assert tuple(sides) == arch.block_sides(name)
    if name in PAPER:
        assert sides == [224, 112, 56, 28, 14, 7]


@pytest.mark.parametrize("head", ["paper", "gap", None])
def test_heads(head):
    model = vgg([8, "M", 16], head=head, num_classes=3, hidden=6, seed=0)
    shapes = {key: tuple(tensor.shape) for key, tensor in model.classifier.state_dict(prefix="classifier.").items()}
    assert shapes == arch.head_shapes(model.network, head, 3, hidden=6)
    x = torch.rand(2, 3, 20, 14)
    assert model(x).shape == ((2, 16, 10, 7) if head is None else (2, 3))
    if head == "gap":
        torch.testing.assert_close(model(x), model.classifier(model.features(x).mean((2, 3))))


def test_activation_reaches_the_head_and_the_extractor():
    model = vgg("8,8,M,16", activation="leaky_relu", slope=0.2, num_classes=3, hidden=6, seed=0).eval()
    slopes = [module.negative_slope for module in model.modules() if isinstance(module, nn.LeakyReLU)]
    assert slopes == [0.2] * 5
    images = torch.rand(1, 3, 8, 8)
    extract = FeatureExtractor(model.network.name, "*", weights=model.state_dict())
    features = extract(images)
    assert features["relu1_2"].min() < 0
    torch.testing.assert_close(features["relu2_1"], model.features(model.normalise(images)))


@pytest.mark.parametrize("name", ["A-LRN", "C", "16,16,M,conv1-8,LRN+bn"])
def test_extractor_and_module_agree(name, images):
    model = vgg(name, head=None, seed=0).eval()
    extract = FeatureExtractor(name, "*", weights=model.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(list(extract(images).values())[-1], model(model.normalise(images)))


def test_initialisation_follows_its_source():
    deviations = {
        init: [module.weight.std().item() for module in (model.features[3], model.classifier[3])]
        for init in ("torchvision", "paper", "glorot")
        for model in [vgg([64, "M", 64], hidden=64, init=init, seed=0)]
    }
    assert deviations["torchvision"] == pytest.approx([(2 / (64 * 9)) ** 0.5, 0.01], rel=0.05)
    assert deviations["paper"] == pytest.approx([0.1, 0.1], rel=0.05)
    assert deviations["glorot"] == pytest.approx([(2 / (128 * 9)) ** 0.5, (2 / 128) ** 0.5], rel=0.05)
    model = vgg([8, "M"], batch_norm=True, head="gap", seed=0)
    assert all(not tensor.any() for key, tensor in model.named_parameters() if key.endswith("bias"))
    assert model.features[1].running_var.eq(1).all()


def test_initialisation_is_torchvisions():
    torch.manual_seed(0)
    expected = torchvision.models.vgg11(weights=None).features
    ours = vgg("vgg11", head=None, seed=0).features
    for a, b in zip(ours, expected, strict=True):
        if isinstance(a, nn.Conv2d):
            assert a.weight.std().item() == pytest.approx(b.weight.std().item(), rel=0.05)


def test_a_seed_fixes_the_weights_and_touches_nothing():
    torch.manual_seed(7)
    before = torch.get_rng_state()
    one, same, other = (vgg([8, "M"], head="gap", seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not torch.equal(one["features.0.weight"], other["features.0.weight"])
    vgg([8, "M"], head="gap")
    assert not torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"config": "vgg12"},
            LayerError,
            "unknown network 'vgg12', and not a plan such as 64,64,M,128,128,M: did you mean vgg1",
        ),
        ({"config": [64, "Q"]}, LayerError, "a plan holds channels, 'M', 'LRN', Conv or Pool, not 'Q'"),
        ({"config": ["M"]}, LayerError, "has no convolution"),
        ({"config": "alexnet"}, LayerError, "alexnet is not a VGG"),
        ({"activation": "leaky"}, InputError, "unknown activation 'leaky': did you mean leaky_relu"),
        ({"head": "gapp"}, InputError, "unknown head 'gapp': did you mean gap"),
        ({"init": "he"}, InputError, "unknown init 'he'"),
        ({"slope": 0.1}, InputError, "slope needs activation='leaky_relu'"),
        ({"num_classes": 0}, InputError, "num classes is 0: it must be a whole number of at least 1"),
        ({"in_channels": 0}, LayerError, "in_channels is 0"),
    ],
)
def test_refusals(options, error, message):
    with pytest.raises(error, match=message):
        vgg(**{"device": "meta", **options})


def make_layers(cfg, batch_norm=False, activation=lambda: nn.ReLU(inplace=True)):
    """What write-ups have."""
    layers, channels = [], 3
    for item in cfg:
        if item == "M":
            layers += [nn.MaxPool2d(2, 2)]
        else:
            layers += [nn.Conv2d(channels, item, 3, padding=1), *([nn.BatchNorm2d(item)] if batch_norm else [])]
            layers += [activation()]
            channels = item
    return nn.Sequential(*layers)


def test_describes_what_anybody_built():
    assert describe(make_layers([8, "M", 16], batch_norm=True)).name == "8,M,16+bn"
    leaky = make_layers([8, "M"], activation=lambda: nn.LeakyReLU(0.1))
    assert describe(leaky).name == "8,M+leaky_relu:0.1"
    with torch.device("meta"):
        for name in TORCHVISION:
            assert describe(getattr(torchvision.models, name)(weights=None).features).name == name
    for name in ("C", "A-LRN_bn", "64,conv5-32s2p1,M3s1p1+in:1"):
        assert describe(vgg(name, head=None, device="meta").features) == arch.network(name)


@pytest.mark.parametrize(
    ("stack", "message"),
    [
        ([nn.Conv2d(3, 8, 3), nn.Dropout()], "features.1 is a Dropout"),
        ([nn.Conv2d(3, 8, 3), nn.MaxPool2d(2)], "features.0 is a convolution without an activation"),
        ([nn.Conv2d(3, 8, (3, 1)), nn.ReLU()], "features.0 is not square"),
        ([nn.Conv2d(3, 8, 3, dilation=2), nn.ReLU()], "features.0 is not square, or is dilated or grouped"),
        ([nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.LeakyReLU()], "mixes several activations"),
    ],
)
def test_what_no_plan_describes_is_named(stack, message):
    with pytest.raises(LayerError, match=message):
        describe(nn.Sequential(*stack))


@pytest.mark.parametrize("head", ["paper", "gap", None])
def test_files_say_what_they_are(head, tmp_path, images):
    config = [8, "M", 16]
    model = vgg(config, batch_norm=True, activation="leaky_relu", head=head, num_classes=2, hidden=4, seed=0).eval()
    model.classes = ("cat", "dog") if head else model.classes
    model.mean, model.std, model.size, model.resize = (0.5, 0.4, 0.3), (0.2, 0.2, 0.1), 32, 40
    path = tmp_path / "own.safetensors"
    network.save(model, path)
    assert [other.name for other in tmp_path.iterdir()] == ["own.safetensors"]
    again = network.load(path)
    assert (again.network, again.head, again.classes) == (model.network, head, model.classes if head else ())
    assert (again.mean, again.std, again.size, again.resize) == (model.mean, model.std, 32, 40)
    x = model.normalise(images)
    assert torch.equal(again(x), model(x))
    for name in ("auto", "8,M,16+bn"):
        extract = FeatureExtractor(name, "*", weights=path)
        assert extract.network == model.network.name
        assert extract.weights_entry.mean == model.mean
        torch.testing.assert_close(extract(images)["relu2_1"], model.features(x))


def test_torchvision_files_load_with_their_heads(tmp_path):
    model = theirs("vgg11_bn")
    path = tmp_path / "theirs.pth"
    torch.save(model.state_dict(), path)
    again = network.load(path, "vgg11_bn")
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(again(x), model(x))
    assert (again.head, again.hidden, again.classes) == ("paper", 8, ("0", "1", "2", "3", "4"))
    assert network.load(path).network.name == "vgg11_bn"
    with pytest.raises(WeightsError, match="does not fit vgg13"):
        network.load(path, "vgg13")


def test_damaged_and_foreign_files_are_refused(tmp_path):
    path = tmp_path / "own.safetensors"
    network.save(vgg([8, "M"], head="gap", num_classes=2, seed=0), path)
    with pytest.raises(WeightsError, match="does not fit vgg16"):
        FeatureExtractor("vgg16", "relu1_1", weights=path)
    about = weights.metadata(path)
    state = load_file(path)
    state["features.0.bias"] += 1
    save_file(state, path, metadata={"vggfeat": json.dumps(about)})
    with pytest.raises(WeightsError, match="is damaged: its layers are not those that were written"):
        network.load(path)
    del state["classifier.0.bias"]
    save_file(state, path)
    with pytest.raises(WeightsError, match=r"does not fit 8,M with the gap head: Missing key.*classifier.0.bias"):
        network.load(path, "8,M")
    state["classifier.7.weight"] = torch.zeros(2, 2)
    save_file(state, path)
    with pytest.raises(WeightsError, match="has a head that is neither the paper's nor one linear layer"):
        network.load(path, "8,M")
