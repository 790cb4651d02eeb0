from functools import partial

import pytest
import torch

from vggfeat import (
    ContentLoss,
    ContextualLoss,
    CovarianceLoss,
    GramLoss,
    MeanStdLoss,
    SlicedWassersteinLoss,
    WeightedSum,
)
from vggfeat.errors import InputError


def every_loss(layers):
    return [
        *(ContentLoss(layers, distance=name) for name in ("l2", "l1", "charbonnier", "huber", "cosine")),
        *(GramLoss(layers, divide_by=name) for name in ("hw", "chw", "none")),
        GramLoss(layers, distance="l1"),
        MeanStdLoss(layers),
        CovarianceLoss(layers),
        SlicedWassersteinLoss(layers, projections=5),
        ContextualLoss(layers, chunk=7),
    ]


def named(loss):
    return type(loss).__name__


@pytest.mark.parametrize("loss", every_loss({"x": 0.7, "y": 1.3}), ids=named)
def test_gradients_of_every_loss(loss):
    generator = torch.Generator().manual_seed(2)
    x, y = (torch.rand(2, 2, 3, 4, 4, dtype=torch.float64, generator=generator) for _ in range(2))
    target = loss.target({"x": y[0], "y": y[1]})
    inputs = (x[0].clone().requires_grad_(), x[1].clone().requires_grad_())
    assert torch.autograd.gradcheck(lambda a, b: loss({"x": a, "y": b}, target), inputs)


@pytest.mark.parametrize("loss", every_loss(["relu1_1"]), ids=named)
def test_every_loss_is_least_for_equal_features_and_reduces(loss, features, others):
    loss.reduction = "none"
    same = loss(features, loss.target(features))
    apart = loss(features, loss.target(others))
    assert same.shape == apart.shape == (2,)
    assert (same < apart).all()
    for reduction, expected in (("sum", apart.sum()), ("mean", apart.mean())):
        loss.reduction = reduction
        torch.testing.assert_close(loss(features, loss.target(others)), expected)


@pytest.mark.parametrize("loss", every_loss(["relu1_1"]), ids=named)
def test_gradient_reaches_both_when_asked(loss, features, others):
    target = {"relu1_1": others["relu1_1"].clone().requires_grad_()}
    loss(features, loss.target(target, graph=True)).backward()
    assert target["relu1_1"].grad.abs().sum() > 0


@pytest.mark.parametrize("loss", every_loss(["relu1_1"]), ids=named)
def test_gradient_is_finite_where_features_are_zero(loss, others):
    zero = {"relu1_1": torch.zeros_like(others["relu1_1"]).requires_grad_()}
    loss(zero, loss.target(others)).backward()
    assert zero["relu1_1"].grad.isfinite().all()


@pytest.mark.parametrize("loss", every_loss(["relu1_1"]), ids=named)
def test_features_of_another_size(loss, features):
    other = {"relu1_1": torch.rand(1, 4, 5, 7)}
    if not loss.aligned:
        assert loss(features, loss.target(other)).isfinite()


@pytest.mark.parametrize("loss", [ContentLoss(["relu1_1"]), GramLoss(["relu1_1"])], ids=["content", "style"])
def test_gradient_reaches_the_prediction_alone(loss, features, others):
    prediction = {"relu1_1": features["relu1_1"].clone().requires_grad_()}
    target = {"relu1_1": others["relu1_1"].clone().requires_grad_()}
    loss(prediction, loss.target(target)).backward()
    assert prediction["relu1_1"].grad.abs().sum() > 0
    assert target["relu1_1"].grad is None


@pytest.mark.parametrize("loss", [ContentLoss(["x"]), GramLoss(["x"], divide_by="chw")], ids=["content", "style"])
def test_gradients(loss):
    x, y = torch.rand(2, 2, 3, 4, 4, dtype=torch.float64)
    target = loss.target({"x": y})
    assert torch.autograd.gradcheck(lambda x: loss({"x": x}, target), x.requires_grad_())


def test_half_precision_features_are_compared_in_float32(features, others):
    for loss in (ContentLoss(["relu1_1"]), GramLoss(["relu1_1"])):
        halves = [{"relu1_1": x["relu1_1"].bfloat16()} for x in (features, others)]
        value = loss(halves[0], loss.target(halves[1]))
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, loss(features, loss.target(others)), rtol=0.02, atol=0)


@pytest.mark.parametrize("loss", every_loss(["relu1_1"]), ids=named)
def test_targets_that_do_not_fit_are_named(loss, features):
    three = {"relu1_1": torch.rand(3, 4, 8, 8)}
    with pytest.raises(
        InputError, match=r"relu1_1 of the prediction is .* and of the target .*: the shapes must match"
    ):
        loss(features, loss.target(three))
    if loss.aligned:
        one = {"relu1_1": torch.rand(1, 4, 1, 1)}  # would be broadcast
        with pytest.raises(InputError, match="the shapes must match"):
            loss(features, loss.target(one))


def test_one_layer_needs_no_list():
    assert ContentLoss("relu3_3").layers == ("relu3_3",)


def test_a_missing_layer_is_named(features):
    loss = ContentLoss(["relu3_1"])
    with pytest.raises(InputError, match="the features contain no relu3_1, only relu1_1, relu2_1, image"):
        loss.target(features)
    with pytest.raises(InputError, match="at least one term"):
        WeightedSum()


def test_unknown_words_are_refused():
    with pytest.raises(InputError, match="unknown distance 'l3': choose from l2, l1, charbonnier, huber, cosine"):
        ContentLoss(["relu1_1"], distance="l3")
    with pytest.raises(InputError, match="unknown reduction 'total': choose from mean, sum, none"):
        ContentLoss(["relu1_1"], reduction="total")
    with pytest.raises(InputError, match="unknown divide_by 'n'"):
        GramLoss(["relu1_1"], divide_by="n")
    with pytest.raises(InputError, match="ContentLoss needs at least one layer"):
        ContentLoss([])


@pytest.mark.parametrize("make", [GramLoss, partial(GramLoss, divide_by="none"), MeanStdLoss, CovarianceLoss])
def test_moments_of_parts_add_up_and_masks_weigh(make):
    loss = make(["relu1_1"])
    x = torch.rand(1, 4, 6, 10, dtype=torch.float64)
    parts = loss.moments(x[..., :3]) + loss.moments(x[..., 3:])
    torch.testing.assert_close(loss.from_moments(parts, 60), loss.summary(x))
    mask = torch.zeros(1, 1, 6, 10, dtype=torch.float64)
    mask[..., 2:7] = 1
    torch.testing.assert_close(loss.from_moments(loss.moments(x, mask), mask.sum()), loss.summary(x[..., 2:7]))
    half = loss.from_moments(loss.moments(x, mask / 2), mask.sum() / 2)
    if make is not GramLoss and not isinstance(make, partial):
        torch.testing.assert_close(half, loss.summary(x[..., 2:7]))
