import numpy as np
import pytest
import torch
from PIL import Image
from scipy.linalg import sqrtm

from vggfeat.errors import RecipeError
from vggfeat.pictures.images import resize
from vggfeat.transfer.colours import colourise, finish, histogram, linear, prepare
from vggfeat.transfer.recipe import CHOICES


def luminance(rgb):
    """By Pillow's own weights, unrounded."""
    return (rgb * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)


def moments(rgb):
    pixels = rgb[0].flatten(1).double().numpy()
    return pixels.mean(1), np.cov(pixels, bias=True)


def coloured(seed, height, width, spread=0.05, mean=(0.5, 0.4, 0.6)):
    """Correlated noise around a colour, far enough from black and white that nothing is clamped."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(1, 3, height, width, generator=generator) - 0.5
    mixed = torch.einsum("ij,njhw->nihw", torch.randn(3, 3, generator=generator), noise)
    return mixed * spread + torch.tensor(mean).view(1, 3, 1, 1)


@pytest.fixture
def content():
    return coloured(1, 40, 60)


@pytest.fixture
def style():
    return coloured(2, 50, 30, 0.1, (0.3, 0.6, 0.5))


def test_linear_gives_mean_and_covariance(content, style):
    moved = linear(style, content)
    assert moved.shape == style.shape
    assert moved.dtype == style.dtype
    for came, wanted in zip(moments(moved), moments(content), strict=True):
        np.testing.assert_allclose(came, wanted, atol=2e-6)


def test_linear_is_the_map_of_least_movement(content, style):
    moved = linear(style, content)[0].flatten(1).double().numpy()
    pixels = style[0].flatten(1).double().numpy()
    (_, from_), (_, to) = moments(style), moments(content)
    root = sqrtm(from_)
    turn = np.linalg.inv(root) @ sqrtm(root @ to @ root) @ np.linalg.inv(root)
    expected = turn @ (pixels - pixels.mean(1, keepdims=True)) + moments(content)[0][:, None]
    np.testing.assert_allclose(moved, expected, atol=2e-5)


def test_a_picture_like_itself_stays(content):
    torch.testing.assert_close(linear(content, content), content, atol=1e-5, rtol=0)
    torch.testing.assert_close(histogram(content, content), content, atol=1e-5, rtol=0)


@pytest.mark.parametrize("recolour", [linear, histogram])
def test_grey_flat_and_extreme_pictures(recolour, content):
    grey = torch.rand(1, 1, 20, 20, generator=torch.Generator().manual_seed(3)).expand(-1, 3, -1, -1)
    flat = torch.full((1, 3, 16, 16), 0.25)
    noise = torch.rand(1, 3, 20, 20, generator=torch.Generator().manual_seed(4)).round()
    two = torch.cat([noise[:, :1], noise[:, :1], torch.zeros(1, 1, 20, 20)], 1)
    for picture in (grey, flat, noise, two, content):
        for like in (grey, flat, noise, two, content):
            moved = recolour(picture, like)
            assert moved.isfinite().all()
            assert moved.shape == picture.shape
            assert 0 <= moved.min() <= moved.max() <= 1
    assert (recolour(content, grey).amax(1) - recolour(content, grey).amin(1)).max() < 1e-4  # grey makes grey
    torch.testing.assert_close(recolour(content, flat), torch.full_like(content, 0.25))
    torch.testing.assert_close(linear(grey, content).mean((2, 3)), content.mean((2, 3)), atol=1e-4, rtol=0)


def test_histogram_is_that_of_each_channel(content):
    style = coloured(5, 60, 40, 0.2)
    for came, wanted in zip(histogram(style, content)[0], content[0], strict=True):
        torch.testing.assert_close(came.flatten().sort().values, wanted.flatten().sort().values, atol=1e-3, rtol=0)


def test_histogram_between_sizes_keeps_the_quantiles(content, style):
    levels = torch.linspace(0.05, 0.95, 7)
    moved = histogram(style, content)
    for came, wanted in zip(moved[0], content[0], strict=True):
        torch.testing.assert_close(came.quantile(levels), wanted.quantile(levels), atol=2e-3, rtol=0)


def test_histogram_keeps_equal_colours_equal(content):
    bands = torch.tensor([[0.1, 0.1, 0.2], [0.9, 0.4, 0.1], [0.3, 0.8, 0.6]]).T.view(1, 3, 3, 1).expand(1, 3, 3, 50)
    moved = histogram(bands, content)
    assert torch.equal(moved, moved[..., :1].expand_as(moved))
    assert len(moved[0].flatten(1).unique(dim=1).T) == 3


def test_a_new_luminance_is_exact_and_the_hue_stays():
    generator = torch.Generator().manual_seed(6)
    colours, grey = torch.rand(1, 3, 30, 30, generator=generator), torch.rand(1, 1, 30, 30, generator=generator)
    painted = colourise(grey, colours)
    assert 0 <= painted.min() <= painted.max() <= 1
    torch.testing.assert_close(luminance(painted), grey, atol=1e-5, rtol=0)
    before, after = colours - luminance(colours), painted - grey
    share = (before * after).sum(1) / (before * before).sum(1)
    torch.testing.assert_close(after, share[:, None] * before, atol=1e-5, rtol=0)
    assert 0 <= share.min() <= share.max() <= 1 + 1e-5


@pytest.mark.parametrize("mode", ["content", "luminance"])
def test_the_contents_colours_come_back(mode, content, style):
    result = coloured(7, 20, 30, 0.02)
    painted = finish(result, content, mode)
    assert painted.shape == result.shape
    torch.testing.assert_close(luminance(painted), luminance(result), atol=1e-5, rtol=0)
    chroma = resize(content, 20, 30) - luminance(resize(content, 20, 30))
    torch.testing.assert_close(painted - luminance(painted), chroma, atol=1e-5, rtol=0)
    torch.testing.assert_close(finish(content, content, mode), content, atol=1e-5, rtol=0)
    assert (finish(style[..., :20, :30], content, mode) - style[..., :20, :30]).abs().max() > 0.05


def test_luminance_paints_without_colour(content, style):
    grey, greyed = prepare(content, style, "luminance")
    for picture, like in ((grey, content), (greyed, style)):
        assert picture.shape == like.shape
        assert torch.equal(picture[:, 0], picture[:, 2])
    eight_bits = Image.fromarray((content[0].permute(1, 2, 0) * 255).round().byte().numpy()).convert("L")
    assert np.abs(np.array(eight_bits) / 255 - grey[0, 0].numpy()).max() < 1.1 / 255
    assert greyed.mean() == pytest.approx(grey.mean().item(), abs=1e-5)
    assert greyed.std() == pytest.approx(grey.std().item(), abs=1e-4)
    assert (style.mean() - content.mean()).abs() > 0.01


@pytest.mark.parametrize("mode", CHOICES["color"])
def test_what_a_mode_leaves_alone(mode, content, style):
    prepared, styled = prepare(content, style, mode)
    assert (prepared is content) == (mode != "luminance")
    assert (styled is style) == (mode in {"style", "content"})
    result = coloured(8, 20, 30)
    assert (finish(result, content, mode) is result) == (mode in {"style", "linear", "histogram"})


def test_an_unknown_mode(content, style):
    with pytest.raises(RecipeError, match="unknown color 'lumninance': did you mean luminance"):
        prepare(content, style, "lumninance")
    with pytest.raises(RecipeError, match="unknown color 'grey': choose from style, content"):
        finish(content, content, "grey")
