"""Train a network: epoch by epoch, step by step, yielding progress; resumable at any step."""

import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from vggfeat import files
from vggfeat.errors import InputError, RecipeError, VggfeatError
from vggfeat.features import tensors
from vggfeat.features.device import (
    Precision,
    choose_device,
    choose_precision,
    describe,
    is_out_of_memory,
    resolve_precision,
    settings,
)
from vggfeat.networks import network as networks
from vggfeat.networks.network import VGG
from vggfeat.training import processes, randomness
from vggfeat.training.augment import DRAWS, augment
from vggfeat.training.build import build_network, build_optimiser
from vggfeat.training.checkpoint import check_resumable, read_checkpoint, run_folder, write_checkpoint
from vggfeat.training.data import load_data
from vggfeat.training.dataset import Data, Report
from vggfeat.training.evaluation import Evaluation, tally
from vggfeat.training.recipe import TrainingRecipe
from vggfeat.training.report import COLUMNS, METRICS, metrics_csv, write_report

BEST = "best.safetensors"
LAST = "last.safetensors"

# Number of steps between two agreements on a checkpoint. Agreeing makes the processes wait for each other.
_AGREE = 16

# Independent streams of random numbers. Dropout adds the rank of the process to its own.
_ORDER, _AUGMENT, _DROPOUT = 1, 2, 3


