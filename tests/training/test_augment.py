import pytest
import torch
from torchvision.transforms.functional import center_crop

from vggfeat.training.augment import DRAWS, augment

PIXELS = torch.randint(0, 256, (4, 3, 18, 18), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
MIDDLE = torch.full((1, DRAWS), 0.5)


def draws(count=4):
    return torch.rand(count, DRAWS, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", ["none", "shift", "photo"])
def test_pictures_stay_pictures(kind):
    x = augment(PIXELS, draws(), kind, 16)
    assert (x.shape, x.dtype) == ((4, 3, 16, 16), torch.float32)
    assert x.min() >= 0
    assert x.max() <= 1


@pytest.mark.parametrize("kind", ["shift", "photo"])
def test_a_picture_is_changed_alike_in_every_batch(kind):
    whole = augment(PIXELS, draws(), kind, 16)
    for index in range(4):
        alone = augment(PIXELS[index : index + 1], draws()[index : index + 1], kind, 16)
        torch.testing.assert_close(alone[0], whole[index], rtol=0, atol=1e-6)
    again = augment(PIXELS[:1], draws()[1:2], kind, 16)
    assert (again - whole[:1]).abs().max() > 0.1


def test_no_change_is_the_middle():
    middle = center_crop(PIXELS[:1].float() / 255, [16, 16])
    assert torch.equal(augment(PIXELS[:1], None, "photo", 16), middle)
    torch.testing.assert_close(augment(PIXELS[:1], MIDDLE, "shift", 16), middle, rtol=0, atol=1e-5)


def test_the_largest_crop_is_the_picture_and_half_of_them_are_mirrored():
    numbers = MIDDLE.clone()
    numbers[0, 0] = 1.0
    torch.testing.assert_close(augment(PIXELS[:1], numbers, "photo", 18), PIXELS[:1] / 255, rtol=0, atol=1e-5)
    numbers[0, 4] = 0.2
    torch.testing.assert_close(augment(PIXELS[:1], numbers, "photo", 18), PIXELS[:1].flip(3) / 255, rtol=0, atol=1e-5)


def test_a_shift_moves_by_a_share_of_the_side():
    numbers = MIDDLE.clone()
    numbers[0, 2] = 1.0  # all the way to the right: a tenth of twenty pixels
    pixels = torch.zeros(1, 3, 20, 20, dtype=torch.uint8)
    pixels[..., 10, 10] = 255
    x = augment(pixels, numbers, "shift", 20)
    assert x[0, 0].flatten().argmax().item() == 10 * 20 + 12


def test_crops_stay_inside_the_picture():
    many = torch.rand(200, DRAWS, generator=torch.Generator().manual_seed(2))
    many[:, 5:] = 0.5
    place = torch.linspace(0, 255, 18).round().to(torch.uint8)
    pixels = torch.zeros(200, 3, 18, 18, dtype=torch.uint8)
    pixels[:, 0], pixels[:, 1] = place[None, :], place[:, None]
    x = augment(pixels, many, "photo", 16)
    widths = (x[:, 0].amax((1, 2)) - x[:, 0].amin((1, 2))) * (x[:, 1].amax((1, 2)) - x[:, 1].amin((1, 2)))
    assert widths.min() > 0.2
    assert widths.max() <= 1
    assert widths.std() > 0.1
