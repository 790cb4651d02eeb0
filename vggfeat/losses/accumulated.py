"""Mean distances as torchmetrics metrics. Needs the extra `vggfeat[metrics]`. `vggfeat.metrics` has the names."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from vggfeat.errors import InputError
from vggfeat.losses.base import FeatureLoss
from vggfeat.losses.criterion import Criterion, CriterionOptions
from vggfeat.losses.lpips import Net
from vggfeat.losses.similarity import DISTS, LPIPS


class MeanDistance(Metric):
    """The mean of a distance over all pairs, accumulated over batches and processes.

    It stores two numbers, a float64 sum and a count. Processes add theirs up, so they may have different numbers of
    pairs.

    Args:
        criterion: with one value a pair, such as `LPIPS(reduction="none")` or `DISTS(reduction="none")`.
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

    def __init__(self, criterion: Criterion[Any], **options: Any) -> None:
        super().__init__(**options)
        losses = [criterion.loss] if isinstance(criterion.loss, FeatureLoss) else criterion.loss.losses.values()
        if any(loss.reduction != "none" or getattr(loss, "spatial", False) for loss in losses):
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
        self.count = self.count + values.numel()

    def compute(self) -> Tensor:
        """The mean so far, a float32 scalar. NaN before the first pair."""
        return (self.total / self.count).float()


class MeanLPIPS(MeanDistance):
    """The mean of LPIPS over all pairs.

    Args:
        net: `vgg`, `alex` or `squeeze`, as for `LPIPS`.
        options: those of `LPIPS` but `spatial` and `reduction`, and of `torchmetrics.Metric`. With
            `convention="torchmetrics"` the values are those of `LearnedPerceptualImagePatchSimilarity`.

    Example:
        >>> import torch
        >>> from vggfeat import metrics
        >>> metric = metrics.MeanLPIPS("alex")
        >>> image = torch.rand(2, 3, 32, 32)
        >>> metric(image, image)
        tensor(0.)
    """

    def __init__(self, net: Net | None = None, **options: Any) -> None:
        found, rest = _split(options, "version", "exact", "heads", "convention")
        super().__init__(LPIPS(net, reduction="none", **found), **rest)


class MeanDISTS(MeanDistance):
    """The mean of DISTS over all pairs.

    Args:
        options: those of `DISTS` but `reduction`, and of `torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> from vggfeat import metrics
        >>> metric = metrics.MeanDISTS(resize=256)
        >>> image = torch.rand(2, 3, 32, 32)
        >>> abs(round(metric(image, image).item(), 6))
        0.0
    """

    def __init__(self, **options: Any) -> None:
        found, rest = _split(options, "resize")
        super().__init__(DISTS(reduction="none", **found), **rest)


def _split(options: dict[str, Any], *names: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options of the criterion, and those of torchmetrics."""
    own = {*CriterionOptions.__annotations__, "both", *names}
    found = {name: value for name, value in options.items() if name in own}
    return found, {name: value for name, value in options.items() if name not in own}
