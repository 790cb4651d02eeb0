import hashlib
import subprocess

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from vggfeat import dump
from vggfeat.dumps.decoding import Decoders
from vggfeat.dumps.errors import StoreError
from vggfeat.dumps.prepare import Preparation, fit, prepare
from vggfeat.dumps.sources import find
from vggfeat.dumps.verify import verify
from vggfeat.errors import ImageError, RecipeError
from vggfeat.pictures import images

from .conftest import QUICK


@pytest.mark.parametrize("size", [(50, 64), (300, 64), (64, 301), (33, 37), (32, 32)], ids=str)
def test_resizing_and_cropping_are_those_of_torchvision(size):
    rgb = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    found = fit(rgb, Preparation(32, 32))
    expected = v2.CenterCrop(32)(v2.Resize(32, antialias=True)(rgb))
    assert found.shape == (1, 3, 32, 32)
    assert (found - expected).abs().max() < 1e-6
    assert torch.equal(fit(rgb, Preparation((20, 30), None)), images.resize(rgb, 30, 20))
    assert fit(rgb, Preparation(None, None)) is rgb


def test_a_picture_that_is_too_small_says_so():
    rgb = torch.rand(1, 3, 10, 20)
    with pytest.raises(ImageError, match="it is 20x10, too small to cut 16x16 from"):
        fit(rgb, Preparation(None, 16))
    with pytest.raises(ImageError, match="the deepest layer needs 32 pixels a side"):
        fit(rgb, Preparation(None, None, 32))
    with pytest.raises(ImageError, match="would become"):
        fit(torch.rand(1, 3, 1, 1000), Preparation(224, 224))


@pytest.mark.parametrize("kind", ["turned", "alpha", "grey", "cmyk", "deep", "palette"])
def test_every_kind_of_picture_is_read_as_images_reads_it(kind, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    image, name, options = Image.fromarray(pixels), "x.png", {}
    match kind:
        case "turned":
            exif = Image.Exif()
            exif[274] = 6
            name, options = "x.jpg", {"exif": exif}
        case "alpha":
            image.putalpha(Image.fromarray(pixels[..., 0]))
        case "grey":
            image = image.convert("L")
        case "cmyk":
            image, name = image.convert("CMYK"), "x.jpg"
        case "deep":
            image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
        case "palette":
            image = image.convert("P")
    image.save(tmp_path / name, **options)
    found = prepare(find(tmp_path / name)[0], Preparation(None, None))
    assert np.array_equal(found.pixels, images.flatten(images.read_picture(tmp_path / name))[0].numpy())
    assert found.sha256 == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
    assert found.size == (tmp_path / name).stat().st_size
    assert kind != "turned" or found.pixels.shape == (3, 50, 40)


def test_a_decoder_that_dies_costs_a_row_and_no_more(pictures, monkeypatch):
    items = find(pictures)
    started, start = [], subprocess.Popen

    def popen(*arguments, **options):
        started.append(start(*arguments, **options))
        return started[-1]

    monkeypatch.setattr("vggfeat.dumps.decoding.subprocess.Popen", popen)
    with Decoders(Preparation(32, 32), 1) as decoders:
        found = decoders.map(items, ahead=1)
        first = next(found)
        started[0].kill()
        rest = list(found)
    assert first.pixels is not None
    assert len(rest) == len(items) - 1
    bad = [answer for answer in rest if answer.pixels is None]
    assert len(bad) == 1
    assert bad[0].error.startswith(f"cannot read '{pictures}")
    assert "ended its process (code -9)" in bad[0].error


@pytest.mark.parametrize("size", [(20, 31), (70, 90)])
def test_interpolation_is_that_of_pillow_and_torchvision(size):
    width, height = size
    rgb = torch.rand(1, 3, 40, 50, generator=torch.Generator().manual_seed(0))
    for kind in ("bilinear", "bicubic"):
        # In floating point, because Pillow cuts 8-bit values between the two passes.
        planes = [Image.fromarray(plane.numpy()).resize(size, Image.Resampling[kind.upper()]) for plane in rgb[0]]
        found = images.resize(rgb, height, width, interpolation=kind)
        assert torch.allclose(found[0], torch.from_numpy(np.stack(planes)).clamp(0, 1), atol=1e-5)
    nearest = images.resize(rgb, height, width, interpolation="nearest")
    rows, columns = ([(2 * i + 1) * a // (2 * b) for i in range(b)] for a, b in ((40, height), (50, width)))
    assert torch.equal(nearest, rgb[:, :, rows][..., columns])
    assert torch.equal(nearest, v2.Resize((height, width), v2.InterpolationMode.NEAREST_EXACT)(rgb))


def test_a_dump_is_interpolated_as_asked(tmp_path, pictures):
    options = QUICK | {"layers": "relu1_1", "reduce": "mean"}
    found = {kind: dump(pictures, tmp_path / kind, **options, interpolation=kind) for kind in ("bilinear", "nearest")}
    assert not np.allclose(*(np.asarray(made["relu1_1"]) for made in found.values()))
    assert "interpolation" not in found["bilinear"].fingerprint
    assert found["nearest"].recipe.interpolation == "nearest"
    assert verify(tmp_path / "nearest") == []
    with pytest.raises(StoreError, match="was begun with interpolation nearest, not bilinear"):
        dump(pictures, tmp_path / "nearest", **options)
    with pytest.raises(RecipeError, match="unknown interpolation 'cubic': did you mean bicubic"):
        dump(pictures, tmp_path / "new", **options, interpolation="cubic")