@dataclass(frozen=True, slots=True)
class TrainingProgress:
    """The state of a run after a step. Epochs and steps count from 1; `seconds` is the time since the run began.

    `loss` and `accuracy` are means over this epoch's training pictures so far. Reading them waits for the device;
    nothing else does. `evaluation` is that of the held-out pictures, at the end of each epoch, and None before.
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
        """Mean cross-entropy."""
        return float(self.sums[0] / self.sums[2])

    @property
    def accuracy(self) -> float:
        """Share of pictures classified correctly, from 0 to 1."""
        return float(self.sums[1] / self.sums[2])


class Training:
    """A training run. Iterate over it for `TrainingProgress`; `result()` runs it to the end and returns the network.

    `model` is the network in its current state, `best` the evaluation of the best epoch so far, `history` the values of
    `report.COLUMNS` for each epoch. `save()` writes a checkpoint at once.
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
        self.precision, self.dtype = choose_precision(precision, device), resolve_precision(precision, device)
        self.history: list[dict[str, float]] = []
        self.best: Evaluation | None = None
        self._interval = checkpoint_seconds
        self._layout = torch.channels_last if channels_last else torch.contiguous_format
        self._batches = count_batches(len(data.train), recipe.batch_size)
        self._kind: Literal["none", "shift", "photo"] = data.augment if recipe.augment == "auto" else recipe.augment
        self.model = build_network(recipe, data).to(device)
        self.model.to(memory_format=self._layout)
        frozen = [f"features.{layer.index}" for layer in recipe.frozen_layers()]
        for name in frozen:
            self.model.get_submodule(name).requires_grad_(requires_grad=False)
        self._optimiser = build_optimiser(self.model, recipe)
        self._scaler = torch.amp.GradScaler(device.type, enabled=self.dtype == torch.float16)
        self._epoch = self._step = self._waited = 0
        self._before = 0.0
        # MPS has no float64.
        self._sums = torch.zeros(3, dtype=torch.float32 if device.type == "mps" else torch.float64, device=device)
        if checkpoint is not None:
            self._restore(checkpoint)
        self._trained = processes.spread(self.model)
        self._frozen = [self.model.get_submodule(name) for name in frozen]
        self._began = time.monotonic()
        self._progress = self._run()

    def __iter__(self) -> Iterator[TrainingProgress]:
        return self._progress

    def result(self) -> VGG:
        """Run to the end and return the network of the best epoch, in evaluation mode, on the CPU."""
        for _ in self._progress:
            pass
        return networks.load(self.output / BEST)

    @property
    def seconds(self) -> float:
        """The time that the run has taken, without the time between a kill and a resume."""
        return self._before + time.monotonic() - self._began

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files."""
        return processes.rank() == 0

    def _run(self) -> Iterator[TrainingProgress]:
        saved = time.monotonic()
        while self._epoch < self.recipe.epochs and not self._stopped():
            order = self.order(self._epoch)
            for pictures, labels, number in self._shares(order):
                rate = self.recipe.rate(self._epoch + (self._step + 1) / self._batches)
                with _conditions(self.device, self.precision, self.recipe.batch_size):
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
        """Whether to write a checkpoint now. Several processes follow the first one."""
        due = time.monotonic() - saved >= self._interval
        if processes.count() == 1:
            return due
        return self._step % _AGREE == 0 and processes.from_first(due)

    def _stopped(self) -> bool:
        return bool(self.recipe.patience) and self._waited >= self.recipe.patience

    def order(self, epoch: int) -> Tensor:
        """The indices of the training pictures in the order of an epoch, (N,)."""
        return torch.randperm(
            len(self.data.train), device="cpu", generator=randomness.generator(self.recipe.seed, _ORDER, epoch)
        )

    def _shares(self, order: Tensor) -> Generator[tuple[Tensor, Tensor, int]]:
        """For each remaining batch of the epoch: this process's augmented pictures and labels, and the batch's size."""
        generator = randomness.generator(self.recipe.seed, _AUGMENT, self._epoch)
        draws = torch.rand(len(order), DRAWS, device="cpu", generator=generator)
        wholes = [
            order[start : start + self.recipe.batch_size]
            for start in range(0, self._batches * self.recipe.batch_size, self.recipe.batch_size)
        ][self._step :]
        mine = [whole[processes.rank() :: processes.count()] for whole in wholes]
        batches = self.data.train.batches(tensors.values(share) for share in mine)
        for whole, share, (pixels, labels) in zip(wholes, mine, batches, strict=True):
            changed = augment(self._to_device(pixels), self._to_device(draws[share]), self._kind, self.data.size)
            yield changed, self._to_device(labels), len(whole)

    def _learn(self, pictures: Tensor, labels: Tensor, number: int, rate: float) -> None:
        """Take one optimisation step. `number` is the size of the batch over all processes."""
        self._trained.train()
        for module in self._frozen:
            module.eval()
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        self._optimiser.zero_grad()
        x = self.model.normalise(pictures).contiguous(memory_format=self._layout)
        stream, step = _DROPOUT + processes.rank(), self._epoch * self._batches + self._step
        with randomness.seeded(self.device, self.recipe.seed, stream, step):
            with self._autocast():
                logits = self._trained(x)
            loss = F.cross_entropy(logits.float(), labels, reduction="sum", label_smoothing=self.recipe.label_smoothing)
        # DistributedDataParallel averages gradients over processes; the gradient of the batch's mean is wanted.
        scaled = self._scaler.scale(loss * (processes.count() / number))
        scaled.backward()
        self._scaler.step(self._optimiser)
        self._scaler.update()
        right = (logits.detach().argmax(1) == labels).sum()
        self._sums[:2] += torch.stack([loss.detach().to(self._sums.dtype), right.to(self._sums.dtype)])
        self._sums[2] += len(labels)

    def _autocast(self) -> AbstractContextManager[object]:
        if self.dtype == torch.float32:
            return tensors.without_autocast(self.device.type)
        return torch.autocast(self.device.type, dtype=self.dtype)

    def _to_device(self, x: Tensor) -> Tensor:
        """Copy to the device. A blocking copy would wait until the GPU has done all its work."""
        return x.to(self.device, non_blocking=self.device.type == "cuda")

    def _report(
        self, rate: float, evaluation: Evaluation | None = None, sums: Tensor | None = None
    ) -> TrainingProgress:
        epoch, step = (self._epoch, self._batches) if evaluation else (self._epoch + 1, self._step)
        return TrainingProgress(
            epoch=epoch,
            epochs=self.recipe.epochs,
            step=step,
            steps=self._batches,
            seconds=self.seconds,
            learning_rate=rate,
            sums=(self._sums if sums is None else sums).clone(),
            evaluation=evaluation,
        )

    def _end_epoch(self, rate: float) -> TrainingProgress:
        """Evaluate, save the network if it is the best so far, and write a checkpoint."""
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
        # Patience counts from the last better accuracy, whatever the loss does.
        self._waited = 0 if self.best is None or evaluation.accuracy > self.best.accuracy else self._waited + 1
        means = progress.loss, progress.accuracy, evaluation.loss, evaluation.accuracy
        self.history.append(dict(zip(COLUMNS, (self._epoch, *means, rate, self.seconds), strict=True)))
        self._sums.zero_()
        if better:
            self.best = evaluation
            if self.first:
                # Before the checkpoint: a run killed in between writes the same file again.
                networks.save(self.model, self.output / BEST, source=self._source())
        if self.first:
            files.write(self.output / METRICS, metrics_csv(self.history))
        self.save()
        return progress

    def evaluate(self) -> Evaluation:
        """Classify the held-out pictures with the network in its current state."""
        self._trained.eval()

        def logits_of(pixels: Tensor) -> Tensor:
            plain = augment(self._to_device(pixels), None, "none", self.data.size)
            with self._autocast():
                return self.model(self.model.normalise(plain).contiguous(memory_format=self._layout))

        mine = range(processes.rank(), len(self.data.held_out), processes.count())
        size = max(1, self.recipe.batch_size)
        batches = self.data.held_out.batches(mine[start : start + size] for start in range(0, len(mine), size))
        with _conditions(self.device, self.precision, size):
            loss, confusion = tally(logits_of, batches, len(self.data.classes))
        loss, confusion = processes.total(loss, self.device), processes.total(confusion, self.device)
        return Evaluation(self.data.classes, float(loss) / max(1, int(confusion.sum())), confusion)

    def save(self) -> None:
        """Write a checkpoint, from which a killed run continues exactly. Every process must call it."""
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
        write_checkpoint(self.output, content)

    def _restore(self, checkpoint: Mapping[str, Any]) -> None:
        check_resumable(checkpoint, self.recipe, self.data, self.output)
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
        """Write the network of the last epoch and the report."""
        if not self.first or self.best is None:
            return
        networks.save(self.model, self.output / LAST, source=self._source())
        network = self.model.network.name
        machine = {**describe(self.device), "precision": self.precision}
        write_report(self.output, self.recipe, self.data, self.history, self.best, network=network, machine=machine)


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
    """Train a VGG to classify pictures.

    Args:
        data: `digits`, `stl10`, or a folder of pictures (see `load_data`); or a `Data`.
        output: folder for `best.safetensors`, `last.safetensors`, `checkpoint.pt`, and at the end metrics.csv,
            classes.csv, confusion.csv, report.json and charts. It is made if it does not exist.
        recipe: what to train and how. None trains configuration A.
        resume: continue from the checkpoint in `output`, if there is one. On a CPU the result is exactly that of an
            uninterrupted run: order, augmentation and dropout are functions of the seed, the epoch and the step.
        device: `auto` (CUDA, else MPS, else the CPU; under `torchrun` the process's own) or a torch device.
        precision: of the forward and backward pass; weights stay float32. `auto` is bfloat16 where that is faster.
            float16 scales the loss.
        channels_last: use torch's channels_last memory layout.
        checkpoint_seconds: seconds between checkpoints within an epoch; 0 writes one after every step. There is always
            one at the end of an epoch.
        report: called with the number of decoded pictures and their total while a folder is read.

    Several processes, joined by `processes.join()` or by the caller, divide each batch among them. Loss and batch
    normalisation are those of one process with the whole batch. If the last batch of an epoch has fewer pictures than
    processes, or fewer than two, it is skipped.

    Raises `InputError`, `RecipeError`, `LayerError`, `WeightsError`, `ImageError`.

    >>> import tempfile
    >>> recipe = TrainingRecipe(network="4,M,8", size=8, epochs=1, batch_size=512)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run = train("digits", folder, recipe, device="cpu")
    ...     for progress in run:  # one after each step
    ...         done = progress.step, progress.steps
    ...     network = run.result()
    >>> done, network.classes[:3], len(run.history)
    ((3, 3), ('0', '1', '2'), 1)
    """
    recipe = TrainingRecipe() if recipe is None else recipe
    folder = Path(output)
    place = choose_device(device) if processes.count() == 1 or device != "auto" else _own_device()
    with run_folder(folder), torch.device("cpu"):  # pictures stay on the processor, whatever the default device is
        checkpoint = processes.from_first(read_checkpoint(folder, resume=resume) if processes.rank() == 0 else None)
        if not isinstance(data, Data):
            waits = str(data) == "stl10" and processes.rank() > 0
            if waits:
                processes.from_first(None)  # wait until the first process has downloaded it
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
    with torch.device("cpu"):
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


def _own_device() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def count_batches(pictures: int, size: int) -> int:
    """The number of batches of an epoch. The last one needs a picture for each process, and at least two.

    Raises `InputError` for too few pictures.
    """
    rest = pictures % size
    batches = pictures // size + (rest >= max(2, processes.count()))
    if not batches:
        raise InputError(f"{pictures} pictures are too few to train on: {max(2, processes.count())} are needed")
    return batches


@contextmanager
def _conditions(device: torch.device, precision: str, batch: int) -> Generator[None]:
    """Enable gradients and compute repeatably in `precision`, whatever the caller has set.

    Names the batch size if memory runs out.
    """
    try:
        with torch.inference_mode(mode=False), torch.enable_grad(), settings(device, precision, deterministic=True):
            yield
    except (MemoryError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise VggfeatError(f"out of memory with a batch of {batch}: choose a smaller batch size") from error
        raise
