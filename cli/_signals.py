"""Ctrl-C and requests to terminate: save first, then exit with the conventional code."""

import importlib
import signal
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any

import click

from ._progress import tell

# SIGHUP, which Windows does not have, comes when a remote shell loses its connection.
_TERMINATING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Terminated(KeyboardInterrupt):
    """The process was asked to end by `number`, SIGTERM or SIGHUP. Handled as Ctrl-C is."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextmanager
def _handling(handlers: Mapping[signal.Signals, Any]) -> Generator[None]:
    """Install signal handlers inside the block. Outside the main thread, where Python has none, do nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def load_torch() -> None:
    """Import torch. Until that is done, Ctrl-C ends the process at once.

    An exception that Python's handler raises inside torch's C++ start would end the process by abort().
    """
    ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    with _handling({} if ignored else {signal.SIGINT: signal.SIG_DFL}):
        importlib.import_module("torch")


@contextmanager
def uninterrupted() -> Generator[None]:
    """Ignore signals inside the block, which is short and saves long work."""
    with _handling(dict.fromkeys((signal.SIGINT, *_TERMINATING), signal.SIG_IGN)):
        yield


@contextmanager
def terminating() -> Generator[None]:
    """Raise `Terminated` when the process is asked to end. A signal that is ignored, as by nohup, stays ignored."""

    def end(number: int, _frame: object) -> None:
        raise Terminated(number)

    with _handling({number: end for number in _TERMINATING if signal.getsignal(number) != signal.SIG_IGN}):
        yield


def _exit(error: KeyboardInterrupt) -> click.exceptions.Exit:
    """The conventional exit code: 128 plus the signal's number, so 130 after Ctrl-C and 143 after SIGTERM."""
    return click.exceptions.Exit(128 + (error.number if isinstance(error, Terminated) else signal.SIGINT))


@contextmanager
def saving(save: Callable[[], bool]) -> Generator[None]:
    """If the block is interrupted or fails, call `save`, which returns whether there was anything to save.

    Ctrl-C and requests to terminate then exit with the conventional code; errors propagate.
    """
    try:
        with terminating():
            yield
    except BaseException as error:
        with uninterrupted():
            saved = save()
        if not isinstance(error, KeyboardInterrupt):
            raise
        if not saved:
            tell("interrupted before there was anything to save")
        raise _exit(error) from None


@contextmanager
def exiting(message: str) -> Generator[None]:
    """If the block is interrupted, print `message` and exit with the conventional code."""
    try:
        with terminating():
            yield
    except KeyboardInterrupt as error:
        tell(message)
        raise _exit(error) from None


@contextmanager
def stop_requests(*, terminating: bool) -> Generator[Callable[[], int | None]]:
    """Yield a function that returns the exit code for the first Ctrl-C or request to end, None before one.

    The block can then finish its step before it exits. A second signal acts as usual. `terminating`: handle SIGTERM and
    SIGHUP in the same way; otherwise they end the process at once.
    """
    received: list[int] = []

    def receive(number: int, _frame: object) -> None:
        received.append(number)
        for each, handler in before.items():
            signal.signal(each, handler)

    asked = (signal.SIGINT, *_TERMINATING) if terminating else (signal.SIGINT,)
    numbers = [each for each in asked if signal.getsignal(each) != signal.SIG_IGN]
    before = {number: signal.getsignal(number) for number in numbers}
    with _handling(dict.fromkeys(numbers, receive)):
        yield lambda: 128 + received[0] if received else None
