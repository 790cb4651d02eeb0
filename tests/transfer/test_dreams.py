import pytest
import torch

from vggfeat import dream
from vggfeat.errors import InputError, LayerError
from vggfeat.features.extractor import FeatureExtractor
from vggfeat.transfer.blocks import Whole
from vggfeat.transfer.dreams import Activation, parse_target
from vggfeat.transfer.tiles import Blocks

SMALL = {"size": 64, "octaves": 2, "steps": 4, "precision": "float32"}


@pytest.fixture(scope="module")
def image():
    coarse = torch.rand(1, 3, 6, 8, generator=torch.Generator().manual_seed(3))
    return torch.nn.functional.interpolate(coarse, (48, 64), mode="bicubic").clamp(0, 1)


@pytest.mark.parametrize("channel", [None, 7])
def test_the_layer_responds_more(channel, image):
    extract = FeatureExtractor("vgg16", ["relu3_1"])

    def response(picture):
        x = extract(picture)["relu3_1"]
        return (x if channel is None else x[:, channel]).square().mean()

    dreamt = dream(image, "relu3_1" if channel is None else f"relu3_1:{channel}", **SMALL).result()
    assert response(dreamt) > 1.5 * response(image)
    assert dreamt.shape == image.shape
    assert 0 <= dreamt.min() < dreamt.max() <= 1


def test_octaves_grow_to_the_size(image):
    run = dream(image, "relu3_1", **SMALL)
    steps = list(run)
    assert [(p.stage, p.step) for p in steps] == [(stage, step) for stage in (1, 2) for step in range(1, 5)]
    assert [tuple(p.image.shape[2:]) for p in steps] == [(34, 46)] * 4 + [(48, 64)] * 4
    assert steps[-1].done == 1
    assert torch.equal(run.image, steps[-1].image)


def test_details_of_the_picture_stay_sharp():
    """What a small size loses of the picture is there again at the next."""
    fine = (torch.arange(64) % 2).float().expand(1, 3, 64, 64)
    image = dream(fine, "relu2_1", **{**SMALL, "steps": 1}, rate=1e-6).result()
    assert (image - fine).abs().max() < 0.01


def test_the_same_seed_dreams_the_same(image):
    first, again, other = (dream(image, "relu3_1", **SMALL, seed=seed).result() for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_blocks_dream_the_same(monkeypatch):
    noise = torch.rand(1, 3, 96, 128, generator=torch.Generator().manual_seed(3))  # no ties for max-pooling to break
    whole = dream(noise, "relu3_1", **{**SMALL, "size": 128})
    monkeypatch.setattr("vggfeat.transfer.memory.choose", lambda *_, **__: Blocks(32))  # so small a picture would fit
    blocks = dream(noise, "relu3_1", **{**SMALL, "size": 128})
    assert blocks.blocks == (Blocks(32), Blocks(32))
    assert (whole.result() - blocks.result()).abs().mean() < 1e-3


def test_memory_that_runs_out_shrinks_the_blocks_of_a_dream(image, monkeypatch):
    def fail(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Whole, "evaluate", fail)
    large = torch.nn.functional.interpolate(image, (96, 128))
    run = dream(large, "relu1_1", size=128, octaves=1, steps=2, precision="float32")
    assert [progress.note for progress in run] == ["out of memory: continuing in blocks of 64 pixels", None]
    assert run.blocks == (Blocks(64),)


def test_seconds_end_a_dream(image):
    last = list(dream(image, "relu2_1", **{**SMALL, "steps": 10000}, seconds=0.5))[-1]
    assert last.stage == 2
    assert last.seconds < 5


def test_what_is_dreamt_of_is_the_mean_square():
    x = torch.randn(1, 4, 3, 5)
    loss = Activation("relu1_1", 2)
    value = loss({"relu1_1": x}, loss.target({"relu1_1": x}))
    assert value == pytest.approx(-float(x[:, 2].square().mean()))


def test_reads_layers_and_channels():
    assert parse_target("vgg16", "relu4_3") == ("relu4_3", None)
    assert parse_target("vgg16", "15:255") == ("relu3_3", 255)
    for text, message in (
        ("relu4_3:512", "has the channels 0 to 511, not '512'"),
        ("relu4_3:-1", "not '-1'"),
        ("relu4_*", "of one layer, and 'relu4_\\*' names 3"),
        ("relu9_1", "relu9_1"),
    ):
        with pytest.raises(LayerError, match=message):
            parse_target("vgg16", text)


def test_refusals(image):
    for options, message in (
        ({"octaves": 0}, "octaves is 0"),
        ({"rate": float("nan")}, "rate is nan"),
        ({"jitter": -1}, "jitter is -1"),
        ({"seconds": 0.0}, "seconds is 0"),
    ):
        with pytest.raises(InputError, match=message):
            dream(image, **options)


def test_a_guide_gives_the_features_that_a_dream_takes_on(monkeypatch):
    """After the dream, positions agree more with the guide's best features; the loss is written out here."""
    generator = torch.Generator().manual_seed(0)
    picture, guide = (torch.rand(1, 3, 32, side, generator=generator) for side in (32, 40))
    extract = FeatureExtractor("vgg16", "relu2_1")

    def agreement(image):
        x, y = (extract(each)["relu2_1"][0].flatten(1) for each in (image, guide))
        return float((x.T @ y).amax(1).mean())

    options = {"octaves": 1, "steps": 6, "jitter": 0, "precision": "float32"}
    run = dream(picture, "relu2_1", guide=guide, **options)
    losses = [progress.losses["dream"] for progress in run]
    assert losses[-1] < losses[0] < 0
    guided, free = run.image, dream(picture, "relu2_1", **options).result()
    assert agreement(guided) > 1.05 * agreement(picture)
    assert (guided - free).abs().mean() > 1e-3
    monkeypatch.setattr("vggfeat.transfer.memory.divide", lambda *_, **__: [Blocks(16)])
    tiled = dream(picture, "relu2_1", guide=guide, **options).result()
    assert (tiled - guided).abs().mean() < 1e-3
    with pytest.raises(InputError, match="a guide needs a whole layer, not one channel"):
        dream(picture, "relu2_1:3", guide=guide)
