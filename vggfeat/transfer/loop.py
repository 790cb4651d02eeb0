"""The loop of a run: stage by stage and step by step, yielding progress."""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from vggfeat.errors import RecipeError, VggfeatError
from vggfeat.features import allocation, tensors
from vggfeat.features.device import is_out_of_memory, settings
from vggfeat.features.extractor import FeatureExtractor
from vggfeat.pictures import images
from vggfeat.transfer.evaluator import Evaluator
from vggfeat.transfer.optimise import Optimiser
from vggfeat.transfer.recipe import Recipe
from vggfeat.transfer.stages import Stage
from vggfeat.transfer.tiles import Blocks

# Number of steps over which the loss must fall, if a recipe ends its stages at a plateau.
_WINDOW = 10


@dataclass(frozen=True, slots=True)
class Progress:
    """The state of a run after one step.

    Args:
        stage, stages: the current stage, from 1 on, and their number.
        step, steps: the current step of the stage, from 1 on, and their number.
        taken: steps in all stages so far; a resumed run continues counting.
        seconds: since the run began.
        done: share of the run that is done, 0 to 1.
        image: the picture so far, (1, 3, height, width) in [0, 1] at the stage's size, or the pictures of a
            visualisation. It is never overwritten.
        terms: {name: weighted value} of the objective, scalar tensors at `image`.
        note: what the run had to change, such as the size of its blocks; None if nothing.

    Example:
        >>> import torch
        >>> from vggfeat import recipe, stylize
        >>> content, style = torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32)
        >>> layers = {"content_layers": {"relu2_1": 1}, "style_layers": {"relu1_1": 1}}
        >>> small = recipe("default", network="vgg16", **layers, steps=2)
        >>> [(p.step, p.steps, p.done, sorted(p.losses)) for p in stylize(content, style, small)]
        [(1, 2, 0.5, ['content', 'style', 'total']), (2, 2, 1.0, ['content', 'style', 'total'])]
    """

    stage: int
    stages: int
    step: int
    steps: int
    taken: int
    seconds: float
    done: float
    image: Tensor
    terms: Mapping[str, Tensor] = field(repr=False)
    note: str | None = None

    @property
    def losses(self) -> dict[str, float]:
        """The weighted value of each term, and their `total`. Reading it waits for the device."""
        return as_numbers(self.terms)


def as_numbers(terms: Mapping[str, Tensor]) -> dict[str, float]:
    """The value of each of `Progress.terms`, and their `total`. Waits for the device."""
    values = {name: float(value) for name, value in terms.items()}
    return values | {"total": sum(values.values())}


class Position(NamedTuple):
    """Where a run was after its last complete step: everything that later steps depend on.

    Args:
        stage, step, taken, seconds: as in `Progress`.
        tensors: the state of the stage's optimiser.
        recent: losses of the last steps, scalars, if the recipe ends stages at a plateau.
    """

    stage: int
    step: int
    taken: int
    seconds: float
    tensors: Mapping[str, Tensor]
    recent: list[Tensor]


