import torch

from vggfeat import MeanStdLoss


def test_means_and_deviations_are_compared(features, others):
    loss = MeanStdLoss(["relu1_1"], reduction="none")
    (mean_x, std_x), (mean_y, std_y) = (
        (x["relu1_1"].mean((2, 3)), x["relu1_1"].flatten(2).std(2, correction=0)) for x in (features, others)
    )
    expected = ((mean_x - mean_y) ** 2 + (std_x - std_y) ** 2).mean(1)
    torch.testing.assert_close(loss(features, loss.target(others)), expected, rtol=1e-4, atol=1e-7)
