"""How well a network classifies: loss, accuracy, accuracy per class, and confusion matrix."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vggfeat.features.tensors import values
from vggfeat.files import csv_text


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Mean loss and confusion matrix. `confusion[a, b]` counts the pictures of class a that were classified as b."""

    classes: tuple[str, ...]
    loss: float
    confusion: Tensor

    @property
    def accuracy(self) -> float:
        """Share of pictures classified correctly, from 0 to 1."""
        return int(self.confusion.diagonal().sum()) / max(1, int(self.confusion.sum()))

    @property
    def class_accuracy(self) -> dict[str, float]:
        """Share of each class's pictures classified correctly."""
        right, all_of = values(self.confusion.diagonal()), values(self.confusion.sum(1))
        return {name: a / max(1, b) for name, a, b in zip(self.classes, right, all_of, strict=True)}

    def as_dict(self) -> dict[str, Any]:
        """The values as JSON types."""
        return {
            "loss": self.loss,
            "accuracy": self.accuracy,
            "class_accuracy": self.class_accuracy,
            "confusion": values(self.confusion),
        }

    def confusion_csv(self) -> str:
        """The confusion matrix as CSV: rows are true classes, columns are predictions."""
        rows = [[name, *counts] for name, counts in zip(self.classes, values(self.confusion), strict=True)]
        return csv_text(["", *self.classes], rows)

    def classes_csv(self) -> str:
        """A CSV row for each class: its pictures, how many were classified correctly, and their share."""
        right, all_of = values(self.confusion.diagonal()), values(self.confusion.sum(1))
        accuracy = self.class_accuracy
        rows = [[name, b, a, f"{accuracy[name]:.6f}"] for name, a, b in zip(self.classes, right, all_of, strict=True)]
        return csv_text(["class", "pictures", "right", "accuracy"], rows)


@torch.no_grad()
def tally(
    logits_of: Callable[[Tensor], Tensor], batches: Iterable[tuple[Tensor, Tensor]], classes: int
) -> tuple[Tensor, Tensor]:
    """Sum the cross-entropy over `batches` of pixels and labels, and count the confusion matrix (classes, classes)."""
    loss = torch.zeros((), dtype=torch.float64, device="cpu")
    confusion = torch.zeros(classes, classes, dtype=torch.int64, device="cpu")
    for pixels, labels in batches:
        logits = logits_of(pixels).float().cpu()
        loss += F.cross_entropy(logits, labels, reduction="sum")
        places = labels * classes + logits.argmax(1)
        confusion += torch.bincount(places, minlength=classes**2).reshape(classes, classes)
    return loss, confusion
