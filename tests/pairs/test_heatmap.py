import os
from pathlib import Path

import kornia
import pytest
import torch
from PIL import Image

from vggfeat import LPIPS, ImageError, compare


def test_heat_map_is_bright_where_a_patch_differs(picture, read, save):
    x = picture(1, 96, 96)
    y = x.clone()
    y[..., 32:64, 48:80] = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    save("c/x.png", x)
    save("d/x.png", y)
    found = compare("c", "d", "psnr", heatmaps="heat")
    with Image.open("heat/x.png") as heat:
        assert heat.size == (96, 96)
    grey = read("heat/x.png").mean(1)[0]
    inside = grey[36:60, 52:76]
    outside = torch.cat([grey[:20].flatten(), grey[76:].flatten(), grey[:, :32].flatten()])
    assert inside.mean() > 0.4
    assert inside.min() > outside.max()
    assert outside.mean() < 0.25
    assert found.metadata["heatmap"] == {"metric": "lpips-vgg, spatial", "black": 0, "white": 0.8}
    assert list(found.mean) == ["psnr"]


def test_the_heat_map_of_equal_pictures_is_their_dim_grey(read):
    compare("a/one.png", "a/one.png", "lpips-alex", heatmaps="heat")
    grey = kornia.color.rgb_to_grayscale(read("a/one.png"), torch.tensor([0.2126, 0.7152, 0.0722]))
    assert (read("heat/one.png") - 0.25 * grey).abs().max() < 1 / 255


def test_heat_maps_show_spatial_lpips(monkeypatch, read):
    shown = {}
    monkeypatch.setattr(
        "vggfeat.pairs.run.save_heatmap", lambda path, picture, heat: shown.update({str(path): (picture, heat)})
    )
    compare("a", "b", ("psnr", "lpips-alex"), heatmaps="heat", device="cpu")
    assert set(shown) == {"heat/one.png", "heat/two.png", "heat/sub/three.png"}
    expected = LPIPS("alex", spatial=True)(read("a/sub/three.png"), read("b/sub/three.png"))
    torch.testing.assert_close(shown["heat/sub/three.png"][1], expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(shown["heat/sub/three.png"][0], read("b/sub/three.png"))


def test_heat_maps_of_pictures_that_differ_by_ending_alone(picture, save):
    save("a/one.webp", picture(4))
    save("b/one.webp", picture(5))
    compare("a", "b", "lpips-alex", heatmaps="heat")
    assert sorted(path.name for path in Path("heat").glob("*.png")) == ["one.png.png", "one.webp.png", "two.png"]


def test_each_pair_has_a_heat_map_of_its_own(picture, save):
    for name in ("x.png", "x.webp", "x.png.webp", "X.tif"):
        save(f"a/{name}", picture(4))
        save(f"b/{name}", picture(5))
    os.link(b"a/one.png", b"a/\xff.png")
    os.link(b"b/one.png", b"b/\xff.png")
    os.link(b"a/one.png", b"a/\xfe.png")
    os.link(b"b/one.png", b"b/\xfe.png")
    found = compare("a", "b", "lpips-alex", heatmaps="heat")
    assert len(found.rows) == 9
    assert sorted(os.fsencode(path.name) for path in Path("heat").iterdir()) == [
        *(b"X.tif.png", b"one.png", b"sub", b"two.png"),
        *(b"x.png.png", b"x.png.webp.png", b"x.webp.png", b"\xfe.png", b"\xff.png"),
    ]


@pytest.mark.parametrize("folder", ["a", "b", "b/maps", "elsewhere/link", "b/absent/.."])
def test_heat_maps_are_no_pictures_of_the_next_comparison(folder):
    Path("elsewhere").mkdir()
    Path("elsewhere/link").symlink_to(Path("b").absolute())
    with pytest.raises(ImageError, match=r"heat maps inside '[ab]' would be compared next time: choose a folder out"):
        compare("a", "b", "psnr", heatmaps=folder)
    assert not Path("b/maps").exists()


def test_heat_maps_replace_no_picture(picture, read, save):
    save("store/one.png", picture(7))
    before = read("store/one.png")
    Path("a/lone.png").symlink_to(Path("store/one.png").absolute())  # a picture without counterpart
    with pytest.raises(ImageError, match=r"the heat map 'store/one.png' would overwrite a picture: choose another"):
        compare("a", "b", "psnr", heatmaps="store")
    with pytest.raises(ImageError, match=r"the heat map 'b/one.png' would overwrite a picture"):
        compare("a/one.png", "b/one.png", "psnr", heatmaps="b")
    with pytest.raises(ImageError, match=r"cannot make the folder 'b/one.png'"):
        compare("a/one.png", "a/one.png", "psnr", heatmaps="b/one.png")
    assert torch.equal(read("store/one.png"), before)
