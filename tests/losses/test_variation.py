import pytest
import torch

from vggfeat import TotalVariationLoss
from vggfeat.errors import InputError
from vggfeat.losses import formulas


@pytest.mark.parametrize("power", [1, 2])
def test_reads_the_image(power, features):
    loss = TotalVariationLoss(power=power, reduction="none")
    assert loss.target(features) == {}
    torch.testing.assert_close(loss(features, {}), formulas.total_variation(features["image"], power=power))
    with pytest.raises(InputError, match="the features contain no image, only relu1_1"):
        loss({"relu1_1": features["relu1_1"]}, {})