class Run(ABC):
    """An optimisation in progress. Iterate over it for `Progress`; `result()` runs to the end.

    Args:
        recipe: how to optimise.
        stages: the sizes and steps, from coarse to fine.
        extract: the network.
        start: the picture to start from, (1, 3, H, W) in [0, 1], of any size.
        blocks: for each stage how its picture is divided; None is not at all.
        seconds: time for all stages, above 0; None runs their steps.
        position: where to resume; None starts at the beginning.
    """

    def __init__(
        self,
        recipe: Recipe,
        stages: tuple[Stage, ...],
        extract: FeatureExtractor,
        start: Tensor,
        *,
        blocks: Sequence[Blocks | None],
        seconds: float | None,
        position: Position | None = None,
    ) -> None:
        if seconds is not None and not 0 < seconds < math.inf:
            raise RecipeError(f"seconds is {seconds:g}: it must be above 0 and finite")
        self.recipe = recipe
        self.stages = stages
        self.evaluators = [Evaluator(extract, recipe.margin, recipe.edges, each) for each in blocks]
        """The evaluator of the objective for each stage."""
        self._picture = images.resize(start, stages[0].height, stages[0].width)
        self._seconds = seconds
        self._position = position
        self._progress = self._run()

    @property
    def image(self) -> Tensor:
        """The picture so far, at any time: (1, 3, H, W) in [0, 1], on the run's device."""
        return self._picture

    @property
    def blocks(self) -> tuple[Blocks | None, ...]:
        """How the picture of each stage is divided; None where it is evaluated whole."""
        return tuple(evaluator.blocks for evaluator in self.evaluators)

    def __iter__(self) -> Iterator[Progress]:
        return self._progress

    def result(self) -> Tensor:
        """Run to the end and return the picture, (1, 3, H, W) in [0, 1], on the run's device."""
        for _ in self._progress:
            pass
        return self.image

    @abstractmethod
    def make_optimiser(self, number: int, state: Mapping[str, Tensor] | None) -> Optimiser:
        """The optimiser of stage `number`, which starts from the picture so far or resumes from `state`."""

    def _run(self) -> Iterator[Progress]:
        resumed = self._position
        began = time.monotonic() - (resumed.seconds if resumed else 0.0)
        taken, share = resumed.taken if resumed else 0, 0.0
        for number, stage in enumerate(self.stages, 1):
            if resumed and number < resumed.stage:
                share += stage.share
                continue
            # A time budget decides when a stage ends; the number of steps then only measures progress.
            deadline = None if self._seconds is None else began + self._seconds * (share + stage.share)
            step, state, recent = (resumed.step, resumed.tensors, resumed.recent) if resumed else (0, None, [])
            # A run that is resumed at its very end yields its last picture once more.
            repeat = resumed is not None and number == len(self.stages)
            resumed = None
            # The blocks of memory that the previous stage freed are too small for this one.
            allocation.release()
            evaluator = self.evaluators[number - 1]
            blocks = evaluator.blocks
            with conditions(stage, self._picture.device):
                optimiser = self.make_optimiser(number, state)
            self._picture = optimiser.image
            while (going := self._continues(stage, step, deadline, recent)) or repeat:
                repeat = False
                if going:
                    with conditions(stage, self._picture.device):
                        optimiser.step()
                    step, taken = step + 1, taken + 1
                    if self.recipe.until_plateau:
                        recent = [*recent, optimiser.evaluation.loss][-_WINDOW - 1 :]
                elapsed = time.monotonic() - began
                self._picture = optimiser.image
                self._position = Position(number, step, taken, elapsed, optimiser.state(), recent)
                done = share + stage.share * min(1.0, step / stage.steps)
                changed, blocks = evaluator.blocks != blocks, evaluator.blocks
                yield Progress(
                    stage=number,
                    stages=len(self.stages),
                    step=step,
                    steps=stage.steps if deadline is None else step,
                    taken=taken,
                    seconds=elapsed,
                    done=done if self._seconds is None else min(1.0, elapsed / self._seconds),
                    image=self.image,
                    terms=optimiser.evaluation.terms,
                    note=f"out of memory: continuing in blocks of {blocks.side} pixels" if changed and blocks else None,
                )
            if self._picture.device.type != "meta" and not optimiser.evaluation.loss.isfinite():
                raise RecipeError("the loss is not finite: the weights of the recipe or of the network are too large")
            share += stage.share

    def _continues(self, stage: Stage, step: int, deadline: float | None, recent: Sequence[Tensor]) -> bool:
        """Whether a stage takes another step: the first one, and more until its steps, its time or its progress end."""
        if step == 0:
            return True
        if len(recent) > _WINDOW:
            before = float(recent[0])
            if before - float(recent[-1]) < self.recipe.until_plateau * abs(before):
                return False
        return step < stage.steps if deadline is None else time.monotonic() < deadline


@contextmanager
def conditions(stage: Stage, device: torch.device) -> Generator[None]:
    """Compute with gradients, in our own precision and repeatably, whatever modes the caller has set.

    Converts running out of memory to a `VggfeatError` that names the size.
    """
    try:
        with (
            torch.inference_mode(mode=False),
            torch.enable_grad(),
            tensors.without_autocast(device.type),
            settings(device, "float32", deterministic=True),
        ):
            yield
    except (MemoryError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise VggfeatError(
                f"out of memory at {stage.width}x{stage.height} pixels: choose a smaller size"
            ) from error
        raise
