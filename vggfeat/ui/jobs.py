"""Who is at work for which page, so that a job can be stopped, and ends when its page goes."""

import threading
from collections.abc import Generator
from contextlib import contextmanager


class Job:
    """One run for one page. `stopped`: its picture is wanted as it stands. `gone`: nobody waits for it."""

    def __init__(self) -> None:
        self.stopped = False
        self.gone = False

    @property
    def over(self) -> bool:
        """Whether to end at the next step."""
        return self.stopped or self.gone


class Jobs:
    """The jobs of all pages. A page is known by its session."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._running: dict[str, list[Job]] = {}

    @contextmanager
    def begin(self, session: str) -> Generator[Job]:
        """A job for a page, while it lasts."""
        job = Job()
        with self._guard:
            self._running.setdefault(session, []).append(job)
        try:
            yield job
        finally:
            with self._guard:
                left = [other for other in self._running[session] if other is not job]
                if left:
                    self._running[session] = left
                else:
                    del self._running[session]

    def stop(self, session: str) -> bool:
        """End what runs for a page, and keep what it came to. Returns whether anything runs."""
        jobs = self._of(session)
        for job in jobs:
            job.stopped = True
        return bool(jobs)

    def leave(self, session: str) -> None:
        """End what runs for a page that is gone."""
        for job in self._of(session):
            job.gone = True

    @property
    def running(self) -> int:
        """How many jobs run."""
        with self._guard:
            return sum(map(len, self._running.values()))

    def _of(self, session: str) -> list[Job]:
        with self._guard:
            return list(self._running.get(session, ()))
