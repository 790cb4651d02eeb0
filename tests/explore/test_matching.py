import csv
import io
import json
from importlib.metadata import version
from pathlib import Path

import kornia
import pytest
import torch
from torch.nn.functional import normalize
from vggfeat_assets import __file__ as assets

from vggfeat import FeatureExtractor, InputError, LayerError, match
from vggfeat.explore import matching as module
from vggfeat.networks import arch
from vggfeat.pictures import images, padding


@pytest.fixture(scope="module")
def cat():
    return images.read_picture(Path(assets).parent / "images" / "chelsea.jpg").rgb[..., 40:232, 60:380]


def errors(matches, expected):
    """How far each point of `b` lies from where `expected` takes that of `a`."""
    return (matches.points_b - expected(matches.points_a)).norm(dim=1)


def test_a_picture_matches_itself_everywhere(cat):
    small = cat[..., :128, :160]
    found = match(small, small)
    assert len(found) == (128 // 8) * (160 // 8)
    assert torch.equal(found.points_a, found.points_b)
    cells = (found.points_a / 8).floor()
    assert len(cells.unique(dim=0)) == len(found)  # each within its own position
    assert found.points_a.min() >= 0
    assert (found.points_a <= torch.tensor([159.0, 127.0])).all()
    assert (found.score > 0.99).all()
    assert (found.score.diff() <= 0).all()


def test_a_crop_is_found_where_it_was_cut(cat):
    found = match(cat, cat[..., 32:160, 48:272])
    shift = errors(found, lambda a: a - torch.tensor([48.0, 32.0]))
    assert len(found) > 350
    assert (shift < 1e-3).float().mean() > 0.9
    # The crop begins between positions of the layer, and refinement finds the pixel.
    odd = match(cat, cat[..., 37:165, 51:275])
    shift = errors(odd, lambda a: a - torch.tensor([51.0, 37.0]))
    assert len(odd) > 150
    assert (shift < 1e-3).float().mean() > 0.75
    coarse = match(cat, cat[..., 37:165, 51:275], refine=False)
    assert errors(coarse, lambda a: a - torch.tensor([51.0, 37.0])).median() > 1
    assert coarse.metadata["refined"] == []


def test_places_between_pixels(cat):
    whole = images.resize(cat, 3 * 192, 3 * 320)
    one, other = (torch.nn.functional.avg_pool2d(whole[..., x : x + 900], 3) for x in (0, 1))
    found = match(one, other)
    shift = found.points_b - found.points_a
    assert shift[:, 0].median() == pytest.approx(-1 / 3, abs=0.1)
    assert shift[:, 1].abs().median() < 0.1


def test_points_are_in_pixels_of_the_pictures_as_they_came(cat):
    small = cat[..., :128, :160]
    large = small.repeat_interleave(4, 2).repeat_interleave(4, 3)
    found = match(large, small, size=160)
    assert len(found) == 320
    # Pixel 0 of the small one is 0 to 3 of the large one, whose middle is 1.5. Shrinking it blurs a little.
    off = errors(found, lambda a: (a + 0.5) / 4 - 0.5)
    assert off.median() < 0.12
    assert (off < 0.5).float().mean() > 0.95
    assert found.points_a.max() > 600
    coarse = match(large, small, size=160, refine=False)
    assert coarse.points_a.min() == 4 * (3.5 + 0.5) - 0.5


def test_pictures_of_different_sizes_either_way_around(cat):
    crop = cat[..., 32:160, 48:272]
    there, back = match(cat, crop, refine=False), match(crop, cat, refine=False)
    one = {(*a, *b) for a, b in zip(there.points_a.tolist(), there.points_b.tolist(), strict=True)}
    other = {(*b, *a) for a, b in zip(back.points_a.tolist(), back.points_b.tolist(), strict=True)}
    assert one == other


@pytest.mark.parametrize("ratio", [1.0, 0.9])
def test_coarse_matches_are_kornias(ratio, cat, monkeypatch):
    monkeypatch.setattr(module, "MOST_DISTANCES", 10_000)  # several parts
    a, b = cat[..., :128, :160], cat[..., 21:149, 33:225]
    found = match(a, b, "relu3_1", ratio=ratio, refine=False)
    extract = FeatureExtractor("vgg16", "relu3_1")
    [layer] = arch.find_layers("vgg16", "relu3_1")
    rows, widths = [], []
    for picture in (a, b):
        x = padding.crop(extract(padding.mirror_pad(picture, 64))["relu3_1"], 16)
        rows.append(normalize(x[0].flatten(1).mT, dim=1))
        widths.append(x.shape[3])
    ratios, pairs = kornia.feature.match_smnn(*rows, ratio)
    places = [
        torch.stack([pairs[:, side] % width, pairs[:, side] // width], 1) * layer.stride + layer.offset
        for side, width in enumerate(widths)
    ]
    expected = {
        tuple(row): value for row, value in zip(torch.cat(places, 1).tolist(), ratios[:, 0].tolist(), strict=True)
    }
    got = dict(
        zip(map(tuple, torch.cat([found.points_a, found.points_b], 1).tolist()), found.score.tolist(), strict=True)
    )
    assert got.keys() == expected.keys()
    assert len(got) > 100
    cosines = (rows[0][pairs[:, 0]] * rows[1][pairs[:, 1]]).sum(1)
    for place, cosine in zip(expected, cosines.tolist(), strict=True):
        assert got[place] == pytest.approx(cosine * (1 - expected[place] ** 2), abs=1e-3)


def test_refining_in_parts_changes_nothing(cat, monkeypatch):
    a, b = cat[..., :128, :160], cat[..., 5:133, 9:169]
    whole = match(a, b)
    monkeypatch.setattr(module, "MOST_GATHERED", 30_000)
    parts = match(a, b)
    torch.testing.assert_close(whole.points_b, parts.points_b, rtol=0, atol=1e-3)


def test_layers_are_refined_through_the_last_relu_of_each_stride(cat):
    small = cat[..., :96, :96]
    assert match(small, small, "conv4_1", "vgg19", weights=None).metadata["refined"] == [
        "relu3_4",
        "relu2_2",
        "relu1_2",
    ]
    assert match(small, small, "relu3_1", weights=None).metadata["refined"] == ["relu2_2", "relu1_2"]
    assert match(small, small, "pool1", weights=None).metadata["refined"] == ["relu1_2"]
    found = match(small, small, "relu1_1", weights=None)
    assert found.metadata["refined"] == []
    assert torch.equal(found.points_a, found.points_b)


@pytest.mark.parametrize(("network", "layer"), [("alexnet", "relu3_1"), ("vgg11_bn", "bn3_2"), ("A-LRN", "relu3_1")])
def test_other_networks(network, layer, cat):
    small = cat[..., :96, :128]
    found = match(small, small, layer, network, weights=None)
    assert len(found) > 20
    assert torch.equal(found.points_a, found.points_b)


def test_pictures_without_anything_to_match():
    flat = torch.full((1, 3, 64, 64), 0.5)
    for other in (flat, torch.rand(1, 3, 40, 40)):
        found = match(flat, other, weights=None)
        assert found.points_a.shape == found.points_b.shape == (0, 2)
        assert found.score.shape == (0,)
        assert json.loads(found.as_json())["matches"] == []
        assert found.as_csv() == "x_a,y_a,x_b,y_b,score\n"
    assert len(match(torch.rand(3, 8, 8), torch.rand(3, 9, 30), weights=None)) == 0  # one position has no second


def test_json_and_csv(cat):
    small = cat[..., :64, :80]
    found = match(small, small, weights=None)
    content = json.loads(found.as_json())
    assert content["metadata"]["a"] == {"name": "a tensor", "width": 80, "height": 64}
    assert content["metadata"]["layer"] == "relu4_2"
    assert content["metadata"]["vggfeat"] == version("vggfeat")
    rows = list(csv.DictReader(io.StringIO(found.as_csv())))
    assert [{name: float(value) for name, value in row.items()} for row in rows] == content["matches"]
    assert len(rows) == len(found) == 80
    got = torch.tensor([[row["x_a"], row["y_a"]] for row in content["matches"]])
    torch.testing.assert_close(got, found.points_a, rtol=0, atol=1e-3)


def test_the_best(cat):
    found = match(cat[..., :64, :80], cat[..., :64, :80], weights=None)
    best = found.best(5)
    assert len(best) == 5
    assert torch.equal(best.points_b, found.points_b[:5])
    assert len(found.best(10_000)) == len(found)
    with pytest.raises(InputError, match="the limit is 0"):
        found.best(0)


def test_bad_input(cat):
    with pytest.raises(LayerError, match=r"'relu4_\*' names 3 layers of vgg16: match by one, such as relu4_1"):
        match(cat, cat, "relu4_*")
    with pytest.raises(LayerError, match="unknown layer 'relu4_9'"):
        match(cat, cat, "relu4_9")
    for ratio in (0, 1.5, float("nan")):
        with pytest.raises(InputError, match=r"the ratio is .*: it must be above 0 and at most 1"):
            match(cat, cat, ratio=ratio)
    with pytest.raises(InputError, match=r"^b is torch.uint8"):
        match(cat, torch.zeros(1, 3, 40, 40, dtype=torch.uint8))
    with pytest.raises(InputError, match="too small for relu4_2"):
        match(cat, cat[..., :6, :6])


@pytest.mark.parametrize(
    "options",
    [{}, *(pytest.param(x, marks=pytest.mark.slow) for x in ({"layer": "relu5_2"}, {"network": "vgg19"}))],
    ids=str,
)
def test_disparities_of_two_views_of_a_scene(options):
    """Middlebury's motorcycle: the pixel x of the left picture is x less the disparity of the right one."""
    data = pytest.importorskip("skimage.data")
    left, right, truth = data.stereo_motorcycle()
    a, b = (torch.from_numpy(view.copy()).permute(2, 0, 1)[None] / 255 for view in (left, right))
    found = match(a, b, **options)
    column, row = found.points_a.round().long().unbind(1)
    known = torch.from_numpy(truth.copy())[row, column]
    covered = known.isfinite()
    off = (found.points_a[:, 0] - found.points_b[:, 0] - known)[covered].abs()
    assert len(off) >= 500
    assert off.median() < 0.3
    # The pictures are rectified: rows say nothing of the depth, and are matched all the same.
    assert (found.points_a[:, 1] - found.points_b[:, 1])[covered].abs().median() < 0.3
    if not options:
        assert len(off) > 3000
        assert (off < 2).float().mean() > 0.8
