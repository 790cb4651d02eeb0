"""How a run shows itself: a bar on a terminal, one line a stage elsewhere. On standard error."""

import signal
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from vggfeat.transfer.run import Progress

# Reading a loss waits for the device, and a terminal shows no more than this: seconds between two looks.
_INTERVAL = 0.2


def tell(line: str) -> None:
    """Print a line on standard error. That nobody can read it ends no run."""
    with suppress(OSError):
        click.echo(line, err=True)


@contextmanager
def uninterrupted() -> Generator[None]:
    """Let no Ctrl-C end what is done inside: it takes a moment, and keeps what took long."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class _Terminated(BaseException):
    """A request to end: what was begun is given up in order, as for Ctrl-C."""


@contextmanager
def terminable(message: str) -> Generator[None]:
    """End by convention, with `message`: 130 after Ctrl-C, 143 when terminated."""

    def end(_number: int, _frame: object) -> None:
        raise _Terminated

    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, end) if main else None
    try:
        yield
    except (KeyboardInterrupt, _Terminated) as error:
        tell(message)
        code = signal.SIGINT if isinstance(error, KeyboardInterrupt) else signal.SIGTERM
        raise click.exceptions.Exit(128 + code) from None
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)


def report(run: "Iterable[Progress]", *, quiet: bool) -> "Iterator[Progress]":
    """Pass on a run's progress, showing it unless `quiet`."""
    if quiet:
        return iter(run)
    # A process may be started without a standard error.
    on_terminal = sys.stderr is not None and sys.stderr.isatty()  # pyright: ignore[reportUnnecessaryComparison]
    return _bar(run) if on_terminal else _lines(run)


def _bar(run: "Iterable[Progress]") -> "Iterator[Progress]":
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("looking at the pictures", total=1.0)
        shown = 0.0
        for progress in run:
            if time.monotonic() - shown > _INTERVAL or progress.done == 1:
                size = f"{progress.image.shape[3]}x{progress.image.shape[2]}"
                text = f"stage {progress.stage}/{progress.stages}  {size}  loss {progress.losses['total']:.3g}"
                bar.update(task, description=text, completed=progress.done)
                shown = time.monotonic()
            yield progress


def _lines(run: "Iterable[Progress]") -> "Iterator[Progress]":
    last = None
    for progress in run:
        if last is not None and progress.stage != last.stage:
            tell(_line(last))
        last = progress
        yield progress
    if last is not None:
        tell(_line(last))


def _line(progress: "Progress") -> str:
    height, width = progress.image.shape[2:]
    losses = progress.losses
    terms = ", ".join(f"{name} {value:.3g}" for name, value in losses.items() if name != "total")
    return (
        f"stage {progress.stage}/{progress.stages}: {width}x{height}, {progress.step} steps, "
        f"{progress.seconds:.1f} s, loss {losses['total']:.4g} ({terms})"
    )
