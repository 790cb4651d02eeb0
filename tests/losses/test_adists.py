"""A-DISTS against its definition written out in float64."""

import pytest
import torch
import torch.nn.functional as F

from vggfeat import ADISTS, ADISTSLoss
from vggfeat.losses.functional import adists
from vggfeat.networks import weights
from vggfeat.pictures import images

PICTURES = weights.find_entry("vgg16").path.parents[1] / "images"
CENTRES = {"relu1_2": 1.0, "relu2_2": 2.0, "relu3_3": 2.95, "relu4_3": 0.97, "relu5_3": 0.21}
WIDTHS = {"relu1_2": 0.29, "relu2_2": 0.52, "relu3_3": 0.56, "relu4_3": 0.25, "relu5_3": 0.10}


@pytest.fixture(scope="module")
def pairs():
    """Two pairs: noise, and a photograph against itself blurred. (2, 3, 44, 50) in [0, 1]."""
    noise = torch.rand(2, 3, 44, 50, generator=torch.Generator().manual_seed(0))
    photograph = images.resize(images.read_picture(PICTURES / "chelsea.jpg").rgb, 44, 50)
    blurred = images.resize(images.resize(photograph, 22, 25), 44, 50)
    return torch.cat([noise[:1], photograph]), torch.cat([noise[1:], blurred])


def neighbourhoods(x):
    """The values of each window (C, K, P) of features (C, H, W), and their weights (K, 1): a window, or everything."""
    if min(x.shape[1:]) < 21:
        return x.reshape(len(x), -1, 1), torch.full((x[0].numel(), 1), 1 / x[0].numel()).double()
    offsets = torch.arange(-10, 11).double()
    window = torch.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 7**2)).reshape(-1, 1)
    return F.unfold(x[:, None], 21), window / window.sum()


def definition(x, y):
    """Of the features {layer: (C, H, W)} of a prediction and of the reference, in float64."""
    total, probability = 0.0, None
    for name in reversed(x):
        (one, weight), (other, _) = neighbourhoods(x[name].double()), neighbourhoods(y[name].double())
        means = [(z * weight).sum(1, keepdim=True) for z in (one, other)]
        variances = [((z - mean) ** 2 * weight).sum(1) for z, mean in zip((one, other), means, strict=True)]
        covariance = ((one - means[0]) * (other - means[1]) * weight).sum(1)
        means = [mean[:, 0] for mean in means]
        texture = (2 * means[0] * means[1] + 1e-6) / (means[0] ** 2 + means[1] ** 2 + 1e-6)
        structure = (2 * covariance + 1e-6) / (variances[0] + variances[1] + 1e-6)
        if name in CENTRES:
            dispersion = (variances[1] / (means[1] + 1e-12)).mean(0)
            probability = 1 / (1 + torch.exp(-(dispersion - CENTRES[name]) / WIDTHS[name]))
        total += ((1 - probability) * texture + probability * structure).mean(1).sum() / 1475
    return 1 - total


@pytest.mark.parametrize("size", [(42, 44), (20, 40)])
def test_is_the_definition(size, pairs):
    """In the smaller size no layer is as large as the window."""
    criterion = ADISTS(reduction="none")
    x, y = (z[..., : size[0], : size[1]] for z in pairs)
    features = [criterion.features(z) for z in (x, y)]
    names = criterion.loss.layers
    expected = [definition(*({name: z[name][row] for name in names} for z in features)) for row in range(2)]
    torch.testing.assert_close(criterion(x, y).double(), torch.stack(expected), rtol=1e-4, atol=1e-5)
    assert abs(expected[1] - definition(*({name: z[name][1] for name in names} for z in features[::-1]))) > 1e-3


def test_equal_images_are_at_no_distance_to_the_bit(pairs):
    assert torch.equal(ADISTS(reduction="none")(pairs[0], pairs[0]), torch.zeros(2))


def test_small_distances_keep_their_digits(pairs):
    """The definition subtracts from 1, which would leave three digits here."""
    near = pairs[0] + 1e-3 * (pairs[1] - pairs[0])
    loss = ADISTS(reduction="none")
    exact = ADISTS(reduction="none").double()(near.double(), pairs[0].double())
    torch.testing.assert_close(loss(near, pairs[0]).double(), exact, rtol=1e-2, atol=0)


def test_second_derivative():
    loss = ADISTSLoss()
    loss.weights = {"image": 1.0, "relu1_2": 1.0}
    x, y = (torch.rand(1, 2, 22, 21, dtype=torch.float64, generator=torch.Generator().manual_seed(n)) for n in (0, 1))

    def distance(x, y):
        return loss({"image": x, "relu1_2": x}, loss.target({"image": y, "relu1_2": y}, graph=True))

    inputs = x.requires_grad_(), y.requires_grad_()
    assert torch.autograd.gradcheck(distance, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(distance, inputs, fast_mode=True)


def test_the_function_is_the_class(pairs):
    assert torch.equal(adists(*pairs, resize=32), ADISTS(resize=32)(*pairs))
