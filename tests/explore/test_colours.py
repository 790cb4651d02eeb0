import kornia
import pytest
import torch

from vggfeat.explore import colours

RAMP = torch.linspace(0, 1, 101).reshape(1, 1, 1, 101)


def test_heat_is_in_gamut_and_evenly_lighter():
    rgb = colours.heat(RAMP)
    assert rgb[0, :, 0, 0].max() < 0.01
    assert rgb[0, :, 0, -1].min() > 0.9
    lightness = kornia.color.rgb_to_lab(rgb)[0, 0, 0]
    assert lightness.diff().min() > 0
    steps = lightness[25:].diff()  # in the dark CIELAB and OKLab disagree
    assert steps.max() < 1.3 * steps.min()
    assert rgb.diff(dim=3).norm(dim=1).max() < 0.06  # no edges


def test_signed_is_black_at_zero_and_evenly_lighter_to_both_sides():
    below, above = colours.signed(-RAMP), colours.signed(RAMP)
    assert torch.equal(below[..., 0], above[..., 0])
    assert below[..., 0].max() < 0.01
    for rgb in (below, above):
        lightness = kornia.color.rgb_to_lab(rgb)[0, 0, 0]
        assert lightness.diff().min() > 0
        assert lightness[-1] > 90
        assert rgb.diff(dim=3).norm(dim=1).max() < 0.06
    assert (below[0, 2] > below[0, 0])[:, 10:90].all()
    assert (above[0, 0] > above[0, 2])[:, 10:90].all()
    # As light on one side as on the other: grey copies show magnitudes.
    sides = [kornia.color.rgb_to_lab(rgb)[0, 0, 0] for rgb in (below, above)]
    assert (sides[0] - sides[1]).abs().max() < 6


@pytest.mark.parametrize("paint", [colours.heat, colours.signed])
def test_colours_lie_within_srgb(paint, monkeypatch):
    clipped = []
    clamp = torch.Tensor.clamp

    def watch(x, *limits, **named):
        result = clamp(x, *limits, **named)
        if limits == (0, 1):
            clipped.append(float((result - x).abs().max()))
        return result

    monkeypatch.setattr(torch.Tensor, "clamp", watch)
    paint(RAMP)
    paint(-RAMP if paint is colours.signed else RAMP)
    assert clipped
    assert max(clipped) < 0.005


def test_over_shows_the_dim_picture_where_there_is_no_heat():
    picture = torch.rand(1, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    cold = colours.over(picture, torch.zeros(1, 1, 4, 5))
    grey = (picture * torch.tensor([0.2126, 0.7152, 0.0722]).reshape(1, 3, 1, 1)).sum(1, keepdim=True)
    torch.testing.assert_close(cold, (0.25 * grey).expand(1, 3, 4, 5))
    assert torch.equal(colours.over(picture, torch.ones(1, 1, 4, 5)), colours.heat(torch.ones(1, 1, 4, 5)).clamp(0, 1))
