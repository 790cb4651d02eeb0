import pytest
import torch
import torch.nn.functional as F

from vggfeat import FeatureExtractor, InputError, LayerError
from vggfeat.losses import formulas
from vggfeat.networks.network import vgg
from vggfeat.transfer.blocks import Whole
from vggfeat.transfer.spectrum import Spectrum
from vggfeat.transfer.tiles import Blocks
from vggfeat.transfer.visualize import visualize

SMALL = {"size": 32, "steps": 12, "device": "cpu"}


def test_a_picture_activates_its_channel_more_than_noise_does():
    run = visualize("relu2_1", channel=5, **SMALL)
    before = run.responses()[0]
    losses = [progress.losses["activation"] for progress in run]
    assert losses[-1] < losses[0]
    assert run.responses()[0] > 2 * before > 0
    features = FeatureExtractor("vgg16", "relu2_1", device="cpu")(run.image)["relu2_1"]
    assert run.responses()[0] == pytest.approx(float(features[0, 5].max()), rel=1e-5)
    others = features[0].amax((1, 2))
    assert others[5] > others.median()


def test_a_direction_of_one_channel_is_that_channel():
    direction = torch.zeros(128)
    direction[5] = 3.0
    one, two = (visualize("relu2_1", **aim, **SMALL) for aim in ({"channel": 5}, {"direction": direction}))
    for run in (one, two):
        run.result()
    features = FeatureExtractor("vgg16", "relu2_1", device="cpu")(two.image)["relu2_1"]
    assert two.responses()[0] == pytest.approx(float(features[0, 5].max()), rel=1e-5)
    # With the cosine, other channels count against a direction.
    x = torch.rand(1, 128, 4, 4)
    louder = x.clone()
    louder[:, 6] += 5
    assert one.aim.score(louder).item() == pytest.approx(one.aim.score(x).item())
    assert two.aim.score(louder).item() < two.aim.score(x).item()


def test_a_neuron_changes_only_what_it_sees():
    run = visualize("relu1_1", channel=3, neuron=True, **SMALL)
    aim = run.aim
    x = torch.rand(1, 64, 8, 8)
    assert aim.score(x).tolist() == [float(x[0, 3, 4, 4])]
    assert visualize("relu1_1", channel=3, **SMALL).aim.score(x).item() == pytest.approx(float(x[0, 3].mean()))


def test_diversity_makes_pictures_differ():
    likeness = []
    for diversity in (0.0, 200.0):
        run = visualize("relu2_1", channel=5, count=3, diversity=diversity, **SMALL)
        run.result()
        x = FeatureExtractor("vgg16", "conv2_1", device="cpu")(run.image)["conv2_1"]
        grams = F.normalize(formulas.gram(x).flatten(1), dim=1)
        likeness.append(float((grams @ grams.mT).triu(1).sum()))
    assert likeness[1] < 0.5 * likeness[0]


def test_the_seed_decides():
    one, two, three = (visualize("relu1_1", channel=3, seed=seed, **SMALL).result() for seed in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, three)
    assert 0 <= one.min() <= one.max() <= 1


def test_blocks_and_memory_that_runs_out_paint_the_same(monkeypatch):
    options = {"channel": 5, "count": 2, "size": 104, "steps": 2, "device": "cpu"}
    whole, lower = visualize("relu2_1", **options), visualize("relu2_1", **options)
    expected = whole.result()
    monkeypatch.setattr(Whole, "evaluate", _out_of_memory)
    notes = [progress.note for progress in lower]
    assert notes == ["out of memory: continuing in blocks of 64 pixels", None]
    assert lower.blocks == (Blocks(64),)
    assert (lower.image - expected).abs().mean() < 1e-3
    assert lower.responses() == pytest.approx(whole.responses(), rel=1e-2)


def _out_of_memory(*_):
    raise torch.OutOfMemoryError("CUDA out of memory")


def test_a_picture_is_only_shifted_scaled_and_turned():
    """A disc in the middle stays one: its mean, its size and its place hardly change."""
    place = torch.arange(64) - 31.5
    disc = ((place[:, None] ** 2 + place**2) < 15**2).float().expand(1, 3, 64, 64)
    run = visualize("relu1_1", channel=3, size=64, steps=1, device="cpu")
    seen = []
    extract = Whole.evaluate

    def look(self, terms, image):
        seen.append(image)
        return extract(self, terms, image)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Whole, "evaluate", look)
        patch.setattr(Spectrum, "forward", lambda self: disc + 0 * self.coefficients.sum())
        run.result()
    for image in seen:
        inside = (image - 0.5).clamp_min(0)[0, 0]
        rows = torch.arange(88) - 43.5
        down, across = ((inside.sum(1) * rows).sum() / inside.sum(), (inside.sum(0) * rows).sum() / inside.sum())
        assert max(abs(down), abs(across)) < 9.5
        assert 0.75 < inside.sum() / (0.5 * disc[0, 0].sum()) < 1.3
        assert (image[0, 0, 0] - 0.5).abs().max() < 0.05


def test_a_spectrum_is_noise_of_equal_octaves():
    """Its amplitude falls with the frequency, as that of photographs does."""
    with torch.no_grad():
        channels = Spectrum(8, 64, 64, seed=0)().logit().mean(1)
    power = torch.fft.rfft2(channels).abs().square().mean(0)
    assert power[0, 2] / power[0, 16] > 20


def test_a_network_of_ones_own():
    state = vgg("8,M,16", head=None, seed=0).state_dict()
    run = visualize("relu2_1", channel=5, network="8,M,16", weights=state, **SMALL)
    before = run.responses()[0]
    run.result()
    assert run.responses()[0] > before


def test_wrong_aims_are_told():
    for layer, options, kind, message in (
        ("relu9_9", {"channel": 0}, LayerError, "relu9_9"),
        ("relu*", {"channel": 0}, LayerError, "a visualisation is of one layer, and 'relu\\*' names 13"),
        ("relu2_1", {"channel": 128}, LayerError, "relu2_1 of vgg16 has the channels 0 to 127, not 128"),
        ("relu2_1", {}, InputError, "name a channel or a direction"),
        ("relu2_1", {"channel": 1, "direction": [1.0]}, InputError, "name a channel or a direction"),
        ("relu2_1", {"direction": [1.0]}, InputError, r"the direction is \(1,\): relu2_1 needs 128 finite numbers"),
        ("relu2_1", {"direction": torch.zeros(128)}, InputError, "not all 0"),
        ("relu2_1", {"channel": 1, "count": 0}, InputError, "count is 0: it must be a whole number between 1 and 64"),
        ("relu2_1", {"channel": 1, "size": 8}, InputError, "size is 8: it must be a whole number between 16 and 4096"),
        ("relu2_1", {"channel": 1, "diversity": float("nan")}, InputError, "diversity is nan"),
    ):
        with pytest.raises(kind, match=message):
            visualize(layer, **{"size": 32, "steps": 1, "device": "cpu", **options})
