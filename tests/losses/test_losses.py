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
    TotalVariationLoss,
    WeightedSum,
)
from vggfeat.errors import InputError
from vggfeat.losses import functional


@pytest.fixture
def features():
    generator = torch.Generator().manual_seed(0)
    return {
        "relu1_1": torch.rand(2, 4, 8, 8, generator=generator),
        "relu2_1": torch.rand(2, 6, 4, 4, generator=generator),
        "image": torch.rand(2, 3, 8, 8, generator=generator),
    }


@pytest.fixture
def others(features):
    return {name: x.flip(0) for name, x in features.items()}


def test_content_is_the_weighted_mean_square(features, others):
    loss = ContentLoss({"relu1_1": 2.0, "relu2_1": 0.5}, reduction="none")
    theirs = sum(
        weight * torch.nn.functional.mse_loss(features[name], others[name], reduction="none").mean((1, 2, 3))
        for name, weight in (("relu1_1", 2.0), ("relu2_1", 0.5))
    )
    torch.testing.assert_close(loss(features, loss.target(others)), theirs)
    mean = ContentLoss({"relu1_1": 2.0, "relu2_1": 0.5})
    torch.testing.assert_close(mean(features, mean.target(others)), theirs.mean())


DISTANCES = {
    "l1": torch.nn.functional.l1_loss,
    "huber": torch.nn.functional.huber_loss,
    "charbonnier": lambda x, y: ((x - y) ** 2 + 1e-6).sqrt().mean(),
    "cosine": lambda x, y: (1 - torch.cosine_similarity(x, y, dim=1)).mean(),
}


@pytest.mark.parametrize("distance", DISTANCES)
def test_content_distances(distance, features, others):
    loss = ContentLoss(["relu1_1"], distance=distance)
    theirs = DISTANCES[distance](features["relu1_1"], others["relu1_1"])
    torch.testing.assert_close(loss(features, loss.target(others)), theirs, rtol=1e-5, atol=1e-6)


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
    loss.reduction = "mean"
    torch.testing.assert_close(loss(features, loss.target(others)), apart.mean())


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


def test_sliced_wasserstein_is_seeded(features, others):
    values = [
        loss(features, loss.target(others))
        for loss in (SlicedWassersteinLoss(["relu1_1"], seed=seed) for seed in (1, 1, 2))
    ]
    assert values[0] == values[1] != values[2]


@pytest.mark.parametrize("divide_by", ["hw", "chw", "none"])
def test_style_is_the_mean_square_of_gram_matrices(divide_by, features, others):
    loss = GramLoss(["relu1_1"], divide_by=divide_by)
    grams = [functional.gram(x["relu1_1"], divide_by=divide_by) for x in (features, others)]
    torch.testing.assert_close(loss(features, loss.target(others)), torch.nn.functional.mse_loss(*grams))


def test_conventions_differ_by_the_square_of_the_channels(features, others):
    hw, chw = (GramLoss(["relu2_1"], divide_by=name) for name in ("hw", "chw"))
    torch.testing.assert_close(
        chw(features, chw.target(others)), hw(features, hw.target(others)) / features["relu2_1"].shape[1] ** 2
    )


def test_one_target_serves_a_batch(features):
    loss = GramLoss(["relu1_1"], reduction="none")
    target = loss.target({name: x[:1] for name, x in features.items()})
    assert loss(features, target).shape == (2,)
    assert loss(features, target)[0] == pytest.approx(0.0, abs=1e-9)


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


def test_weighted_sum_tells_its_terms(features, others):
    objective = WeightedSum(
        content=(3.0, ContentLoss(["relu2_1"])),
        style=(0.5, GramLoss(["relu1_1", "relu2_1"])),
        tv=(1.0, TotalVariationLoss()),
    )
    assert objective.layers == ("relu2_1", "relu1_1", "image")
    total, terms = objective(features, objective.target(others))
    assert list(terms) == ["content", "style", "tv"]
    torch.testing.assert_close(total, sum(terms.values()))
    content = ContentLoss(["relu2_1"])
    torch.testing.assert_close(terms["content"], 3 * content(features, content.target(others)))
    torch.testing.assert_close(terms["tv"], functional.total_variation(features["image"]).mean())


@pytest.mark.parametrize("loss", every_loss(["relu1_1"]), ids=named)
def test_targets_that_do_not_fit_are_named(loss, features):
    three = {"relu1_1": torch.rand(3, 4, 8, 8)}
    with pytest.raises(InputError, match=r"relu1_1 is .* of the prediction and .* of the target: they do not fit"):
        loss(features, loss.target(three))
    if loss.aligned:
        one = {"relu1_1": torch.rand(1, 4, 1, 1)}  # would be broadcast
        with pytest.raises(InputError, match="they do not fit"):
            loss(features, loss.target(one))


def test_one_layer_needs_no_list():
    assert ContentLoss("relu3_3").layers == ("relu3_3",)


def test_a_missing_layer_is_named(features):
    loss = ContentLoss(["relu3_1"])
    with pytest.raises(InputError, match="the features hold no relu3_1, only relu1_1, relu2_1, image"):
        loss.target(features)
    with pytest.raises(InputError, match="at least one term"):
        WeightedSum()


def test_unknown_words_are_refused():
    with pytest.raises(InputError, match="unknown distance 'l3': known are l2, l1, charbonnier, huber, cosine"):
        ContentLoss(["relu1_1"], distance="l3")
    with pytest.raises(InputError, match="unknown reduction 'sum': known are mean, none"):
        ContentLoss(["relu1_1"], reduction="sum")
    with pytest.raises(InputError, match="unknown divide_by 'n'"):
        GramLoss(["relu1_1"], divide_by="n")
    with pytest.raises(InputError, match="ContentLoss needs at least one layer"):
        ContentLoss([])


def test_holds_no_tensor():
    objective = WeightedSum(style=(1.0, GramLoss(["relu1_1"])))
    assert not list(objective.state_dict())
    assert not list(objective.parameters())


@pytest.mark.parametrize("make", [GramLoss, partial(GramLoss, divide_by="none"), MeanStdLoss, CovarianceLoss])
def test_moments_of_parts_add_up_and_masks_weigh(make):
    loss = make(["relu1_1"])
    x = torch.rand(1, 4, 6, 10, dtype=torch.float64)
    parts = loss.moments(x[..., :3]) + loss.moments(x[..., 3:])
    torch.testing.assert_close(loss.settle(parts, 60), loss.summary(x))
    mask = torch.zeros(1, 1, 6, 10, dtype=torch.float64)
    mask[..., 2:7] = 1
    torch.testing.assert_close(loss.settle(loss.moments(x, mask), mask.sum()), loss.summary(x[..., 2:7]))
    half = loss.settle(loss.moments(x, mask / 2), mask.sum() / 2)
    if make is not GramLoss and not isinstance(make, partial):
        torch.testing.assert_close(half, loss.summary(x[..., 2:7]))
