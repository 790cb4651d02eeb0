import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from vggfeat import vgg
from vggfeat.errors import InputError, LayerError
from vggfeat.explore.cam import class_activation


def own_network():
    """A network that is not a VGG, with layers that work in place."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace=True)),
        nn.AvgPool2d(2),
        nn.Conv2d(8, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(6, 4),
    )


NETWORKS = {
    "vgg": (lambda: vgg("8,M,16,16,M", head="gap", num_classes=4, seed=0), ("relu2_2", "features.1")),
    "own": (own_network, ("4", "0.1")),
}


@pytest.mark.parametrize("method", ["grad-cam", "layer-cam"])
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("classes", [None, [3, 0]])
def test_maps_are_those_of_the_package_grad_cam(method, network, classes):
    from pytorch_grad_cam import GradCAM, LayerCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    build, layers = NETWORKS[network]
    images = torch.rand(2, 3, 24, 32, generator=torch.Generator().manual_seed(1))
    model, oracle = build(), build().eval()
    for layer in layers:
        found = class_activation(model, images, layer, classes, method=method)
        place = {"relu2_2": "features.6"}.get(layer, layer)
        kind = GradCAM if method == "grad-cam" else LayerCAM
        targets = None if classes is None else [ClassifierOutputTarget(each) for each in classes]
        with kind(model=oracle, target_layers=[oracle.get_submodule(place)]) as cam:
            expected = cam(input_tensor=images, targets=targets)
        assert expected.max() == pytest.approx(1, abs=1e-3)
        assert np.allclose(found.shares(24, 32)[:, 0], expected, atol=2e-5)
        assert torch.equal(found.classes, found.logits.argmax(1) if classes is None else torch.tensor(classes))
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_layer_before_one_that_works_in_place_keeps_its_values():
    model = own_network().eval()
    images = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    kept = {}
    with torch.no_grad():
        kept["conv"] = model[0][0](images)
    x = kept["conv"].clone().requires_grad_()
    rest = nn.Sequential(nn.ReLU(), *model[1:])
    logits = rest(x)
    [gradient] = torch.autograd.grad(logits[0, 2], [x])
    expected = (gradient.mean((2, 3), keepdim=True) * kept["conv"]).sum(1).clamp_min(0)
    assert torch.allclose(class_activation(model, images, "0.0", 2).maps, expected, atol=1e-6)


def test_a_frozen_network_and_inference_mode():
    model = vgg("8,M,16", head="gap", num_classes=4, seed=0).requires_grad_(False)
    images = torch.rand(1, 3, 16, 16)
    expected = class_activation(model, images, model.features[1], 1).maps
    with torch.inference_mode():
        assert torch.equal(class_activation(model, images.clone(), "relu1_1", 1).maps, expected)


def test_every_module_keeps_its_mode():
    model = vgg("8,M,16", head="gap", num_classes=4, seed=0).train()
    model.features[0].eval()
    modes = [module.training for module in model.modules()]
    class_activation(model, torch.rand(1, 3, 16, 16), "relu1_1", 1)
    assert [module.training for module in model.modules()] == modes
    assert len(set(modes)) == 2


def test_what_cannot_be_mapped_is_told():
    model = vgg("8,M,16", head="gap", num_classes=4, seed=0)
    images = torch.rand(2, 3, 16, 16)
    for layer, options, kind, message in (
        ("relu2_2", {}, LayerError, "unknown layer 'relu2_2': did you mean relu2_1"),
        ("", {}, LayerError, "unknown layer ''"),
        ("classifier.0", {}, LayerError, r"classifier.0 returns \(2, 4\): a map needs \(N, C, h, w\)"),
        (nn.ReLU(), {}, LayerError, "the model has no such ReLU"),
        ("relu2_1", {"classes": 4}, InputError, "there is no class 4: there are 0 to 3"),
        ("relu2_1", {"classes": [1]}, InputError, "1 classes are given for 2 images"),
        ("relu2_1", {"method": "score"}, InputError, "unknown method 'score'"),
    ):
        with pytest.raises(kind, match=message):
            class_activation(model, images, layer, **options)
    headless = vgg("8,M,16", head=None, seed=0)
    with pytest.raises(InputError, match=r"the model returns \(2, 16, 8, 8\): it must return logits"):
        class_activation(headless, images, "relu2_1")
    idle = own_network()
    idle.idle = nn.Conv2d(3, 3, 1)
    idle.forward = nn.Sequential(*list(idle)[:9]).forward
    with pytest.raises(LayerError, match="the model does not use idle"):
        class_activation(idle, images, "idle")
    cut = vgg("8,M,16", head="gap", num_classes=4, seed=0)
    cut.classifier.register_forward_pre_hook(lambda _module, inputs: tuple(x.detach() for x in inputs))
    with pytest.raises(LayerError, match="the logits have no gradient at relu2_1"):
        class_activation(cut, images, "relu2_1")


def test_names_of_layers_work_for_torchvisions_vgg():
    with torch.device("meta"):
        model = torchvision.models.vgg11(num_classes=5)
        model.classifier = nn.Sequential(nn.Linear(512 * 49, 5))
    model.to_empty(device="cpu")
    for parameter in model.parameters():
        parameter.data.normal_(std=0.02)
    images = torch.rand(1, 3, 32, 32)
    one, two = (class_activation(model, images, layer, 1).maps for layer in ("relu5_2", "features.19"))
    assert torch.equal(one, two)
