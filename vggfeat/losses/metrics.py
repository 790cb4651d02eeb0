"""Mean LPIPS or DISTS as a torchmetrics metric. Needs the extra `vggfeat[metrics]`."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from vggfeat.errors import InputError
from vggfeat.losses.similarity import DISTS, LPIPS


class MeanDistance(Metric):
    """The mean of LPIPS or DISTS over all pairs, accumulated over batches and processes.

    It stores two numbers, a float64 sum and a count. Processes add theirs up, so they may have different numbers of
    pairs.

    Args:
        criterion: `LPIPS(reduction="none")` or `DISTS(reduction="none")`.
        options: those of `torchmetrics.Metric`.

    Raises `InputError` for a criterion that does not return one value for each pair.

    Example:
        >>> import torch
        >>> from vggfeat import LPIPS, metrics
        >>> metric = metrics.MeanDistance(LPIPS("alex", reduction="none"))
        >>> image = torch.rand(2, 3, 32, 32)
        >>> metric.update(image, image)
        >>> metric.compute()
        tensor(0.)
    """

    is_differentiable = True
    higher_is_better = False
    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, criterion: LPIPS | DISTS, **options: Any) -> None:
        super().__init__(**options)
        if criterion.loss.reduction != "none" or getattr(criterion.loss, "spatial", False):
            raise InputError('a mean over pairs needs one value a pair: pass a criterion with reduction="none"')
        self.criterion = criterion
        # MPS has no float64.
        double = torch.float32 if torch.get_default_device().type == "mps" else torch.float64
        for name, dtype in (("total", double), ("count", torch.long)):
            zero = torch.zeros((), dtype=dtype)
            self.add_state(name, zero, dist_reduce_fx="sum")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add the N pairs of two batches (N, 3, H, W) in the criterion's input range."""
        values = self.criterion(prediction, target)
        self.total = self.total + values.sum(dtype=self.total.dtype)
        self.count = self.count + len(values)

    def compute(self) -> Tensor:
        """The mean so far, a float32 scalar. NaN before the first pair."""
        return (self.total / self.count).float()
