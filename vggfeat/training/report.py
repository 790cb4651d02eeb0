"""The tables and charts that a training run writes."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from PIL import Image

from vggfeat import files
from vggfeat.explore import plots
from vggfeat.features import tensors
from vggfeat.pictures import images
from vggfeat.training.dataset import Data
from vggfeat.training.evaluation import Evaluation
from vggfeat.training.recipe import TrainingRecipe

METRICS = "metrics.csv"
COLUMNS = ("epoch", "loss", "accuracy", "held_out_loss", "held_out_accuracy", "learning_rate", "seconds")
"""The values that a run's history keeps for each epoch."""

_MOST_BARS = 200

History = Sequence[Mapping[str, float]]


def metrics_csv(history: History) -> str:
    """A CSV table with a row for each epoch."""
    return files.csv_text(COLUMNS, [[_number(epoch[column]) for column in COLUMNS] for epoch in history])


def write_report(
    folder: Path,
    recipe: TrainingRecipe,
    data: Data,
    history: History,
    best: Evaluation,
    *,
    network: str,
    machine: Mapping[str, str],
) -> None:
    """Write metrics.csv, classes.csv, confusion.csv, report.json, curves.png, confusion.png and classes.png.

    `machine` is what `device.describe` says, with the precision.
    """
    summary = {
        "data": data.name,
        "classes": list(data.classes),
        "training_pictures": len(data.train),
        "held_out_pictures": len(data.held_out),
        "skipped": data.skipped,
        "recipe": recipe.as_dict(),
        "network": network,
        "machine": {**machine},
        "best": best.as_dict(),
        "history": history,
    }
    files.write(folder / METRICS, metrics_csv(history))
    files.write(folder / "classes.csv", best.classes_csv())
    files.write(folder / "confusion.csv", best.confusion_csv())
    files.write(folder / "report.json", json.dumps(summary, indent=1) + "\n")
    for name, picture in _charts(history, best):
        images.write_picture(folder / name, images.from_pil(picture).rgb)


def _charts(history: History, best: Evaluation) -> Iterable[tuple[str, Image.Image]]:
    def curves(column: str, title: str) -> Image.Image:
        lines = {
            "training": [epoch[column] for epoch in history],
            "held out": [epoch[f"held_out_{column}"] for epoch in history],
        }
        return plots.line_chart(lines, x=[epoch["epoch"] for epoch in history], title=title, x_label="epoch")

    yield "curves.png", plots.beside(curves("loss", "Loss"), curves("accuracy", "Accuracy"))
    counts = best.confusion
    yield (
        "confusion.png",
        plots.matrix_chart(
            tensors.values(counts / counts.sum(1, keepdim=True).clamp_min(1)),
            best.classes,
            best.classes,
            numbers=tensors.values(counts),
            title=f"{best.accuracy:.2%} of {int(counts.sum())} held-out pictures",
            row_label="class",
            column_label="predicted",
            low=0.0,
            high=1.0,
        ),
    )
    if len(best.classes) <= _MOST_BARS:
        yield "classes.png", plots.bar_chart(best.class_accuracy, title="Accuracy by class", high=1.0)


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else f"{value:.6g}"
