"""An objective is evaluated within the memory there is, and the gradient stays the same."""

import pytest
import torch

from vggfeat.features.extractor import FeatureExtractor
from vggfeat.losses.gram import GramLoss
from vggfeat.transfer.blocks import Blockwise, Whole
from vggfeat.transfer.evaluator import Evaluator
from vggfeat.transfer.objective import WeightedLoss
from vggfeat.transfer.tiles import Blocks

LAYERS = ["relu1_1", "relu2_1"]
IMAGE = torch.rand(1, 3, 64, 256, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def extract():
    return FeatureExtractor("vgg16", LAYERS, check="off")


@pytest.fixture(scope="module")
def terms(extract):
    loss = WeightedLoss("style", 10.0, GramLoss(LAYERS, divide_by="chw"))
    (target,) = Evaluator(extract, 16).targets(1 - IMAGE, [loss])
    return [loss.term(target)]


def failing_unless(fits, error, plain):
    """`plain`, which raises `error` unless `fits` accepts the evaluation's blocks."""

    def evaluate(method, terms, image):
        if fits(method.blocks):
            return plain(method, terms, image)
        raise error

    return evaluate


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")],
    ids=["cuda", "cpu"],
)
def test_memory_that_runs_out_halves_the_blocks(error, extract, terms, monkeypatch):
    evaluator = Evaluator(extract, 16)
    expected = evaluator.evaluate(terms, IMAGE)
    assert evaluator.blocks is None

    def fits(blocks):
        return blocks is not None and blocks.side <= 64

    for method in (Whole, Blockwise):
        monkeypatch.setattr(method, "evaluate", failing_unless(fits, error, method.evaluate))
    found = evaluator.evaluate(terms, IMAGE)
    assert evaluator.blocks == Blocks(64)
    torch.testing.assert_close(found.loss, expected.loss, rtol=1e-4, atol=0)
    assert torch.linalg.norm(found.gradient - expected.gradient) < 1e-3 * torch.linalg.norm(expected.gradient)


def test_every_part_runs_in_tiles_before_the_tiles_shrink(extract, terms, monkeypatch):
    evaluator = Evaluator(extract, 16, blocks=Blocks(64, 1))
    failing = failing_unless(lambda blocks: blocks.tiled is None, MemoryError(), Blockwise.evaluate)
    monkeypatch.setattr(Blockwise, "evaluate", failing)
    evaluator.evaluate(terms, IMAGE)
    assert evaluator.blocks == Blocks(64)


def test_the_smallest_blocks_end_the_attempts(extract, terms, monkeypatch):
    evaluator = Evaluator(extract, 16, blocks=Blocks(200))
    monkeypatch.setattr(Blockwise, "evaluate", failing_unless(lambda _: False, MemoryError("enough"), None))
    with pytest.raises(MemoryError, match="enough"):
        evaluator.evaluate(terms, IMAGE)
    assert evaluator.blocks == Blocks(100)


def test_other_errors_are_passed_on(extract, terms, monkeypatch):
    evaluator = Evaluator(extract, 16)
    monkeypatch.setattr(Whole, "evaluate", failing_unless(lambda _: False, RuntimeError("sizes do not match"), None))
    with pytest.raises(RuntimeError, match="sizes do not match"):
        evaluator.evaluate(terms, IMAGE)
    assert evaluator.blocks is None


@pytest.mark.parametrize("blocks", [None, Blocks(32)])
@pytest.mark.parametrize("size", [(64, 50), (17, 16)])
def test_sizes_are_those_of_the_features(size, blocks, extract):
    image = torch.rand(1, 3, *size)
    evaluator = Evaluator(extract, 16, blocks=blocks)
    features = evaluator.features(image)
    assert all(features[layer].shape[2:] == evaluator.sizes(image)[layer] for layer in LAYERS)
