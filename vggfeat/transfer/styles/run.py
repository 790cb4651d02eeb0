"""Train a network of instant styles: step by step, yielding progress; resumable at any step."""

import hashlib
import math
import os
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vggfeat.errors import InputError, RecipeError, VggfeatError
from vggfeat.features.device import choose_device, is_out_of_memory, settings
from vggfeat.pictures import images, sources
from vggfeat.pictures.sources import Source
from vggfeat.training import checkpoint, randomness
from vggfeat.transfer.styles.file import InstantStyles, check_names
from vggfeat.transfer.styles.network import StyleNetwork
from vggfeat.transfer.styles.objective import StyleObjective
from vggfeat.transfer.styles.photographs import Photographs, bundled_photographs, find_photographs
from vggfeat.transfer.styles.recipe import StyleRecipe

# Independent streams of random numbers.
_SQUARES, _STYLES, _HELD_OUT = 1, 2, 3

# Squares that every evaluation paints in each style.
_EVALUATED = 2

# Fields that a resumed run may change: its length, its squares and its losses. Objectives of other losses, or of other
# squares, do not compare.
_COMPARED = ("content_layers", "style_layers", "content_weight", "style_weight", "tv_weight", "crop")
_MAY_CHANGE = ("steps", "patience", "photographs", "styles", *_COMPARED)

_BETAS = (0.9, 0.99)
_MOST_NORM = 1.0


@dataclass(frozen=True, slots=True)
class StyleProgress:
    """The state of a run after a step. Steps count from 1; `seconds` is the time since the run began.

    `terms` are the weighted means of this step's paintings. `objective` is evaluated on the same squares
    each time, and None between evaluations.
    """

    step: int
    steps: int
    seconds: float
    learning_rate: float
    terms: Mapping[str, float] = field(repr=False)
    objective: float | None = None

    @property
    def loss(self) -> float:
        """The objective of this step's paintings."""
        return sum(self.terms.values())


