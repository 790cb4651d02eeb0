import pytest
import torch

from vggfeat import FeatureExtractor, InputError, LayerError
from vggfeat.explore import colours, view
from vggfeat.networks import arch


@pytest.fixture(scope="module")
def picture():
    return torch.rand(1, 3, 60, 90, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def seen(picture):
    return view.inspect(picture, "conv2_1,relu3_3", weights=None, device="cpu")


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def test_look_is_what_the_extractor_says(picture, seen):
    expected = FeatureExtractor("vgg16", "conv2_1,relu3_3", weights=None)(picture)
    assert list(seen.features) == list(expected) == [layer.name for layer in seen.layers]
    for name, features in expected.items():
        torch.testing.assert_close(seen.features[name], features)
    assert seen.size == (90, 60)
    assert torch.equal(seen.picture, picture)
    assert seen.title == "a tensor"


def test_look_shrinks_and_never_enlarges(picture):
    small = view.inspect(picture, "relu1_1", weights=None, size=45)
    assert small.picture.shape == (1, 3, 30, 45)
    assert small.size == (90, 60)
    assert view.inspect(picture, "relu1_1", weights=None, size=9999).picture.shape == picture.shape
    # Centres of pixels: the middle of pixels 0 and 1 is the first of half as many.
    assert small.pixel(0.5, 0.5) == (0, 0)
    assert small.pixel(89, 59) == (44.25, 29.25)


def test_pixels_outside_the_picture_are_refused(seen):
    for at in ((-1, 0), (90, 0), (0, 60)):
        with pytest.raises(InputError, match=r"outside the picture: x is 0 to 89, y 0 to 59"):
            seen.pixel(*at)


def test_most_active():
    features = torch.zeros(1, 4, 2, 2)
    features[0, 2], features[0, 0], features[0, 3, 0, 0] = 1, -2, 3
    assert view.most_active(features, 2) == (0, 2)
    assert view.most_active(features, 9) == (0, 2, 3, 1)
    with pytest.raises(InputError, match="top is 0"):
        view.most_active(features, 0)


def test_channels_run_from_black_to_white():
    features = torch.zeros(1, 3, 10, 10)
    features[0, 0] = torch.linspace(0, 50, 100).reshape(10, 10)
    features[0, 1, 4, 5] = 7
    maps = view.channel_maps(features, [1, 0, 2])
    assert maps.shape == (3, 3, 10, 10)
    assert torch.equal(maps[0, :, 4, 5], colours.heat(torch.ones(1, 1, 1, 1)).flatten())
    assert maps[0].sum() == maps[0, :, 4, 5].sum()
    assert maps[1, :, 0, 0].sum() == 0
    # 99 values are not 0, and one in a hundred of them is 1.
    share = (features[0, 0] / features[0, 0].flatten().sort().values[-2]).clamp(max=1)
    torch.testing.assert_close(maps[1], colours.heat(share[None, None])[0])
    assert maps[2].sum() == 0
    of_layer = view.channel_maps(features, [1], scale="layer")
    assert of_layer[0, :, 4, 5].sum() < maps[0, :, 4, 5].sum()


def test_channels_below_zero_are_blue():
    features = torch.zeros(1, 2, 4, 4)
    features[0, 0, 0, 0], features[0, 0, 1, 1], features[0, 1, 2, 2] = -3, 1.5, 1
    maps = view.channel_maps(features, [0, 1])
    red, _, blue = maps[0, :, 0, 0]
    assert blue >= red
    half = maps[0, :, 1, 1]
    assert half[0] > half[2]
    torch.testing.assert_close(half, colours.signed(torch.full((1, 1, 1, 1), 0.5)).flatten())
    assert maps[1, 0, 2, 2] > 0.8


def test_channels_that_do_not_exist():
    with pytest.raises(InputError, match="no channel 4: choose from 0 to 3"):
        view.channel_maps(torch.zeros(1, 4, 2, 2), [1, 4])
    with pytest.raises(InputError, match="unknown scale 'layers': did you mean layer"):
        view.channel_maps(torch.zeros(1, 4, 2, 2), [1], scale="layers")


def test_mean_heat():
    features = torch.tensor([[[[0.0, 2.0], [1.0, -3.0]], [[0.0, 2.0], [1.0, 5.0]]]])
    expected = torch.tensor([[0, 2], [1, 4]]) / 4
    torch.testing.assert_close(view.mean_heat(features), expected[None, None])
    assert view.mean_heat(torch.ones(1, 3, 4, 4)).abs().max() == 0


def test_components_are_those_of_the_singular_values():
    features = noise(1, 6, 9, 11) * torch.tensor([5.0, 3, 2, 1, 0.5, 0.2]).reshape(1, 6, 1, 1)
    found = view.components(features)
    points = features[0].flatten(1).double()
    points = points - points.mean(1, keepdim=True)
    axes, values, _ = torch.linalg.svd(points, full_matrices=False)
    share = values.square() / values.square().sum()
    torch.testing.assert_close(torch.tensor(found.variance, dtype=torch.float64), share[:3])
    for number in range(3):
        scores = axes[:, number] @ points
        scores *= axes[axes[:, number].abs().argmax(), number].sign()
        low, high = scores.sort().values[[0, -1]]  # of 99 positions none is an outlier
        torch.testing.assert_close(
            found.rgb[0, number].flatten(), ((scores - low) / (high - low)).float(), rtol=0, atol=1e-5
        )


def test_components_do_not_depend_on_the_order_of_positions():
    features = noise(1, 8, 12, 12)
    turned = view.components(features.flip(3)).rgb.flip(3)
    torch.testing.assert_close(view.components(features).rgb, turned, rtol=0, atol=1e-4)


def test_components_that_do_not_exist_are_grey():
    assert (view.components(torch.ones(1, 5, 4, 4)).rgb == 0.5).all()
    assert view.components(torch.ones(1, 5, 4, 4)).variance == (0, 0, 0)
    line = torch.arange(12.0).reshape(1, 1, 3, 4) * torch.tensor([1.0, 2, 3, 4]).reshape(1, 4, 1, 1)
    found = view.components(line)
    torch.testing.assert_close(found.rgb[0, 0].flatten(), torch.linspace(0, 1, 12))
    assert (found.rgb[0, 1:] == 0.5).all()
    assert found.variance[0] == pytest.approx(1)
    assert (view.components(noise(1, 5, 1, 1)).rgb == 0.5).all()


def test_values_stand_at_the_middle_of_what_positions_see():
    [layer] = arch.find_layers("vgg16", "relu3_3")
    across = torch.arange(7.0).expand(5, 7)
    down = torch.arange(5.0)[:, None].expand(5, 7)
    at = view.at_pixels(torch.stack([across, down])[None], layer, 22, 31)  # more than 5 x 7 positions cover
    assert at.shape == (1, 2, 22, 31)
    torch.testing.assert_close(at[0, 0, 7], ((torch.arange(31) - 1.5) / 4).clamp(0, 6))
    torch.testing.assert_close(at[0, 1, :, 7], ((torch.arange(22) - 1.5) / 4).clamp(0, 4))


@pytest.mark.parametrize("at", [(40, 30), (0, 0), (89, 59)])
def test_receptive_field_is_where_the_gradient_reaches(at, picture):
    [layer] = arch.find_layers("vgg16", "relu2_2")
    seen = view.inspect(picture, "relu2_2", weights=None)
    field = view.receptive_field(seen, layer, at)
    image = picture.clone().requires_grad_()
    exact = FeatureExtractor("vgg16", "conv2_2", weights=None, pooling="avg", channels_last=False)  # no rounding beyond
    features = exact(image)["conv2_2"]
    (gradient,) = torch.autograd.grad(features[0, :, field.y, field.x].sum(), image)
    felt = gradient[0].abs().sum(0).nonzero()
    assert felt.min(0).values.tolist() == [max(0, field.top), max(0, field.left)]
    assert (felt.max(0).values + 1).tolist() == [min(60, field.bottom), min(90, field.right)]
    assert field.left <= at[0] < field.right
    assert abs((field.left + field.right - 1) / 2 - at[0]) <= layer.stride / 2


def test_receptive_field_in_a_picture_that_was_shrunk(picture):
    seen = view.inspect(picture, "relu2_2", weights=None, size=45)
    field = view.receptive_field(seen, seen.layers[0], (60, 20))
    assert (field.x, field.y) == (15, 5)


def test_the_name_of_before_still_works():
    assert view.look is view.inspect


def test_bad_sources():
    with pytest.raises(InputError, match=r"the picture is torch.float32 .*: pass one float RGB image"):
        view.inspect(torch.rand(2, 3, 40, 40), "relu1_1", weights=None)
    with pytest.raises(LayerError, match="unknown layer 'relu9_1'"):
        view.inspect(torch.rand(1, 3, 40, 40), "relu9_1", weights=None)
    with pytest.raises(InputError, match="too small for relu5_1"):
        view.inspect(torch.rand(1, 3, 8, 8), "relu5_1", weights=None)
