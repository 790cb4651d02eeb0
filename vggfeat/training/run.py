"""Run a recipe: epoch by epoch, step by step, yielding progress; resumable at any step."""

import hashlib
import json
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from vggfeat import files
from vggfeat.errors import InputError, RecipeError, VggfeatError
from vggfeat.explore import plots
from vggfeat.features import tensors
from vggfeat.features.device import Precision, choose_device, resolve_precision
from vggfeat.networks import network as networks
from vggfeat.networks import weights as weights_table
from vggfeat.networks.network import VGG
from vggfeat.pictures import images
from vggfeat.training import processes
from vggfeat.training.augment import DRAWS, augment
from vggfeat.training.data import Data, Report, load_data
from vggfeat.training.evaluation import Evaluation, csv_text, tally
from vggfeat.training.recipe import TrainingRecipe

CHECKPOINT = "checkpoint.pt"
BEST = "best.safetensors"
LAST = "last.safetensors"
METRICS = "metrics.csv"

_COLUMNS = ("epoch", "loss", "accuracy", "held_out_loss", "held_out_accuracy", "learning_rate", "seconds")

# What a resumed run may have changed: how long it goes on.
_MAY_CHANGE = ("epochs", "patience")

# Steps from one time that processes agree on a checkpoint to the next: each makes them wait for one another.
_AGREE = 16


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands after a step. Epochs and steps count from 1; `seconds` since the run began.

    Reading `loss` and `accuracy`, the means over this epoch's training pictures so far, waits for the device; nothing
    else does. `evaluation` is that of the held-out pictures, once at the end of each epoch.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    seconds: float
    learning_rate: float
    sums: Tensor = field(repr=False)
    evaluation: Evaluation | None = None

    @property
    def loss(self) -> float:
        """The mean loss."""
        return float(self.sums[0] / self.sums[2])

    @property
    def accuracy(self) -> float:
        """The share of pictures whose class was found."""
        return float(self.sums[1] / self.sums[2])