class StyleTraining:
    """A training run. Iterate over it for `StyleProgress`; `result()` runs it to the end.

    `network` is in its current state, `history` holds (step, objective) of each evaluation. The file is written after
    each evaluation that is the best so far, with a preview beside it. `save()` writes a checkpoint at once.
    """

    def __init__(
        self,
        network: StyleNetwork,
        pictures: Mapping[str, Tensor],
        photographs: Photographs,
        recipe: StyleRecipe,
        output: Path,
        *,
        licence: str,
        device: torch.device,
        checkpoint_seconds: float,
        found: Mapping[str, Any] | None,
    ) -> None:
        self.recipe, self.output, self.device = recipe, output, device
        self.network = network.to(device).to(memory_format=torch.channels_last)
        self.history: list[tuple[int, float]] = []
        self._photographs, self._licence, self._interval = photographs, licence, checkpoint_seconds
        self._trained = [self.network.names.index(name) for name in pictures]
        self._fingerprint = _fingerprint([*pictures.items()], photographs.paths, network)
        self._objective = StyleObjective(recipe, list(pictures.values()), device)
        parameters = [x for x in self.network.parameters() if x.requires_grad]
        self._optimiser = torch.optim.Adam(parameters, lr=recipe.learning_rate, betas=_BETAS)
        self._step = self._waited = 0
        self._best = math.inf
        self._before = 0.0
        if found is not None:
            self._restore(found)
        self._began = time.monotonic()
        self._progress = self._run()

    def __iter__(self) -> Iterator[StyleProgress]:
        return self._progress

    def result(self) -> InstantStyles:
        """Run to the end and return the styles as the file holds them."""
        for _ in self._progress:
            pass
        return InstantStyles.load(self.output)

    @property
    def step(self) -> int:
        """The steps that the run has taken."""
        return self._step

    @property
    def seconds(self) -> float:
        """The time that the run has taken, without the time between a kill and a resume."""
        return self._before + time.monotonic() - self._began

    def _run(self) -> Iterator[StyleProgress]:
        saved = time.monotonic()
        while self._step < self.recipe.steps and not self._stopped():
            rate = self.recipe.rate(self._step)
            with _conditions(self.device, self.recipe):
                terms = self._learn(rate)
            self._step += 1
            evaluated = self._step % self.recipe.evaluate_every == 0 or self._step == self.recipe.steps
            objective = self._evaluate() if evaluated else None
            if evaluated or time.monotonic() - saved >= self._interval:
                self.save()
                saved = time.monotonic()
            yield StyleProgress(self._step, self.recipe.steps, self.seconds, rate, terms, objective)
        checkpoint_path(self.output).unlink(missing_ok=True)

    def _stopped(self) -> bool:
        return bool(self.recipe.patience) and self._waited >= self.recipe.patience

    def _learn(self, rate: float) -> dict[str, float]:
        """Take one optimisation step. Returns the mean of each term."""
        recipe, seed, step = self.recipe, self.recipe.seed, self._step
        squares = self._photographs.draw(recipe.photographs, randomness.generator(seed, _SQUARES, step))
        count = min(recipe.styles, len(self._trained))
        rounds = [self._order(step * recipe.photographs * count + number) for number in range(len(squares) * count)]
        squares = squares.to(self.device).repeat_interleave(count, 0)
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        self._optimiser.zero_grad()
        content = self._objective.content(squares[::count])
        content = {name: x.repeat_interleave(count, 0) for name, x in content.items()}
        paintings = self.network(squares.contiguous(memory_format=torch.channels_last), self._mixes(rounds))
        terms = self._objective(paintings, content, rounds)
        loss = torch.stack([x.mean() for x in terms.values()]).sum()
        if not loss.isfinite():
            raise RecipeError(
                f"the loss is not finite in step {step + 1}: a learning rate below {recipe.learning_rate:g} may help"
            )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), _MOST_NORM)
        self._optimiser.step()
        return {name: float(x.detach().mean()) for name, x in terms.items()}

    def _order(self, number: int) -> int:
        """The style that painting `number` of the run has: each style once in a round, in a random order."""
        cycle, place = divmod(number, len(self._trained))
        generator = randomness.generator(self.recipe.seed, _STYLES, cycle)
        return int(torch.randperm(len(self._trained), generator=generator, device="cpu")[place])

    def _mixes(self, numbers: Sequence[int]) -> Tensor:
        """The mixes (N, S) of pure styles, given their numbers among the trained ones."""
        mixes = torch.zeros(len(numbers), len(self.network.names), device=self.device)
        for row, number in enumerate(numbers):
            mixes[row, self._trained[number]] = 1
        return mixes

    def _evaluate(self) -> float:
        """Paint the same squares in each style; keep the network if it is the best so far, and write the preview."""
        generator = randomness.generator(self.recipe.seed, _HELD_OUT)
        squares = self._photographs.draw(_EVALUATED, generator).to(self.device)
        painted: list[Tensor] = []
        values: list[float] = []
        with torch.inference_mode(mode=False), torch.no_grad(), settings(self.device, "float32", deterministic=True):
            content = self._objective.content(squares)
            for number in range(len(self._trained)):
                numbers = [number] * len(squares)
                paintings = self.network(squares, self._mixes(numbers))
                terms = self._objective(paintings, content, numbers)
                values.append(sum(float(x.mean()) for x in terms.values()))
                painted.append(paintings)
        objective = sum(values) / len(values)
        self.history.append((self._step, objective))
        self._waited = 0 if objective < self._best else self._waited + 1
        if objective < self._best:
            self._best = objective
            # Before the checkpoint: a run killed in between writes the same file again.
            InstantStyles(self.network, self._licence, self.recipe.as_dict()).save(self.output)
        images.write_picture(preview_path(self.output), _sheet([squares, *painted]).cpu())
        return objective

    def save(self) -> None:
        """Write a checkpoint, from which a killed run continues exactly."""
        content = {
            "recipe": self.recipe.as_dict(),
            "fingerprint": self._fingerprint,
            "network": self.network.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "step": self._step,
            "waited": self._waited,
            "best": self._best,
            "seconds": self.seconds,
            "history": self.history,
        }
        checkpoint.write(checkpoint_path(self.output), content)

    def _restore(self, found: Mapping[str, Any]) -> None:
        before, now = found["recipe"], self.recipe.as_dict()
        run = f"the run of '{self.output}'"
        checkpoint.check_unchanged(before, now, _MAY_CHANGE, run, "name another output")
        if found["step"] > self.recipe.steps:
            raise RecipeError(f"{run} has taken {found['step']} steps: give at least as many, not {self.recipe.steps}")
        if found["fingerprint"] != self._fingerprint:
            raise InputError(f"{run} began with other styles or photographs")
        self.network.load_state_dict(found["network"])
        self._optimiser.load_state_dict(found["optimiser"])
        self._step, self._waited, self._best = found["step"], found["waited"], found["best"]
        self._before = found["seconds"]
        self.history = [(step, objective) for step, objective in found["history"]]
        if any(before.get(key) != now[key] for key in _COMPARED):
            self._waited, self._best = 0, math.inf


def checkpoint_path(output: Path) -> Path:
    """Where the checkpoint of a run is, until the run has ended.

    >>> checkpoint_path(Path("a/my.safetensors")).as_posix()
    'a/my.checkpoint.pt'
    """
    return output.with_suffix(".checkpoint.pt")


def preview_path(output: Path) -> Path:
    """Where a run writes its preview: photographs in the first row, and a row for each style.

    >>> preview_path(Path("my.safetensors")).name
    'my.preview.png'
    """
    return output.with_suffix(".preview.png")


