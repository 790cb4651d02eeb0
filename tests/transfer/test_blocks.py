"""Block by block the gradient is that of the whole picture."""

from pathlib import Path

import pytest
import torch

from vggfeat.features.extractor import FeatureExtractor, Part
from vggfeat.losses.content import ContentLoss
from vggfeat.losses.covariance import CovarianceLoss
from vggfeat.losses.gram import GramLoss
from vggfeat.losses.mean_std import MeanStdLoss
from vggfeat.losses.nearest_neighbour import NearestNeighbourLoss
from vggfeat.losses.sliced_wasserstein import SlicedWassersteinLoss
from vggfeat.losses.variation import TotalVariationLoss
from vggfeat.pictures import images
from vggfeat.transfer.blocks import Blockwise, Whole
from vggfeat.transfer.objective import Term, WeightedLoss
from vggfeat.transfer.tiles import Blocks

PICTURES = Path(__file__).parents[2] / "assets" / "images"
STYLE = ["relu1_1", "relu2_1", "relu3_1", "relu4_1"]


@pytest.fixture(scope="module")
def pictures():
    """Three photographs: where the gradient is taken, the content, and the style, of another size."""
    sizes = ((79, 90), (79, 90), (66, 73))
    names = ("chelsea", "china", "coffee")
    return [
        images.resize(images.read_picture(PICTURES / f"{name}.jpg").rgb, *size)
        for name, size in zip(names, sizes, strict=True)
    ]


@pytest.fixture(scope="module")
def extract():
    return {
        pooling: FeatureExtractor("vgg19", [*STYLE, "pool2", "relu4_2"], pooling=pooling, check="off")
        for pooling in ("max", "avg", "l2")
    }


def terms(method, losses, pictures, masks=None):
    """The weighted losses, each with its target as `method` computes it."""
    _, content, style = pictures
    found = [Term("tv", 0.1, TotalVariationLoss(), {})]
    for loss in losses:
        weighted = WeightedLoss("content" if loss.aligned else "style", 10.0, loss)
        (target,) = method.targets(content if isinstance(loss, ContentLoss) else style, [weighted])
        found.append(weighted.term(target, masks=None if loss.aligned else masks))
    return found


def agree(whole, blocks):
    assert blocks.loss.item() == pytest.approx(whole.loss.item(), rel=2e-4)
    assert blocks.terms.keys() == whole.terms.keys()
    error = torch.linalg.norm(blocks.gradient - whole.gradient) / torch.linalg.norm(whole.gradient)
    # In pictures this small, one nearest neighbour that changes by rounding moves the gradient by 1.7e-3.
    assert error < 3e-3


LOSSES = {
    "gram": [GramLoss(STYLE, divide_by="chw"), ContentLoss(["relu4_2", "pool2"])],
    "moments": [MeanStdLoss(STYLE), CovarianceLoss(["relu3_1"])],
    "sorted": [SlicedWassersteinLoss(["relu3_1", "relu4_1"], projections=8)],
    "nearest": [NearestNeighbourLoss(["relu4_1"]), ContentLoss(["relu4_2"], distance="cosine")],
}


DIVISIONS = (
    *((0, None, "max"), (16, None, "max"), (0, 3, "max"), (16, 1, "max")),
    *((16, 4, "max"), (16, 4, "avg"), (16, 4, "l2")),
)


@pytest.mark.parametrize(
    ("losses", "margin", "tiled", "pooling"),
    [
        *(("gram", *each) for each in DIVISIONS),
        *((name, *each) for name in (*LOSSES,)[1:] for each in DIVISIONS[1:5:3]),
    ],
)
def test_gradient_is_that_of_the_whole_picture(losses, margin, tiled, pooling, extract, pictures):
    losses = LOSSES[losses]
    whole, blocks = Whole(extract[pooling], margin), Blockwise(extract[pooling], margin, Blocks(32, tiled))
    agree(
        whole.evaluate(terms(whole, losses, pictures), pictures[0]),
        blocks.evaluate(terms(blocks, losses, pictures), pictures[0]),
    )


@pytest.mark.parametrize("tiled", [None, 2])
@pytest.mark.parametrize("losses", [LOSSES["gram"], LOSSES["moments"], LOSSES["sorted"]])
def test_masks_weigh_the_same_positions(losses, tiled, extract, pictures):
    whole, blocks = Whole(extract["max"], 16), Blockwise(extract["max"], 16, Blocks(32, tiled))
    mask = torch.linspace(0, 1, 90).expand(1, 1, 79, 90)
    features = whole.features(pictures[0])
    masks = {name: torch.nn.functional.adaptive_avg_pool2d(mask, features[name].shape[2:]) for name in STYLE}
    agree(
        whole.evaluate(terms(whole, losses, pictures, masks), pictures[0]),
        blocks.evaluate(terms(blocks, losses, pictures, masks), pictures[0]),
    )


@pytest.mark.parametrize("blocks", [Blocks(8), Blocks(34), Blocks(34, 2), Blocks(62), Blocks(1000)])
def test_the_grid_leaves_no_seam(blocks, extract, pictures):
    """However the blocks lie, every pixel's gradient is the same: also beside their borders."""
    whole = Whole(extract["avg"], 16)
    found = terms(whole, LOSSES["gram"], pictures)
    expected = whole.evaluate(found, pictures[0]).gradient
    gradient = Blockwise(extract["avg"], 16, blocks).evaluate(found, pictures[0]).gradient
    worst = (gradient - expected).abs().max() / expected.square().mean().sqrt()
    assert worst < 0.1


def test_only_what_is_tiled_is_computed_twice(extract, pictures, monkeypatch):
    found = terms(Whole(extract["max"], 16), LOSSES["gram"], pictures)
    plain, ran = Part.__call__, list[str]()
    monkeypatch.setattr(Part, "__call__", lambda part, x: ran.append(part.last.name) or plain(part, x))
    Blockwise(extract["max"], 16, Blocks(1000, 2)).evaluate(found, pictures[0])
    tiles = [ran.count(name) for name in ("pool1", "pool2", "pool3", "relu4_2")]
    assert tiles == [2, 2, 1, 1]


@pytest.mark.parametrize("tiled", [None, 1])
def test_in_half_precision_too(tiled, pictures):
    # Shallow and small: bfloat16 is slow where a processor emulates it.
    style, pictures = STYLE[:3], [picture[..., :48, :56] for picture in pictures]
    extract = FeatureExtractor("vgg19", style, precision="bfloat16", check="off")
    whole, blocks = Whole(extract, 16), Blockwise(extract, 16, Blocks(32, tiled))
    found = terms(whole, [GramLoss(style, divide_by="chw"), ContentLoss(["relu3_1"])], pictures)
    one, other = (method.evaluate(found, pictures[0]).gradient.flatten() for method in (whole, blocks))
    assert torch.cosine_similarity(one, other, dim=0) > 0.999
