"""The runs in progress for each open page, so that a page can stop its own, and a closed page's runs end."""

import threading
from collections.abc import Generator
from contextlib import contextmanager


class PageRun:
    """One run for one page.

    `stopped`: the user asked to stop and keep the current picture. `abandoned`: the page was closed.
    """

    def __init__(self) -> None:
        self.stopped = False
        self.abandoned = False

    @property
    def ending(self) -> bool:
        """Whether the run should end at its next step."""
        return self.stopped or self.abandoned


class PageRuns:
    """The runs of all pages. A page is identified by its session."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: list[tuple[str, PageRun]] = []

    @contextmanager
    def begin(self, session: str) -> Generator[PageRun]:
        """Register a run for a page while the context lasts."""
        run = PageRun()
        with self._lock:
            self._running.append((session, run))
        try:
            yield run
        finally:
            with self._lock:
                self._running.remove((session, run))

    def stop(self, session: str) -> bool:
        """Stop a page's runs and keep their results. Returns whether there were any."""
        runs = self._of(session)
        for run in runs:
            run.stopped = True
        return bool(runs)

    def abandon(self, session: str) -> None:
        """End the runs of a page that was closed."""
        for run in self._of(session):
            run.abandoned = True

    @property
    def running(self) -> int:
        """The number of runs in progress."""
        with self._lock:
            return len(self._running)

    def _of(self, session: str) -> list[PageRun]:
        with self._lock:
            return [run for owner, run in self._running if owner == session]
