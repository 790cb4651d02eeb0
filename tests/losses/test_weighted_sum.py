import torch

from vggfeat import ContentLoss, GramLoss, TotalVariationLoss, WeightedSum
from vggfeat.losses import formulas


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
    torch.testing.assert_close(terms["tv"], formulas.total_variation(features["image"]).mean())


def test_holds_no_tensor():
    objective = WeightedSum(style=(1.0, GramLoss(["relu1_1"])))
    assert not list(objective.state_dict())
    assert not list(objective.parameters())
