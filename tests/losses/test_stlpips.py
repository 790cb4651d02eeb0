"""ST-LPIPS against the package `stlpips_pytorch`, which brings the weights."""

import sys
import warnings
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import vggfeat.functional as F

from vggfeat import LPIPS, STLPIPS
from vggfeat.errors import InputError, WeightsError
from vggfeat.networks import weights
from vggfeat.pictures import images

PICTURES = weights.find_entry("vgg16").path.parents[1] / "images"
NETS = ("alex", "vgg")


@pytest.fixture(scope="module")
def pairs():
    """Two pairs: noise, and a photograph against itself moved by a pixel. (2, 3, 65, 96) in [0, 1]."""
    noise = torch.rand(2, 3, 65, 96, generator=torch.Generator().manual_seed(0))
    photograph = images.resize(images.read_picture(PICTURES / "chelsea.jpg").rgb, 66, 97)
    return torch.cat([noise[:1], photograph[..., 1:, 1:]]), torch.cat([noise[1:], photograph[..., :-1, :-1]])


@pytest.fixture(scope="module")
def package():
    """The module of `stlpips_pytorch`, without two packages that it imports and does not use here."""
    with pytest.MonkeyPatch.context() as patched, warnings.catch_warnings(action="ignore"):
        for name, member in (("IPython", "embed"), ("torchsummary", "summary")):
            if find_spec(name) is None:
                patched.setitem(sys.modules, name, SimpleNamespace(**{member: None}))
        return pytest.importorskip("stlpips_pytorch.stlpips")


@pytest.fixture(scope="module", params=NETS)
def both(request, package):
    """Theirs and ours, by options, of one network."""
    net = request.param
    file = Path(package.__file__).parent / "weights" / "vST0.0" / f"{net}_shift_tolerant.pth"

    def theirs(**options):
        return package.LPIPS(net=net, variant="shift_tolerant", verbose=False, **options)

    return theirs, lambda **options: STLPIPS(net, weights="default" if net == "alex" else file, **options)


def test_values_are_the_packages(both, pairs):
    theirs, ours = (make(**options) for make, options in zip(both, ({}, {"reduction": "none"}), strict=True))
    signed = [x * 2 - 1 for x in pairs]
    for one, other in ((signed, pairs), ([x[..., :64, :] for x in signed], [x[..., :64, :] for x in pairs])):
        torch.testing.assert_close(ours(*other), theirs(*one).flatten(), rtol=1e-5, atol=1e-6)


def test_maps_are_the_packages(both, pairs):
    theirs, ours = (make(spatial=True) for make in both)
    torch.testing.assert_close(ours(*pairs), theirs(*pairs, normalize=True), rtol=1e-4, atol=1e-5)


def test_gradient_is_the_packages(both, pairs):
    x = pairs[0].clone().requires_grad_()
    gradients = []
    for make in both:
        options = {} if make is both[1] else {"normalize": True}
        gradients += torch.autograd.grad(make()(x, pairs[1], **options).mean(), x)
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-5 * gradients[0].abs().max().item())


def test_the_smallest_image_is_the_packages(both):
    theirs, ours = (make() for make in both)
    least = ours.trunk.minimum_size
    x, y = torch.rand(2, 1, 3, least, least)
    torch.testing.assert_close(ours(x, y), theirs(x, y, normalize=True).mean(), rtol=1e-5, atol=1e-6)
    x, y = (z[..., 1:] for z in (x, y))
    with pytest.raises(InputError, match=rf"too small for relu\d_3 of shift-tolerant \w+: it needs at least {least} a"):
        ours(x, y)
    with pytest.raises(RuntimeError):
        theirs(x, y)


def test_bundled_weights_are_the_packages(package):
    file = Path(package.__file__).parent / "weights" / "vST0.0" / "alex_shift_tolerant.pth"
    assert STLPIPS(weights=file).signature() == STLPIPS().signature()
    with pytest.raises(WeightsError, match=r"alex_shift_tolerant\.pth' does not fit vgg16: features"):
        STLPIPS("vgg", weights=file)


def test_a_shift_changes_less_than_with_lpips(pairs):
    moved = [x[1:] for x in pairs]
    assert STLPIPS()(*moved) < LPIPS("alex")(*moved) / 2


def test_the_function_is_the_class(pairs):
    assert torch.equal(F.stlpips(*pairs, reduction="none"), STLPIPS(reduction="none")(*pairs))
    assert torch.equal(F.stlpips(*pairs, spatial=True), STLPIPS(spatial=True)(*pairs))


def test_weights_that_do_not_fit():
    with pytest.raises(
        WeightsError, match=r"on vgg16 are not bundled, .* pass the file stlpips_pytorch/weights/vST0\.0/"
    ):
        STLPIPS("vgg")
    with pytest.raises(WeightsError, match="ST-LPIPS has no random weights"):
        STLPIPS(weights=None)
    state = weights.load_stlpips("alexnet")
    heads = {key: x for key, x in state.items() if key.startswith("lin")}
    lpips = {f"net.slice1.{key.removeprefix('features.')}": x for key, x in state.items() if key not in heads}
    with pytest.raises(WeightsError, match="the state dict is not of a shift-tolerant network"):
        STLPIPS(weights=lpips | heads)
    with pytest.raises(WeightsError, match="has LPIPS heads of no channels"):
        STLPIPS(weights={key: x for key, x in state.items() if key not in heads})
    with pytest.raises(InputError, match="unknown net 'squeeze': choose from alex, vgg"):
        STLPIPS("squeeze")


def test_damaged_bundled_weights_are_refused(monkeypatch):
    monkeypatch.setattr("vggfeat.networks.weights.STLPIPS_SHA256", 64 * "0")
    with pytest.raises(WeightsError, match=r"alexnet-stlpips\.safetensors' is damaged"):
        STLPIPS()