def train_styles(
    styles: Mapping[str, Source],
    output: str | os.PathLike[str],
    recipe: StyleRecipe | None = None,
    *,
    photographs: Sequence[str | os.PathLike[str]] = (),
    add_to: str | os.PathLike[str] | None = None,
    licence: str = "",
    resume: bool = False,
    device: str = "auto",
    checkpoint_seconds: float = 60.0,
) -> StyleTraining:
    """Train a network that paints any picture in one of several styles, or in a mix, in one pass.

    Johnson et al. (2016) with the conditional instance normalisation of Dumoulin et al. (2017). Nothing is trained
    before the first iteration.

    Args:
        styles: {name: picture}: a file, its bytes, a PIL image, an array or a tensor.
        output: the safetensors file. A checkpoint and a preview are written beside it.
        recipe: losses, steps and the size of the network; None takes the defaults.
        photographs: files and folders; by default the photographs that ship with vggfeat.
        add_to: a file of styles to add these to. Only the new scales, shifts and gates are trained, so the present
            styles stay as they are. The recipe's widths must be those of the file.
        licence: a line about the licence, for the file.
        resume: continue from the checkpoint, if there is one. On a CPU the result is exactly that of an uninterrupted
            run: squares and the order of styles are functions of the seed and the step. The number of steps, the
            patience, the squares and the layers and weights of the losses may differ from those before.
        device: `auto` (CUDA, else MPS, else the CPU) or a torch device.
        checkpoint_seconds: seconds between checkpoints; 0 writes one after every step.

    Raises `InputError`, `RecipeError`, `LayerError`, `WeightsError`, `ImageError`.

    >>> import tempfile
    >>> recipe = StyleRecipe(steps=2, crop=32, style_size=32, full=4, half=4, quarter=8, blocks=1)
    >>> style = torch.rand(1, 3, 40, 40)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run = train_styles({"noise": style}, f"{folder}/noise.safetensors", recipe, device="cpu")
    ...     run.result().names
    ('noise',)
    """
    recipe = StyleRecipe() if recipe is None else recipe
    target = Path(output)
    if not styles:
        raise InputError("there is no style to train")
    place = choose_device(device)
    found_file = checkpoint_path(target)
    if found_file.exists() and not resume:
        raise InputError(f"'{found_file}' holds a run: resume it, or name another output")
    with torch.device("cpu"), torch.inference_mode(mode=False):
        pictures = {name: _style(source, name, recipe.style_size) for name, source in styles.items()}
        if add_to is None:
            network = _new(list(pictures), recipe)
        else:
            network = _extended(InstantStyles.load(add_to), list(pictures), recipe)
        check_names(network.names)
        for name, picture in pictures.items():
            network.start_style(network.names.index(name), picture)
        paths = find_photographs(photographs) if photographs else bundled_photographs()
        return StyleTraining(
            network,
            pictures,
            Photographs(paths, recipe.crop),
            recipe,
            target,
            licence=licence,
            device=place,
            checkpoint_seconds=checkpoint_seconds,
            found=checkpoint.read(found_file) if found_file.exists() else None,
        )


def _new(names: Sequence[str], recipe: StyleRecipe) -> StyleNetwork:
    return StyleNetwork(names, recipe.widths, seed=recipe.seed)


def _extended(present: InstantStyles, names: Sequence[str], recipe: StyleRecipe) -> StyleNetwork:
    """The network of `present` with further styles; only these are trainable."""
    if twins := [name for name in names if name in present.names]:
        raise InputError(f"'{present.path}' has a style {twins[0]} already: give the new one another name")
    if present.network.widths != recipe.widths:
        raise RecipeError(
            f"'{present.path}' has the widths {present.network.widths.as_dict()}, not {recipe.widths.as_dict()}"
        )
    network = present.network.with_styles(names)
    network.freeze_shared()
    return network


def _style(source: Source, name: str, side: int) -> Tensor:
    """A style picture (1, 3, H, W) whose short side has `side` pixels."""
    picture = sources.read(source, f"the style {name}")
    height, width = picture.shape[2:]
    scale = side / min(height, width)
    return images.resize(picture, round(height * scale), round(width * scale))


def _fingerprint(pictures: Sequence[tuple[str, Tensor]], paths: Sequence[Path], network: StyleNetwork) -> str:
    """A hash of what a run starts from: styles, photographs, and the first state of the network."""
    digest = hashlib.sha256()
    for name, x in (*pictures, *network.state_dict().items()):
        digest.update(f"{name} {tuple(x.shape)}".encode())
        digest.update(x.detach().cpu().contiguous().numpy().tobytes())
    for path in paths:
        digest.update(f"{path.name} {path.stat().st_size}".encode())
    return digest.hexdigest()


def _sheet(rows: Sequence[Tensor]) -> Tensor:
    """Rows of equal pictures (N, 3, H, W) as one picture (1, 3, ...)."""
    return torch.cat([torch.cat(list(row.clamp(0, 1)), dim=2) for row in rows], dim=1)[None]


@contextmanager
def _conditions(device: torch.device, recipe: StyleRecipe) -> Generator[None]:
    """Enable gradients and compute repeatably in float32. Names what to make smaller if memory runs out."""
    try:
        with torch.inference_mode(mode=False), torch.enable_grad(), settings(device, "float32", deterministic=True):
            yield
    except (MemoryError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise VggfeatError(
                f"out of memory with {recipe.photographs} squares of {recipe.crop} pixels: choose smaller or fewer"
            ) from error
        raise
