"""How a run shows itself: a bar on a terminal, one line a stage elsewhere. On standard error."""

import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

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


class Terminated(KeyboardInterrupt):
    """SIGTERM: what a Ctrl-C keeps, this keeps too."""


@contextmanager
def _handling(handlers: Mapping[signal.Signals, Any]) -> Generator[None]:
    """Let these signals do something else for a while; only the main thread can say so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def uninterrupted() -> Generator[None]:
    """Let no request to end break what is done inside: it takes a moment, and keeps what took long."""
    with _handling({signal.SIGINT: signal.SIG_IGN, signal.SIGTERM: signal.SIG_IGN}):
        yield


@contextmanager
def _ending() -> Generator[None]:
    """Raise `Terminated` where the process is asked to end."""

    def end(_number: int, _frame: object) -> None:
        raise Terminated

    with _handling({signal.SIGTERM: end}):
        yield


def _exit(error: KeyboardInterrupt) -> click.exceptions.Exit:
    """By convention: 130 after Ctrl-C, 143 when terminated."""
    return click.exceptions.Exit(128 + (signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT))


@contextmanager
def terminable(message: str) -> Generator[None]:
    """End by convention, with `message`, where Ctrl-C or SIGTERM ends what is done inside."""
    try:
        with _ending():
            yield
    except KeyboardInterrupt as error:
        tell(message)
        raise _exit(error) from None


@contextmanager
def keeping(keep: Callable[[], bool]) -> Generator[None]:
    """Whatever ends what is done inside, `keep` what there is, undisturbed; it says whether there was anything.

    Ctrl-C and SIGTERM end by convention, errors go on.
    """
    try:
        with _ending():
            yield
    except BaseException as error:
        with uninterrupted():
            kept = keep()
        if not isinstance(error, KeyboardInterrupt):
            raise
        if not kept:
            tell("interrupted before there was anything to save")
        raise _exit(error) from None


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
