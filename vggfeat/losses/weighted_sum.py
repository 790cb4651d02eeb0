"""WeightedSum: several losses over the features of one pass."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from vggfeat.errors import InputError
from vggfeat.losses.base import FeatureLoss, Features


class WeightedSum(nn.Module):
    """Weighted sum of losses that read the same features: an objective.

    Each keyword is the name of a term and gives its weight and its loss. Raises `InputError` if there is no term.

    Example:
        >>> import torch
        >>> from vggfeat import ContentLoss, GramLoss, WeightedSum
        >>> objective = WeightedSum(content=(1.0, ContentLoss(["relu4_2"])), style=(10.0, GramLoss(["relu1_1"])))
        >>> objective.layers
        ('relu4_2', 'relu1_1')
        >>> zeros = {"relu4_2": torch.zeros(1, 512, 2, 2), "relu1_1": torch.zeros(1, 64, 16, 16)}
        >>> ones = {name: torch.ones_like(x) for name, x in zeros.items()}
        >>> total, terms = objective(ones, objective.target(zeros))
        >>> total, terms
        (tensor(11.), {'content': tensor(1.), 'style': tensor(10.)})
    """

    def __init__(self, **terms: tuple[float, FeatureLoss]) -> None:
        super().__init__()
        if not terms:
            raise InputError("a weighted sum needs at least one term")
        self.weights = {name: float(weight) for name, (weight, _) in terms.items()}
        self.terms = nn.ModuleDict({name: loss for name, (_, loss) in terms.items()})

    @property
    def losses(self) -> dict[str, FeatureLoss]:
        """The losses, {term: loss}."""
        return {name: loss for name, loss in self.terms.items() if isinstance(loss, FeatureLoss)}

    @property
    def aligned(self) -> bool:
        """Whether any term compares features position by position."""
        return any(loss.aligned for loss in self.losses.values())

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that the terms read, each once, in the order of the terms."""
        return tuple(dict.fromkeys(name for loss in self.losses.values() for name in loss.layers))

    def target(self, features: Features, *, graph: bool = False) -> dict[str, dict[str, Tensor]]:
        """The target of every term, {term: {layer: summary}}; `graph` as in `FeatureLoss.target`."""
        return {name: loss.target(features, graph=graph) for name, loss in self.losses.items()}

    def forward(self, features: Features, targets: Mapping[str, Features]) -> tuple[Tensor, dict[str, Tensor]]:
        """The total, and {term: weighted value}. `targets` may combine terms of different targets."""
        values = {name: self.weights[name] * loss(features, targets[name]) for name, loss in self.losses.items()}
        return torch.stack(list(values.values())).sum(0), values
