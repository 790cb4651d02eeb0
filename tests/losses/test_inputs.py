"""Grey images, stacks, clips, batches in pieces and recomputed features: equal to explicit slicing to the bit."""

import pytest
import torch

from vggfeat import ADISTS, DISTS, LPIPS, STLPIPS, PerceptualLoss, StyleLoss
from vggfeat.errors import InputError
from vggfeat.pictures import images

MAKE = {
    "lpips": lambda **options: LPIPS("alex", **options),
    "spatial": lambda **options: LPIPS("alex", spatial=True, **options),
    "dists": DISTS,
    "stlpips": STLPIPS,
    "adists": ADISTS,
    "perceptual": lambda **options: PerceptualLoss(["relu2_1"], ["relu1_1"], **{"pixel": 0.5, "tv": 0.1, **options}),
    "style": StyleLoss,
}


def noise(*shape):
    return torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", MAKE)
def test_grey_images(name):
    x, y = noise(2, 1, 40, 36)
    expected = MAKE[name]()(x.expand(-1, 3, -1, -1), y.expand(-1, 3, -1, -1))
    criterion = MAKE[name](channels="repeat")
    assert torch.equal(criterion(x, y), expected)
    assert torch.equal(criterion(x, criterion.target(y)), expected)


@pytest.mark.parametrize("name", MAKE)
def test_stacks_slice_by_slice(name):
    x, y = noise(2, 4, 40, 36)
    plain = MAKE[name](reduction="none")
    each = [plain(*(z[:, i : i + 1].expand(-1, 3, -1, -1) for z in (x, y))) for i in range(4)]
    found = MAKE[name](channels="slices", reduction="none")(x, y)
    torch.testing.assert_close(found, torch.stack(each, dim=1))
    assert found.shape[:2] == (2, 4)


@pytest.mark.parametrize("name", MAKE)
def test_clips_frame_by_frame(name):
    x, y = noise(2, 3, 3, 40, 36)
    criterion = MAKE[name](reduction="none")
    found = criterion(x, y)
    torch.testing.assert_close(found, torch.stack([criterion(x[:, t], y[:, t]) for t in range(3)], dim=1))
    assert torch.equal(found, criterion(x.flatten(0, 1), y.flatten(0, 1)).unflatten(0, (2, 3)))
    torch.testing.assert_close(criterion(x, y[:1])[1], criterion(x[1:], y[:1])[0])


@pytest.mark.parametrize("options", [{"chunk": 2}, {"checkpoint": True}, {"chunk": 2, "checkpoint": True}])
@pytest.mark.parametrize("name", MAKE)
def test_pieces_change_no_bit(name, options):
    x, y = noise(3, 3, 40, 36)
    size = options.get("chunk", 1)
    plain, pieces = (MAKE[name](reduction="none", **more) for more in ({}, options))
    one, other = (x.clone().requires_grad_() for _ in range(2))
    expected = torch.cat([plain(one[i : i + size], y[i : i + size]) for i in range(0, 3, size)])
    found = pieces(other, y)
    assert torch.equal(found, expected)
    expected.sum().backward()
    found.sum().backward()
    assert torch.equal(other.grad, one.grad)
    torch.testing.assert_close(pieces(x, pieces.target(y)), expected.detach())
    torch.testing.assert_close(pieces(x, y[:1]), plain(x, y[:1]))
    torch.testing.assert_close(MAKE[name](**options)(x, y), MAKE[name]()(x, y))


def test_both_sides_get_a_gradient_in_pieces():
    gradients = []
    for options in ({}, {"chunk": 1, "checkpoint": True}):
        x, y = (z.clone().requires_grad_() for z in noise(2, 3, 40, 36))
        LPIPS("alex", both=True, **options)(x, y).backward()
        gradients.append(torch.stack([x.grad, y.grad]))
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", sorted(MAKE.keys() - {"spatial", "style"}))
def test_nothing_leaks_through_a_mask(name):
    """A spatial map times the mask is not 0 here: receptive fields reach outside (dreamsim issue 33)."""
    criterion = MAKE[name](**({} if name != "perceptual" else {"tv": 0.0}), reduction="none")
    x, y = noise(2, 3, 64, 48)
    mask = torch.zeros(1, 1, 64, 48)
    mask[..., 8:40, 8:40] = 1
    equal_inside = torch.where(mask > 0, y, x)
    assert (LPIPS("alex", spatial=True)(equal_inside, y) * mask).mean() > 1e-3
    zero = criterion(equal_inside, y, mask)
    assert zero.abs().max() < 1e-6
    assert torch.equal(criterion(torch.where(mask > 0, x, torch.nan), y, mask), criterion(x, y, mask > 0))
    assert torch.equal(criterion(x, y, torch.ones_like(mask)), criterion(x, y))
    x.requires_grad_()
    criterion(x, y, mask=mask).sum().backward()
    assert not (x.grad * (1 - mask)).any()
    assert (x.grad * mask).abs().sum() > 0


