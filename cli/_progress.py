"""Progress on standard error: a bar on a terminal, lines elsewhere."""

import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from vggfeat.transfer.loop import Progress

# Least seconds between updates: reading a loss waits for the device.
_INTERVAL = 0.2

# Least seconds between lines where there is no terminal.
_LINE_INTERVAL = 60.0


def tell(line: str) -> None:
    """Print a line on standard error. If nobody can read it, go on."""
    with suppress(OSError):
        click.echo(line, err=True)


def on_terminal() -> bool:
    """Whether standard error is a terminal. A process may have been started without one."""
    return sys.stderr is not None and sys.stderr.isatty()


@contextmanager
def bar(
    description: str, *, quiet: bool, total: float | None = None, unit: bool = True
) -> Generator[Callable[..., None]]:
    """Show a bar on a terminal unless `quiet`; yield a function that takes `completed`, `total` and `description`.

    Where there is no terminal, print a line a minute. `unit`: show a count such as 3/10 instead of a percentage.
    """
    if quiet or not on_terminal():
        yield _nothing if quiet else _minutely(description, total, unit=unit)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    amount = MofNCompleteColumn() if unit else TaskProgressColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), amount, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as shown:
        task = shown.add_task(description, total=total)

        def update(**changes: Any) -> None:
            shown.update(task, **changes)

        yield update


def _minutely(description: str, total: float | None, *, unit: bool) -> Callable[..., None]:
    """A function that keeps what a bar would show, and prints it once a minute."""
    state: dict[str, Any] = {"description": description, "total": total, "completed": 0}
    told = time.monotonic()

    def update(**changes: Any) -> None:
        nonlocal told
        state.update(changes)
        if time.monotonic() - told >= _LINE_INTERVAL:
            told = time.monotonic()
            tell(_state(**state, unit=unit))

    return update


def _state(*, description: str, total: float | None, completed: float, unit: bool) -> str:
    if total is None:
        return f"{description}: {completed:g}"
    share = f"{completed:g} of {total:g}" if unit else f"{completed / max(total, 1e-9):.0%}"
    return f"{description}: {share}"


def _nothing(**_changes: Any) -> None:
    """Update no bar."""


def report(run: "Iterable[Progress]", *, quiet: bool) -> "Iterator[Progress]":
    """Pass on a painting's progress, and show it unless `quiet`: in a bar, or a line for each stage."""
    if quiet:
        return iter(run)
    return _bar(run) if on_terminal() else _lines(run)


def _bar(run: "Iterable[Progress]") -> "Iterator[Progress]":
    with bar("reading the pictures", quiet=False, total=1.0, unit=False) as update:
        shown = 0.0
        for progress in run:
            if time.monotonic() - shown > _INTERVAL or progress.done == 1:
                size = f"{progress.image.shape[3]}x{progress.image.shape[2]}"
                text = f"stage {progress.stage}/{progress.stages}  {size}  loss {progress.losses['total']:.3g}"
                update(description=text, completed=progress.done)
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
