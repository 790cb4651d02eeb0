"""DMM against the package `DMM_PyTorch`, and its definition written out."""

import warnings

import numpy as np
import pytest
import torch
import vggfeat.functional as F
from peers import torchvision_features

from vggfeat import DMM, DMMLoss
from vggfeat.errors import InputError
from vggfeat.losses import dmm
from vggfeat.networks import weights
from vggfeat.pictures import images

PICTURES = weights.find_entry("vgg16").path.parents[1] / "images"


@pytest.fixture(scope="module")
def pairs():
    """Two pairs: noise, and a photograph against itself blurred. (2, 3, 121, 130) in [0, 1]."""
    noise = torch.rand(2, 3, 121, 130, generator=torch.Generator().manual_seed(0))
    photograph = images.resize(images.read_picture(PICTURES / "chelsea.jpg").rgb, 121, 130)
    blurred = images.resize(images.resize(photograph, 30, 32), 121, 130)
    return torch.cat([noise[:1], photograph]), torch.cat([noise[1:], blurred])


@pytest.fixture
def package(monkeypatch):
    """The module of `DMM_PyTorch` with our weights in it."""
    theirs = pytest.importorskip("DMM_PyTorch")
    layers = torchvision_features("vgg16")
    state, _ = weights.load("vgg16")
    layers.load_state_dict({key.removeprefix("features."): x for key, x in state.items()})
    network = torch.nn.Module()
    network.features = layers
    monkeypatch.setattr("torchvision.models.vgg16", lambda **_: network)
    with warnings.catch_warnings(action="ignore"):
        return theirs.DMM()


def test_values_are_the_packages(package, pairs):
    """Patches of low rank have any singular vectors, so both must round alike."""
    torch.testing.assert_close(DMM(reduction="none")(*pairs), package(*pairs), rtol=1e-5, atol=0)


def definition(x, y):
    """Of the features (C, H, W) of one layer, patch by patch."""
    height, width = x.shape[1:]
    found = []
    for channel in zip(x, y, strict=True):
        for top in range(0, height - 15, 4):
            for left in range(0, width - 15, 4):
                patches = [z[top : top + 16, left : left + 16].T for z in channel]
                (one, values, _), (other, others, _) = map(np.linalg.svd, patches)
                agreement = [sum(abs(one[row, j] * other[row, j]) for j in range(16)) for row in range(16)]
                found.append(((values - others) ** 2).sum() * np.std(agreement, ddof=1) / np.mean(agreement))
    means = [z.mean((1, 2)) for z in (x, y)]
    alike = (2 * means[0] * means[1] + 1e-6) / (means[0] ** 2 + means[1] ** 2 + 1e-6)
    return np.mean(found) * np.exp(-2 * alike.mean())


def noise(seed, *shape):
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def one_layer(**options):
    """The loss over one layer only."""
    loss = DMMLoss(**options)
    loss.weights = {"relu3_3": 1.0}
    return lambda x, y, **graph: loss({"relu3_3": x}, loss.target({"relu3_3": y}, **graph))


def test_is_the_definition(monkeypatch):
    x, y = noise(0, 2, 3, 21, 24), noise(1, 2, 3, 21, 24)
    expected = torch.tensor([definition(*pair) for pair in zip(x.numpy(), y.numpy(), strict=True)])
    loss = one_layer(reduction="none")
    torch.testing.assert_close(loss(x, y), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(loss(x, y[:1])[1], one_layer()(x[1:], y[:1]))
    monkeypatch.setattr(dmm, "CHUNK_BYTES", 1)
    torch.testing.assert_close(loss(x, y), expected, rtol=1e-6, atol=0)


def test_gradients():
    x, y = (noise(seed, 1, 1, 17, 20).requires_grad_() for seed in (0, 1))
    assert torch.autograd.gradcheck(lambda x, y: one_layer()(x, y, graph=True), (x, y))


@pytest.mark.parametrize("same", [False, True])
def test_gradient_is_finite_where_singular_values_are_equal(same):
    """The package gives NaN where a patch has equal singular values, as patches of zeros do."""
    x, y = noise(0, 1, 3, 20, 20), noise(1, 1, 3, 20, 20)
    x[:, 0], y[:, 0], x[:, 1, :, 3:] = 0, 0, 0
    y = x.clone() if same else y
    x.requires_grad_()
    one_layer()(x, y).backward()
    assert x.grad.isfinite().all()
    assert same or x.grad.abs().max() > 0


def test_second_derivatives_are_refused():
    x = noise(0, 1, 1, 16, 16).requires_grad_()
    with pytest.raises(InputError, match="DMM has no second derivative"):
        torch.autograd.grad(one_layer()(x, noise(1, 1, 1, 16, 16)), x, create_graph=True)


def test_sizes(pairs):
    x, y = (z[:1, :, :, :121] for z in pairs)
    assert DMM()(x, y) > 0
    with pytest.raises(InputError, match="120x121 pixels are too small for relu4_3 of vgg16: it needs at least 121"):
        DMM()(x[:, :, 1:], y[:, :, 1:])
    with pytest.raises(InputError, match="the prediction is 1x3x121x121 and the target 1x3x121x120"):
        DMM()(x, y[..., 1:])
    with pytest.raises(InputError, match="relu3_3 has 15x16 positions: DMM compares patches of 16x16"):
        one_layer()(*torch.rand(2, 1, 4, 15, 16))


def test_grey_images_masks_and_gradients(pairs):
    criterion = DMM(channels="repeat")
    x, y = (z[1:, :1, :, :121].clone() for z in pairs)
    x.requires_grad_()
    value = criterion(x, y)
    assert torch.equal(value, F.dmm(x, y, channels="repeat"))
    (gradient,) = torch.autograd.grad(value, x)
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0
    mask = torch.zeros(1, 1, 121, 121)
    mask[..., 60:] = 1
    assert criterion(torch.where(mask > 0, y, x), y, mask) == 0


def test_the_network_reads_images_as_they_are():
    assert "| pooling=l2 | mean=0,0,0 | std=1,1,1 | input_range=unit |" in DMM().signature()