def test_a_mask_weighs_differences():
    criterion = MAKE["lpips"](reduction="none")
    x, y = noise(2, 3, 40, 36)
    values = [criterion(x, y, torch.full((2, 1, 40, 36), weight)) for weight in (0.0, 0.3, 1.0)]
    assert torch.equal(values[0], torch.zeros(2))
    assert (values[0] < values[1]).all()
    assert (values[1] < values[2]).all()
    torch.testing.assert_close(values[1], criterion(y + 0.3 * (x - y), y), rtol=1e-4, atol=1e-6)


def test_masks_are_checked():
    criterion = LPIPS("alex")
    x, y = noise(2, 3, 40, 36)
    for mask in (torch.ones(1, 1, 40, 40), torch.ones(40, 36), torch.ones(3, 1, 40, 36)):
        with pytest.raises(InputError, match=r"the mask is [\dx]+, the prediction 2x3x40x36 and the target 2x3x40x36"):
            criterion(x, y, mask)
    with pytest.raises(InputError, match=r"the mask is torch\.uint8: pass booleans or floating point"):
        criterion(x, y, torch.full((1, 1, 40, 36), 255, dtype=torch.uint8))
    with pytest.raises(InputError, match="a mask needs the images of the target"):
        criterion(x, criterion.target(y), torch.ones(1, 1, 40, 36))


@pytest.mark.parametrize(("make", "least"), [(LPIPS, 16), (lambda **options: LPIPS("alex", **options), 31)])
def test_small_crops_are_enlarged_when_asked(make, least):
    """A lip region may be smaller than the network needs (ER-NeRF issue 13)."""
    x, y = noise(2, 3, 10, 24)
    larger = [images.resize(z, least, round(24 * least / 10)) for z in (x, y)]
    criterion = make(small="enlarge")
    assert torch.equal(criterion(x, y), make()(*larger))
    assert torch.equal(criterion(*larger), make()(*larger))
    assert f"resize=shorter side to {least} if shorter" in criterion.signature()
    with pytest.raises(InputError, match="too small for"):
        make()(x, y)
    x.requires_grad_()
    criterion(x, y).backward()
    assert x.grad.abs().sum() > 0


def kept(criterion, x, y):
    """The bytes that a forward pass keeps for the backward pass, the images aside."""
    sizes = {}
    with torch.autograd.graph.saved_tensors_hooks(
        lambda z: sizes.setdefault(z.untyped_storage().data_ptr(), (z.untyped_storage().nbytes(), z))[1], lambda z: z
    ):
        value = criterion(x, y)
    given = {z.untyped_storage().data_ptr() for z in (x, y)}
    return value, sum(size for place, (size, _) in sizes.items() if place not in given)


def test_recomputing_keeps_no_features():
    x, y = noise(2, 3, 64, 64)
    x.requires_grad_()
    _, features = kept(LPIPS(check="off"), x, y)
    _, recomputed = kept(LPIPS(check="off", checkpoint=True), x, y)
    assert recomputed < features / 20


def test_words_and_shapes_are_checked():
    with pytest.raises(InputError, match="unknown channels 'grey': choose from rgb, repeat, slices"):
        LPIPS("alex", channels="grey")
    with pytest.raises(InputError, match="chunk is 0: it must be a whole number of at least 1"):
        LPIPS("alex", chunk=0)
    with pytest.raises(InputError, match="images have 2 channels, and channels='repeat' takes 1"):
        LPIPS("alex", channels="repeat")(*noise(1, 2, 40, 40))
    with pytest.raises(InputError, match="the prediction is 1x2x3x40x40 and the target 1x3x3x40x40"):
        LPIPS("alex")(noise(1, 2, 3, 40, 40)[0], noise(1, 3, 3, 40, 40)[0])
    for options in ({}, {"chunk": 1}):
        with pytest.raises(InputError, match="the prediction is 1x3x40x40 and the target 1x3x40x41"):
            LPIPS("alex", **options)(torch.rand(1, 3, 40, 40), torch.rand(1, 3, 40, 41))
