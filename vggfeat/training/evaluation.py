"""How well a network classifies: loss, accuracy, per class, and what is taken for what."""

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vggfeat.features.tensors import values


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The outcome over some pictures. `confusion[a, b]` counts those of class a that were taken for b."""

    classes: tuple[str, ...]
    loss: float
    confusion: Tensor

    @property
    def accuracy(self) -> float:
        """The share of pictures whose class was found, from 0 to 1."""
        return int(self.confusion.diagonal().sum()) / max(1, int(self.confusion.sum()))

    @property
    def class_accuracy(self) -> dict[str, float]:
        """The same for the pictures of each class."""
        right, all_of = values(self.confusion.diagonal()), values(self.confusion.sum(1))
        return {name: a / max(1, b) for name, a, b in zip(self.classes, right, all_of, strict=True)}

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "loss": self.loss,
            "accuracy": self.accuracy,
            "class_accuracy": self.class_accuracy,
            "confusion": values(self.confusion),
        }

    def confusion_csv(self) -> str:
        """The matrix as CSV: a row a true class, a column a found one."""
        rows = [[name, *counts] for name, counts in zip(self.classes, values(self.confusion), strict=True)]
        return csv_text(["", *self.classes], rows)

    def classes_csv(self) -> str:
        """A row a class: how many pictures, how many of them right, and their share."""
        right, all_of = values(self.confusion.diagonal()), values(self.confusion.sum(1))
        accuracy = self.class_accuracy
        rows = [[name, b, a, f"{accuracy[name]:.6f}"] for name, a, b in zip(self.classes, right, all_of, strict=True)]
        return csv_text(["class", "pictures", "right", "accuracy"], rows)


@torch.no_grad()
def tally(
    logits_of: Callable[[Tensor], Tensor], batches: Iterable[tuple[Tensor, Tensor]], classes: int
) -> tuple[Tensor, Tensor]:
    """The summed loss and the confusion matrix over `batches` of pixels and labels: a number, (classes, classes)."""
    loss, confusion = torch.zeros((), dtype=torch.float64), torch.zeros(classes, classes, dtype=torch.int64)
    for pixels, labels in batches:
        logits = logits_of(pixels).float().cpu()
        loss += F.cross_entropy(logits, labels, reduction="sum")
        places = labels * classes + logits.argmax(1)
        confusion += torch.bincount(places, minlength=classes**2).reshape(classes, classes)
    return loss, confusion


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A CSV file as text, with one kind of line ends on every system."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()
