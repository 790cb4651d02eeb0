"""WeightedSum: several losses that share one pass."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from vggfeat.errors import InputError
from vggfeat.losses.base import FeatureLoss, Features


class WeightedSum(nn.Module):
    """Several losses over the same features: `WeightedSum(content=(1.0, ContentLoss(...)), style=(1e3, ...))`."""

    def __init__(self, **terms: tuple[float, FeatureLoss]) -> None:
        super().__init__()
        if not terms:
            raise InputError("a weighted sum needs at least one term")
        self.weights = {name: float(weight) for name, (weight, _) in terms.items()}
        self.terms = nn.ModuleDict({name: loss for name, (_, loss) in terms.items()})

    @property
    def losses(self) -> dict[str, FeatureLoss]:
        """The losses by the names of their terms."""
        return {name: loss for name, loss in self.terms.items() if isinstance(loss, FeatureLoss)}

    @property
    def aligned(self) -> bool:
        """Whether any term compares features position by position."""
        return any(loss.aligned for loss in self.losses.values())

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that any term reads, each once."""
        return tuple(dict.fromkeys(name for loss in self.losses.values() for name in loss.layers))

    def target(self, features: Features, *, graph: bool = False) -> dict[str, dict[str, Tensor]]:
        """What every term compares with, by term, all from the same features."""
        return {name: loss.target(features, graph=graph) for name, loss in self.losses.items()}

    def forward(self, features: Features, targets: Mapping[str, Features]) -> tuple[Tensor, dict[str, Tensor]]:
        """The total, and the weighted value of each term. Terms of different targets take them by name."""
        values = {name: self.weights[name] * loss(features, targets[name]) for name, loss in self.losses.items()}
        return torch.stack(list(values.values())).sum(0), values