class Training:
    """A run of a recipe. Iterate over it for `Progress`; `result()` runs what is left and returns the network.

    `model` is the network as it stands, `best` the evaluation of the epoch whose network is kept, `history` a row an
    epoch. `save()` writes a checkpoint at once.
    """

    def __init__(
        self,
        data: Data,
        recipe: TrainingRecipe,
        output: Path,
        *,
        device: torch.device,
        precision: Precision,
        channels_last: bool,
        checkpoint_seconds: float,
        checkpoint: Mapping[str, Any] | None,
    ) -> None:
        self.data, self.recipe, self.output = data, recipe, output
        self.device = device
        self.dtype = resolve_precision(precision, device)
        self.history: list[dict[str, float]] = []
        self.best: Evaluation | None = None
        self._interval = checkpoint_seconds
        self._layout = torch.channels_last if channels_last else torch.contiguous_format
        self._batches = count_batches(len(data.train), recipe.batch_size)
        self._kind: Literal["none", "shift", "photo"] = data.augment if recipe.augment == "auto" else recipe.augment
        self.model = _build(recipe, data).to(device)
        self.model.to(memory_format=self._layout)  # pyright: ignore[reportCallIssue] (torch's stubs lack it)
        frozen = [f"features.{layer.index}" for layer in recipe.frozen_layers()]
        for name in frozen:
            self.model.get_submodule(name).requires_grad_(requires_grad=False)
        self._optimiser = _optimiser(self.model, recipe)
        self._scaler = torch.amp.GradScaler(device.type, enabled=self.dtype == torch.float16)
        self._epoch = self._step = self._waited = 0
        self._before = 0.0
        self._sums = torch.zeros(3, dtype=torch.float64, device="cpu" if device.type == "mps" else device)
        if checkpoint is not None:
            self._restore(checkpoint)
        self._trained = processes.spread(self.model)
        self._frozen = [self.model.get_submodule(name) for name in frozen]
        self._began = time.monotonic()
        self._progress = self._run()

    def __iter__(self) -> Iterator[Progress]:
        return self._progress

    def result(self) -> VGG:
        """Run to the end; return the best network of all epochs, in evaluation mode, on the CPU."""
        for _ in self._progress:
            pass
        return networks.load(self.output / BEST)

    @property
    def seconds(self) -> float:
        """How long the run has taken, without the time between a kill and a resume."""
        return self._before + time.monotonic() - self._began

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return processes.rank() == 0

    def _run(self) -> Iterator[Progress]:
        saved = time.monotonic()
        while self._epoch < self.recipe.epochs and not self._stopped():
            order = self.order(self._epoch)
            for pictures, labels, number in self._shares(order):
                rate = self.recipe.rate(self._epoch + (self._step + 1) / self._batches)
                with _settings(self.device, self.recipe.batch_size):
                    self._learn(pictures, labels, number, rate)
                self._step += 1
                if self._step < self._batches:
                    if self._due(saved):
                        self.save()
                        saved = time.monotonic()
                    yield self._report(rate)
            yield self._end_epoch(self.recipe.rate(self._epoch + 1))
            saved = time.monotonic()
        self._finish()

    def _due(self, saved: float) -> bool:
        """Whether a checkpoint is to be written; several processes agree about it now and then."""
        due = time.monotonic() - saved >= self._interval
        if processes.count() == 1:
            return due
        return self._step % _AGREE == 0 and processes.from_first(due)

    def _stopped(self) -> bool:
        return bool(self.recipe.patience) and self._waited >= self.recipe.patience

    def order(self, epoch: int) -> Tensor:
        """The training pictures in the order of an epoch."""
        generator = torch.Generator().manual_seed(_mix(self.recipe.seed, 1, epoch))
        return torch.randperm(len(self.data.train), generator=generator)

    def _shares(self, order: Tensor) -> Generator[tuple[Tensor, Tensor, int]]:
        """What is left of the epoch: the augmented share of each batch that is this process's, and the batch's size."""
        generator = torch.Generator().manual_seed(_mix(self.recipe.seed, 2, self._epoch))
        draws = torch.rand(len(order), DRAWS, generator=generator)
        wholes = [
            order[start : start + self.recipe.batch_size]
            for start in range(0, self._batches * self.recipe.batch_size, self.recipe.batch_size)
        ][self._step :]
        mine = [whole[processes.rank() :: processes.count()] for whole in wholes]
        batches = self.data.train.batches(tensors.values(share) for share in mine)
        for whole, share, (pixels, labels) in zip(wholes, mine, batches, strict=True):
            changed = augment(pixels.to(self.device), draws[share], self._kind, self.data.size)
            yield changed, labels.to(self.device), len(whole)

    def _learn(self, pictures: Tensor, labels: Tensor, number: int, rate: float) -> None:
        """One step of the optimiser; `number` is the size of the batch over all processes."""
        self._trained.train()
        for module in self._frozen:
            module.eval()
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        self._optimiser.zero_grad()
        x = self.model.normalise(pictures).contiguous(memory_format=self._layout)
        # Dropout's numbers depend on the seed and the step alone, so that a resumed run draws the same ones.
        with _seeded(
            _mix(self.recipe.seed, 3 + processes.rank(), self._epoch * self._batches + self._step), self.device
        ):
            with self._autocast():
                logits = self._trained(x)
            loss = F.cross_entropy(logits.float(), labels, reduction="sum", label_smoothing=self.recipe.label_smoothing)
        # The processes' gradients are averaged: the sum over all pictures, divided by their number, is what is meant.
        scaled = self._scaler.scale(loss * (processes.count() / number))
        scaled.backward()  # pyright: ignore[reportUnknownMemberType] (untyped upstream)
        self._scaler.step(self._optimiser)
        self._scaler.update()
        right = (logits.detach().argmax(1) == labels).sum()
        self._sums += torch.stack([loss.detach().double(), right.double(), right.new_tensor(len(labels)).double()]).to(
            self._sums.device
        )

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32)

    def _report(self, rate: float, evaluation: Evaluation | None = None, sums: Tensor | None = None) -> Progress:
        epoch, step = (self._epoch, self._batches) if evaluation else (self._epoch + 1, self._step)
        return Progress(
            epoch=epoch,
            epochs=self.recipe.epochs,
            step=step,
            steps=self._batches,
            seconds=self.seconds,
            learning_rate=rate,
            sums=(self._sums if sums is None else sums).clone(),
            evaluation=evaluation,
        )

    def _end_epoch(self, rate: float) -> Progress:
        """Evaluate, keep the network if it is the best, and write a checkpoint."""
        sums = processes.total(self._sums.clone(), self.device)
        if not sums.isfinite().all():
            raise RecipeError(
                f"the loss is not finite in epoch {self._epoch + 1}: a learning rate below "
                f"{self.recipe.learning_rate:g}, or batch normalisation, may help"
            )
        evaluation = self.evaluate()
        self._epoch, self._step = self._epoch + 1, 0
        progress = self._report(rate, evaluation, sums)
        better = self.best is None or (evaluation.accuracy, -evaluation.loss) > (self.best.accuracy, -self.best.loss)
        # Waiting counts from the last better accuracy: a loss that still creeps down is not worth waiting for.
        self._waited = 0 if self.best is None or evaluation.accuracy > self.best.accuracy else self._waited + 1
        row = (self._epoch, progress.loss, progress.accuracy, evaluation.loss, evaluation.accuracy, rate, self.seconds)
        self.history.append(dict(zip(_COLUMNS, row, strict=True)))
        self._sums.zero_()
        if better:
            self.best = evaluation
            if self.first:
                # Before the checkpoint: a run killed between the two makes the same file again.
                networks.save(self.model, self.output / BEST, source=self._source())
        if self.first:
            files.write(self.output / METRICS, self.metrics_csv())
        self.save()
        return progress

    def evaluate(self) -> Evaluation:
        """Classify the held-out pictures with the network as it stands."""
        self._trained.eval()

        def logits_of(pixels: Tensor) -> Tensor:
            plain = augment(pixels.to(self.device), None, "none", self.data.size)
            with self._autocast():
                return self.model(self.model.normalise(plain).contiguous(memory_format=self._layout))

        mine = range(processes.rank(), len(self.data.held_out), processes.count())
        size = max(1, self.recipe.batch_size)
        batches = self.data.held_out.batches(mine[start : start + size] for start in range(0, len(mine), size))
        with _settings(self.device, size):
            loss, confusion = tally(logits_of, batches, len(self.data.classes))
        loss, confusion = processes.total(loss, self.device), processes.total(confusion, self.device)
        return Evaluation(self.data.classes, float(loss) / max(1, int(confusion.sum())), confusion)

    def metrics_csv(self) -> str:
        """A row an epoch: loss and accuracy of the training and the held-out pictures, learning rate, seconds."""
        return csv_text(_COLUMNS, [[_number(row[column]) for column in _COLUMNS] for row in self.history])

    def save(self) -> None:
        """Write a checkpoint: all that a killed run needs to go on exactly. Atomic. Every process calls it."""
        sums = processes.total(self._sums.clone(), self.device)
        if not self.first:
            return
        content = {
            "recipe": self.recipe.as_dict(),
            "data": self.data.fingerprint,
            "skipped": self.data.skipped,
            "model": self.model.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "scaler": self._scaler.state_dict(),
            "epoch": self._epoch,
            "step": self._step,
            "waited": self._waited,
            "sums": sums,
            "seconds": self.seconds,
            "history": self.history,
            "best": self.best and {"loss": self.best.loss, "confusion": self.best.confusion},
        }
        # By a stream: torch would write the name of the file into it, and equal runs would differ.
        with files.replacing(self.output / CHECKPOINT) as unfinished, unfinished.open("wb") as file:
            torch.save(content, file)

    def _restore(self, checkpoint: Mapping[str, Any]) -> None:
        before, now = checkpoint["recipe"], self.recipe.as_dict()
        if changed := [key for key in now if key not in _MAY_CHANGE and before.get(key) != now[key]]:
            key = changed[0]
            raise RecipeError(
                f"the run in '{self.output}' began with {key.replace('_', ' ')} {before.get(key)!r}, not {now[key]!r}: "
                "resume it with its own options, or begin in another folder"
            )
        if checkpoint["data"] != self.data.fingerprint:
            raise InputError(
                f"the pictures of '{self.data.name}' are not those that the run in '{self.output}' began with"
            )
        self.model.load_state_dict(checkpoint["model"])
        self._optimiser.load_state_dict(checkpoint["optimiser"])
        self._scaler.load_state_dict(checkpoint["scaler"])
        self._epoch, self._step, self._waited = checkpoint["epoch"], checkpoint["step"], checkpoint["waited"]
        if self.first:
            self._sums.copy_(checkpoint["sums"])
        self._before = checkpoint["seconds"]
        self.history = list(checkpoint["history"])
        if best := checkpoint["best"]:
            self.best = Evaluation(self.data.classes, best["loss"], best["confusion"])

    def _source(self) -> str:
        return f"trained on {self.data.name}, epoch {self._epoch}"

    def _finish(self) -> None:
        """Write the last network and what there is to know about the run."""
        if not self.first:
            return
        networks.save(self.model, self.output / LAST, source=self._source())
        write_report(self)


