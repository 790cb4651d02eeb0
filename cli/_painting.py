"""Paint one picture as a command does: show the run, keep what is there whatever ends it."""

import json
import signal
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from vggfeat.transfer.recipe import Recipe

from ._files import check_spares
from ._progress import report, tell, uninterrupted

if TYPE_CHECKING:
    from torch import Tensor

    from vggfeat.images import Picture
    from vggfeat.transfer.run import Progress, Stylization


class Terminated(KeyboardInterrupt):
    """SIGTERM: what a Ctrl-C saves, this saves too."""


@contextmanager
def catching_sigterm() -> Generator[None]:
    """Raise `Terminated` where the process is asked to end."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@dataclass(kw_only=True)
class Job:
    """One picture to paint: the run, where it goes, and what is kept on the way."""

    run: "Stylization"
    content: "Picture"
    target: Path
    inputs: Sequence[Path]
    text: Mapping[str, str]
    recipe: Recipe
    save_every: int | None = None
    checkpoint: Path | None = None
    checkpoint_every: float = 60.0
    plot: Path | None = None
    quiet: bool = False
    as_json: bool = False


def paint(job: Job) -> None:
    """Run the job to its end and write the picture; write what there is where the run is ended before."""
    check_spares(job.target, job.inputs)
    progress: Progress | None = None
    losses: list[dict[str, float]] = []
    saved = time.monotonic()
    try:
        for number, progress in enumerate(report(job.run, quiet=job.quiet), 1):
            _note(job, progress, losses)
            if job.save_every and number % job.save_every == 0:
                _write(job, job.target.with_stem(f"{job.target.stem}-{number:04}"), progress.image)
            if job.checkpoint is not None and time.monotonic() - saved >= job.checkpoint_every:
                job.run.save(job.checkpoint)
                saved = time.monotonic()
    except BaseException as error:
        # Whatever ended the run, what was painted is not lost.
        if progress is not None:
            with uninterrupted():
                _keep(job, progress, losses)
        elif isinstance(error, KeyboardInterrupt):
            tell("interrupted before the first step: nothing was saved")
        if isinstance(error, KeyboardInterrupt):
            raise click.exceptions.Exit(143 if isinstance(error, Terminated) else 130) from None
        raise
    assert progress is not None  # noqa: S101 (every stage takes a step)
    with uninterrupted():
        _write(job, job.target, progress.image)
        _plot(job, losses)
        if job.checkpoint is not None:
            job.run.save(job.checkpoint)
        _tell_result(job, progress, quiet=job.quiet)


def _note(job: Job, progress: "Progress", losses: list[dict[str, float]]) -> None:
    if progress.note:
        tell(progress.note)
    if job.plot is not None:
        losses.append(progress.losses)


def _keep(job: Job, progress: "Progress", losses: Sequence[dict[str, float]]) -> None:
    height, width = progress.image.shape[2:]
    if job.checkpoint is not None:
        job.run.save(job.checkpoint)
    _write(job, job.target, progress.image)
    _plot(job, losses)
    tell(f"interrupted: '{job.target}' holds the picture after {progress.seconds:.0f} s, {width}x{height}")
    if job.checkpoint is not None:
        tell(f"--resume '{job.checkpoint}' goes on from here")
    _tell_result(job, progress, quiet=True)


def _write(job: Job, path: Path, image: "Tensor") -> None:
    """Write `image` with the content's alpha, at its size, its profile and its depth, and the text in its metadata."""
    from vggfeat import images

    check_spares(path, job.inputs)
    height, width = image.shape[2:]
    content = job.content
    alpha = None if content.alpha is None else images.resize(content.alpha, height, width)
    images.write_picture(path, image, alpha=alpha, icc=content.icc, text=job.text, bits=content.bits)


def _plot(job: Job, losses: Sequence[dict[str, float]]) -> None:
    if job.plot is None:
        return
    from vggfeat.plots import line_chart

    series = {name: [each[name] for each in losses] for name in (list(losses[-1]) if losses else [])}
    chart = line_chart(series, title=str(job.target), x_label="step", y_label="loss", log=True)
    chart.save(job.plot)


def _tell_result(job: Job, progress: "Progress", *, quiet: bool) -> None:
    if job.as_json:
        click.echo(json.dumps(_summary(job, progress), allow_nan=False))
    elif not quiet:
        click.echo(str(job.target))


def _summary(job: Job, progress: "Progress") -> dict[str, Any]:
    return {
        "output": str(job.target),
        "width": progress.image.shape[3],
        "height": progress.image.shape[2],
        "seconds": round(progress.seconds, 3),
        "losses": progress.losses,
        "blocks": list(job.run.blocks),
        "recipe": job.recipe.as_dict(),
    }
