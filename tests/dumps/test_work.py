import numpy as np
import pytest
import torch

from vggfeat import FeatureExtractor, weights
from vggfeat.dumps.recipe import DumpRecipe, parse_reductions
from vggfeat.dumps.work import Job, Network, weights_digest


def network(precision):
    reductions = parse_reductions("vgg16", "relu1_2,relu2_2", "full")
    recipe = DumpRecipe(network="vgg16", reductions=reductions, precision=precision)
    state, _ = weights.load("vgg16")
    return Network(Job(".", recipe, batch_size=8, device="cpu", digest=weights_digest(recipe, state)))


@pytest.mark.parametrize(
    ("precision", "side", "pieces"), [("float32", 224, [1, 1, 1]), ("bfloat16", 160, [2, 1]), ("float32", 32, [3])]
)
def test_a_batch_is_computed_in_pieces_that_stay_small(precision, side, pieces, monkeypatch):
    seen = []
    forward = FeatureExtractor.forward
    monkeypatch.setattr(FeatureExtractor, "forward", lambda self, x: (seen.append(len(x)), forward(self, x))[1])
    pixels = np.random.default_rng(0).random((3, 3, side, side), dtype=np.float32)
    outcome = network(precision)(pixels)
    assert seen == pieces
    whole = FeatureExtractor("vgg16", ["relu1_2", "relu2_2"], precision=precision)(torch.from_numpy(pixels))
    for layer, expected in whole.items():
        tolerance = {"rtol": 1e-5, "atol": 1e-5} if precision == "float32" else {"rtol": 0.02, "atol": 0.02}
        torch.testing.assert_close(outcome.features[layer], expected, **tolerance)
        assert outcome.outputs[layer, "full"].shape == tuple(expected.shape)