def write_report(training: Training) -> None:
    """Write metrics.csv, classes.csv, confusion.csv, report.json and the pictures curves.png and confusion.png."""
    history, best, output = training.history, training.best, training.output
    if best is None:
        return
    texts = {
        METRICS: training.metrics_csv(),
        "classes.csv": best.classes_csv(),
        "confusion.csv": best.confusion_csv(),
        "report.json": json.dumps(
            {
                "data": training.data.name,
                "classes": list(training.data.classes),
                "training_pictures": len(training.data.train),
                "held_out_pictures": len(training.data.held_out),
                "skipped": training.data.skipped,
                "recipe": training.recipe.as_dict(),
                "network": training.model.network.name,
                "best": best.as_dict(),
                "history": history,
            },
            indent=1,
        )
        + "\n",
    }
    for name, text in texts.items():
        files.write(output / name, text)
    for name, picture in _pictures(training, best).items():
        images.write_picture(output / name, images.from_pil(picture).rgb)


def _pictures(training: Training, best: Evaluation) -> dict[str, Image.Image]:
    history = training.history
    epochs = [row["epoch"] for row in history]

    def curves(column: str, title: str) -> Image.Image:
        lines = {
            "training": [row[column] for row in history],
            "held out": [row[f"held_out_{column}"] for row in history],
        }
        return plots.line_chart(lines, x=epochs, title=title, x_label="epoch")

    counts = best.confusion
    found = {
        "curves.png": plots.beside(curves("loss", "Loss"), curves("accuracy", "Accuracy")),
        "confusion.png": plots.matrix_chart(
            tensors.values(counts / counts.sum(1, keepdim=True).clamp_min(1)),
            training.data.classes,
            training.data.classes,
            numbers=tensors.values(counts),
            title=f"{best.accuracy:.2%} of {int(counts.sum())} held-out pictures",
            row_label="is",
            column_label="taken for",
            low=0.0,
            high=1.0,
        ),
    }
    if len(training.data.classes) <= 200:
        found["classes.png"] = plots.bar_chart(best.class_accuracy, title="Accuracy by class", high=1.0)
    return found


