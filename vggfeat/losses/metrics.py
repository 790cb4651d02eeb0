"""LPIPS and DISTS as a torchmetrics metric: accumulated over batches and processes, in constant memory.

Needs the extra `vggfeat[metrics]`.
"""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from vggfeat.errors import InputError
from vggfeat.losses.similarity import DISTS, LPIPS


class MeanDistance(Metric):
    """The mean of a criterion over all pairs that were seen, a scalar.

    Two numbers are kept whatever the number of pairs, a sum in float64 and a count; across processes both add up, so
    that ranks may see different numbers of pairs.

    Args:
        criterion: `LPIPS(reduction="none")` or `DISTS(reduction="none")`, which give one value a pair.
        options: of `torchmetrics.Metric`.
    """

    is_differentiable = True
    higher_is_better = False
    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, criterion: LPIPS | DISTS, **options: Any) -> None:  # noqa: ANN401 (torchmetrics' own)
        super().__init__(**options)
        if criterion.loss.reduction != "none" or getattr(criterion.loss, "spatial", False):
            raise InputError('a mean over pairs needs one value a pair: pass a criterion with reduction="none"')
        self.criterion = criterion
        # MPS has no float64.
        double = torch.float32 if torch.get_default_device().type == "mps" else torch.float64
        for name, dtype in (("total", double), ("count", torch.long)):
            zero = torch.zeros((), dtype=dtype)
            self.add_state(name, zero, dist_reduce_fx="sum")  # pyright: ignore[reportUnknownMemberType] (untyped)

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add the pairs of two batches (N, 3, H, W)."""
        values = self.criterion(prediction, target)
        self.total = self.total + values.sum(dtype=self.total.dtype)
        self.count = self.count + len(values)

    def compute(self) -> Tensor:
        """The mean so far, in float32; NaN before the first pair."""
        return (self.total / self.count).float()
