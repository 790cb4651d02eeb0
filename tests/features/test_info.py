"""The description of an extractor's layers, held to gradients and to timm's numbers."""

import pytest
import torch

from vggfeat import FeatureExtractor, vgg
from vggfeat.networks import arch, weights

# timm's vgg16 with features_only=True describes the ReLU before each pool, and the last pool.
TIMM = {
    "num_chs": [64, 128, 256, 512, 512, 512],
    "reduction": [1, 2, 4, 8, 16, 32],
    "module": ["features.3", "features.8", "features.15", "features.22", "features.29", "features.30"],
}


def test_equals_timms_feature_info():
    info = FeatureExtractor("vgg16", TIMM["module"], weights=None).feature_info
    assert {key: [entry[key] for entry in info.get_dicts()] for key in TIMM} == TIMM
    assert (info.channels(), info.reduction(), info.module_name()) == tuple(TIMM.values())


def test_describes_the_features_in_their_order():
    extract = FeatureExtractor("vgg11_bn", "relu*_1,pool2", weights=None)
    features = extract(torch.rand(1, 3, 64, 64))
    info = extract.feature_info
    assert info.names() == list(features) == [layer.name for layer in info]
    assert len(info) == len(features)
    assert info.channels() == [x.shape[1] for x in features.values()]
    assert info.reduction() == [64 // x.shape[2] for x in features.values()]


def test_a_tap_has_it_too():
    tap = FeatureExtractor.of(vgg("8,M,16", head=None, seed=0), "relu*")
    assert tap.feature_info.channels() == [8, 16]


@pytest.mark.parametrize("pooling", ["avg", "l2"])
def test_receptive_fields_are_where_gradients_reach(pooling):
    names = ["relu1_2", "pool1", "relu2_2", "relu3_1"]
    # Positive weights let every pixel of a receptive field contribute.
    state = {key: x.abs() for key, x in weights.load("B", None)[0].items()}
    # Winograd's algorithm spreads rounding errors over whole tiles.
    extract = FeatureExtractor("B", names, weights=state, pooling=pooling, channels_last=False)
    image = torch.rand(1, 3, 80, 80, requires_grad=True)
    features = extract(image)
    info = extract.feature_info
    for layer, field, offset in zip(info, info.receptive_field(), info.offset(), strict=True):
        x = features[layer.name]
        middle = x.shape[2] // 2
        (gradient,) = torch.autograd.grad(x[0, :, middle, middle].sum(), image, retain_graph=True)
        reached = gradient[0].abs().sum(0).nonzero()
        first, last = reached.min(0).values, reached.max(0).values
        assert (last - first + 1).tolist() == [field] * 2
        assert ((first + last) / 2).tolist() == [offset + middle * layer.stride] * 2


def test_parts_are_those_of_arch():
    extract = FeatureExtractor("vgg11", "relu3_1", weights=None)
    assert [part.last.name for part in extract.parts()] == ["pool1", "pool2", "relu3_1"]
    x = extract.normalised(image := torch.rand(1, 3, 32, 32))
    for part in extract.parts():
        features, x = part(x)
    assert torch.equal(features["relu3_1"], extract(image)["relu3_1"])
    assert arch.parts(()) == ((),)