def train(
    data: Data | str | PathLike[str],
    output: str | PathLike[str],
    recipe: TrainingRecipe | None = None,
    *,
    resume: bool = False,
    device: str = "auto",
    precision: Precision = "auto",
    channels_last: bool = True,
    checkpoint_seconds: float = 60.0,
    report: Report | None = None,
) -> Training:
    """Train a VGG to tell classes of pictures apart.

    Args:
        data: `digits`, `stl10`, or a folder of pictures (see `load_data`); or such data itself.
        output: folder for the networks `best.safetensors` and `last.safetensors`, `checkpoint.pt`, and at the end
            metrics.csv, classes.csv, confusion.csv, report.json and charts. It is made if need be.
        recipe: what is trained and how; the default one trains configuration A.
        resume: go on from the checkpoint in `output`, if there is one. On a CPU the outcome is exactly that of a run
            which was never stopped: the order of the pictures, their augmentation and dropout are functions of the
            seed, the epoch and the step, so that no generator's state has to be kept.
        device: `auto` (CUDA, else MPS, else the CPU) or a torch device; that of this process under `torchrun`.
        precision: of the network's arithmetic while the weights stay float32; `auto` takes bfloat16 where the device
            is fast at it; float16 scales the gradients.
        channels_last: compute in torch's channels_last layout.
        checkpoint_seconds: a checkpoint is written that long after the last one, and at the end of each epoch; 0
            writes one after every step.
        report: is told how the looking at the pictures of a folder goes.

    Several processes, joined by `processes.join()` or by you, each take their share of every batch; the batch, the loss
    and batch normalisation are those of one process with the whole batch. A remainder of the pictures that does not
    give each process one (or one process two) is left out of the epoch.

    Raises `InputError`, `RecipeError`, `LayerError`, `WeightsError`, `ImageError`.
    """
    recipe = TrainingRecipe() if recipe is None else recipe
    folder = Path(output)
    place = choose_device(device) if processes.count() == 1 or device != "auto" else _own_device()
    with _folder(folder):
        checkpoint = None
        if processes.rank() == 0:
            checkpoint = _checkpoint(folder, resume=resume)
            for rest in filter(Path.is_file, folder.glob(f"{files.PREFIX}*")):  # of a killed run
                rest.unlink(missing_ok=True)
        checkpoint = processes.from_first(checkpoint)
        if not isinstance(data, Data):
            waits = str(data) == "stl10" and processes.rank() > 0
            if waits:
                processes.from_first(None)  # until the first process has downloaded it
            found = load_data(
                data,
                size=recipe.size,
                held_out=recipe.held_out,
                seed=recipe.seed,
                skip=None if checkpoint is None else checkpoint["skipped"],
                report=report,
            )
            if str(data) == "stl10" and not waits:
                processes.from_first(None)
            data = found
        if len(set(processes.from_all(data.fingerprint))) > 1:
            raise InputError(f"the processes do not see the same pictures of '{data.name}'")
    return Training(
        data,
        recipe,
        folder,
        device=place,
        precision=precision,
        channels_last=channels_last,
        checkpoint_seconds=checkpoint_seconds,
        checkpoint=checkpoint,
    )


