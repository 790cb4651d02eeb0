"""Eigendistortions against the whole matrix and plenoptic, maximum differentiation against problems solved exactly."""

import pytest
import torch

from vggfeat import LPIPS, FeatureExtractor, eigendistortions, maximum_differentiation
from vggfeat.errors import ImageError, InputError, LayerError
from vggfeat.networks.network import vgg

PLAN = "4,4,M,6"

# The largest eigenvalues of noise of 6x8 pixels, by plenoptic 2.1.1 with method="exact".
PLENOPTIC = {"relu1_2": 11.029978, "conv2_1": 16.529808}


@pytest.fixture(scope="module")
def network():
    """A small network with random weights, as the options of `eigendistortions`."""
    state = vgg(PLAN, head=None, seed=0).state_dict()
    return {"network": PLAN, "weights": state, "mean": (0, 0, 0), "std": (1, 1, 1), "device": "cpu"}


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def whole(network, layer, image):
    """J'J of the layer's response in float64, by torch's own Jacobian."""
    options = {name: value for name, value in network.items() if name not in ("network", "device")}
    extract = FeatureExtractor(network["network"], layer, check="off", **options).double()
    jacobian = torch.autograd.functional.jacobian(lambda x: extract(x)[layer], image.double())
    matrix = jacobian.reshape(-1, image.numel())
    return matrix.T @ matrix


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("layer", PLENOPTIC)
def test_are_the_extreme_eigenvectors(exact, layer, network):
    image = noise(1, 3, 6, 8)
    matrix = whole(network, layer, image)
    values = torch.linalg.eigvalsh(matrix)
    run = eigendistortions(image, layer, steps=200, exact=exact, **network)
    *_, last = run
    assert run.values["most"] == pytest.approx(PLENOPTIC[layer], rel=1e-4)
    assert run.values["most"] == pytest.approx(float(values[-1]), rel=1e-4)
    assert run.values["least"] == pytest.approx(float(values[0]), abs=1e-3 * float(values[-1]))
    assert last.losses["most"] == pytest.approx(run.values["most"])
    changes = run.changes.flatten(1).double()
    torch.testing.assert_close(changes.norm(dim=1), torch.ones(2).double(), rtol=1e-4, atol=0)
    for change, name in zip(changes, ("most", "least"), strict=True):
        assert float(change @ matrix @ change) == pytest.approx(
            run.values[name], rel=1e-3, abs=1e-4 * float(values[-1])
        )
    torch.testing.assert_close(run.image, image + run.changes)


def test_the_smallest_eigenvalue_that_is_not_0(network):
    image = noise(1, 3, 6, 8)
    values = torch.linalg.eigvalsh(whole(network, "conv1_1", image))
    run = eigendistortions(image, "conv1_1", steps=200, **network)
    run.result()
    assert values[0] > 1e-5 * values[-1]
    assert list(run.values.values()) == pytest.approx([float(values[-1]), float(values[0])], rel=0.01)


def test_a_change_along_them_changes_the_response_as_the_values_say(network):
    image = noise(1, 3, 16, 16)
    run = eigendistortions(image, "relu2_1", **network)
    run.result()
    options = {name: value for name, value in network.items() if name not in ("network", "device")}
    extract = FeatureExtractor(PLAN, "relu2_1", check="off", **options).double()
    small = 1e-6
    before, after = (extract(x.double())["relu2_1"] for x in (image, image + small * run.changes.double()))
    squares = ((after - before) / small).square().sum((1, 2, 3))
    assert squares.tolist() == pytest.approx([run.values["most"], run.values["least"]], rel=0.05, abs=1e-4)
    assert run.values["most"] > 100 * run.values["least"]


def test_more_steps_notice_less(network):
    found = []
    for steps in (4, 16, 64):
        run = eigendistortions(noise(1, 3, 16, 16), "relu1_2", steps=steps, **network)
        run.result()
        found.append(run.values)
    assert found[0]["least"] > found[1]["least"] > found[2]["least"] >= 0
    assert found[0]["most"] <= found[1]["most"] <= found[2]["most"]


def weighted(x, y):
    """A distance that counts columns of a picture more the further right they are."""
    return ((x - y).square() * torch.linspace(1, 3, x.shape[3])).mean((1, 2, 3))


def square(x, y):
    return (x - y).square().mean((1, 2, 3))


def test_reaches_the_extremes_of_a_quadratic_metric():
    """At equal mean square, changes of the first column count once and those of the last three times."""
    image = torch.full((1, 3, 8, 8), 0.5)
    run = maximum_differentiation(image, weighted, square, noise=0.02, steps=150, device="cpu")
    run.result()
    assert run.held[0] == pytest.approx(run.held[1], rel=1e-3)
    assert run.values["most"] == pytest.approx(3 * run.held[0], rel=0.02)
    assert run.values["least"] == pytest.approx(run.held[1], rel=0.02)


@pytest.mark.parametrize(
    ("metric", "hold"), [("ssim", "mse"), ("mse", "ssim"), (LPIPS("alex", reduction="none"), "mse")]
)
def test_holds_one_metric_and_moves_the_other(metric, hold):
    image = torch.nn.functional.interpolate(noise(1, 3, 6, 6), (40, 48), mode="bilinear")
    run = maximum_differentiation(image, metric, hold, steps=8, device="cpu")
    start = run.held[0]
    steps = list(run)
    assert run.held == pytest.approx((start, start), rel=1e-3)
    first, last = steps[0].losses, steps[-1].losses
    assert last["most"] > 1.1 * last["least"]
    assert last["most"] > first["most"]
    assert last["least"] < first["least"]
    assert 0 <= run.image.min() <= run.image.max() <= 1
    again = maximum_differentiation(image, metric, hold, steps=8, device="cpu").result()
    assert torch.equal(run.image, again)


def test_wrong_requests_are_told(network):
    image = noise(1, 3, 16, 16)
    for call, kind, message in (
        (lambda: eigendistortions(image, "relu*", **network), LayerError, "of one layer, and 'relu\\*' names 3"),
        (lambda: eigendistortions(image, "relu9_9", **network), LayerError, "relu9_9"),
        (lambda: eigendistortions(image, "relu1_1", steps=0, **network), InputError, "steps is 0: it must be"),
        (
            lambda: eigendistortions(noise(1, 3, 40, 40), "relu1_1", exact=True, **network),
            InputError,
            "the image has 4800 values: the whole matrix is computed for at most 4096",
        ),
        (lambda: eigendistortions("no.png", "relu1_1", **network), ImageError, r"no\.png"),
        (lambda: maximum_differentiation(image, "lpips"), InputError, "unknown metric 'lpips': did you mean lpips-"),
        (lambda: maximum_differentiation(image, "mse", "sim"), InputError, "unknown hold 'sim': did you mean ssim"),
        (lambda: maximum_differentiation(image, "mse", "mse"), InputError, "'mse' is held fixed"),
        (lambda: maximum_differentiation(image, noise=0.0), InputError, "noise is 0.0: it must be a number between"),
        (
            lambda: maximum_differentiation(image[..., :8], "ssim"),
            InputError,
            "the image is 8x16: ssim needs 11 a side",
        ),
    ):
        with pytest.raises(kind, match=message):
            call()