@contextmanager
def _folder(folder: Path) -> Generator[None]:
    """Make the folder of a run, and take it away again where it stays empty since the run cannot begin."""
    made = not folder.exists()
    with _explained(f"cannot write into '{folder}'"):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        if made:
            with suppress(OSError):
                folder.rmdir()
        raise


def _own_device() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def _checkpoint(folder: Path, *, resume: bool) -> Mapping[str, Any] | None:
    """What the folder's checkpoint holds. Raises `InputError` where it may not be overwritten or cannot be read."""
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    if not resume:
        raise InputError(f"'{folder}' holds a run: resume it, or name another folder")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load lets through whatever unpickling and unzipping raise
        raise InputError(f"the checkpoint '{path}' cannot be read ({type(error).__name__}): delete it") from error
    return cast("Mapping[str, Any]", content)


def _build(recipe: TrainingRecipe, data: Data) -> VGG:
    """The network at the start of a run, with the preprocessing that belongs to it."""
    row = recipe.row()
    model = networks.vgg(
        row,
        head=recipe.head,
        num_classes=len(data.classes),
        hidden=recipe.hidden,
        dropout=recipe.dropout,
        init=recipe.init,
        seed=recipe.seed,
    )
    model.classes, model.size, model.resize = data.classes, data.size, data.train.side
    if not recipe.source:
        model.mean, model.std = data.train.mean_std()
        return model
    features, known = weights_table.load(row.name, recipe.source)
    model.mean, model.std = known.mean, known.std
    model.load_state_dict(features, strict=False)
    if path := weights_table.file_of(recipe.source):
        other = networks.load(path, row.name)
        if (other.head, other.classes, other.hidden) == (model.head, model.classes, model.hidden):
            model.classifier.load_state_dict(other.classifier.state_dict())
    return model


def _optimiser(model: nn.Module, recipe: TrainingRecipe) -> torch.optim.Optimizer:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in trained if parameter.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [parameter for parameter in trained if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    if recipe.optimiser == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.learning_rate)
    return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=recipe.momentum)


def count_batches(pictures: int, size: int) -> int:
    """Batches of an epoch. Batch normalisation needs two pictures, and every process one."""
    rest = pictures % size
    batches = pictures // size + (rest >= max(2, processes.count()))
    if not batches:
        raise InputError(f"{pictures} pictures are too few to train on: {max(2, processes.count())} are needed")
    return batches


def _mix(*numbers: int) -> int:
    """One seed of several numbers, each of which changes all of it."""
    digest = hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


@contextmanager
def _seeded(seed: int, device: torch.device) -> Generator[None]:
    """Draw from `seed` inside, and leave torch's own generators as they were."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):  # pyright: ignore[reportUnknownMemberType] (untyped upstream)
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            torch.cuda.manual_seed(seed)
        yield


@contextmanager
def _settings(device: torch.device, batch: int) -> Generator[None]:
    """What a step needs whatever the caller has set: gradients, and results that repeat."""
    repeatable = (
        torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=torch.backends.cudnn.allow_tf32
        )
        if device.type == "cuda"
        else nullcontext()
    )
    try:
        with torch.inference_mode(mode=False), torch.enable_grad(), repeatable:
            yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error):
            raise VggfeatError(f"out of memory with a batch of {batch}: choose a smaller batch size") from error
        raise


@contextmanager
def _explained(what: str) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{what}: {files.reason(error)}") from error


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else f"{value:.6g}"
