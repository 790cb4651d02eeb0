"""Computes shards in several processes of this machine, one for each device.

A process is sent its job and its tasks, and answers with receipts. It exits when its input ends, so none outlives a
killed run.
"""

import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Generator, Sequence
from contextlib import suppress
from queue import SimpleQueue
from typing import IO, Any, cast

from vggfeat.dumps.pipeline import compute
from vggfeat.dumps.receipts import Receipt
from vggfeat.dumps.work import DumpJob, ShardTask
from vggfeat.errors import VggfeatError

Share = tuple[DumpJob, Sequence[ShardTask]]


def compute_apart(shares: Sequence[Share], workers: int) -> Generator[Receipt]:
    """Compute each share in a process of its own, which decodes in `workers` others. Yields receipts as they come.

    Raises `VggfeatError` if a process fails; the others are ended then.
    """
    found: SimpleQueue[Receipt | str] = SimpleQueue()
    processes = [_start() for _ in shares]
    threads = [
        threading.Thread(target=_talk, args=(process, share, workers, found))
        for process, share in zip(processes, shares, strict=True)
    ]
    for thread in threads:
        thread.start()
    try:
        for _ in range(sum(len(tasks) for _, tasks in shares)):
            receipt = found.get()
            if isinstance(receipt, str):
                raise VggfeatError(receipt)
            yield receipt
    finally:
        for process in processes:
            process.kill()
        for process, thread in zip(processes, threads, strict=True):
            thread.join()
            with suppress(OSError):  # a share that was not sent completely
                process.communicate()


def _start() -> subprocess.Popen[bytes]:
    code = f"import sys; sys.path[:] = {sys.path!r}; from vggfeat.dumps.processes import serve; serve()"
    return subprocess.Popen(  # noqa: S603 (this Python)
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        process_group=0 if os.name == "posix" else None,  # Ctrl-C reaches only the run, which ends its processes
    )


def _talk(process: subprocess.Popen[bytes], share: Share, workers: int, found: "SimpleQueue[Receipt | str]") -> None:
    """Send the share; put the receipts, or the error that ended the process, into `found`."""
    stdin, stdout = cast("tuple[IO[bytes], IO[bytes]]", (process.stdin, process.stdout))
    try:
        pickle.dump((*share, workers), stdin)
        stdin.flush()
        for _ in share[1]:
            found.put(pickle.load(stdout))  # noqa: S301 (pickled by `serve`)
    except (OSError, EOFError, pickle.UnpicklingError):
        found.put(f"a process of the run ended early (code {process.wait()})")


def serve() -> None:
    """Compute the share that standard input holds, and write the receipts, or an error, to standard output."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # keep what libraries print out of the answers
    share: Any = pickle.load(requests)  # noqa: S301 (pickled by `compute_apart`)
    threading.Thread(target=_exit_with, args=(requests,), daemon=True).start()
    try:
        for receipt in compute(*share):
            _answer(answers, receipt)
    except (VggfeatError, OSError) as error:
        with suppress(OSError):
            _answer(answers, str(error))


def _answer(answers: IO[bytes], answer: Receipt | str) -> None:
    pickle.dump(answer, answers)
    answers.flush()


def _exit_with(requests: IO[bytes]) -> None:
    """Exit when the input ends, because the run was killed."""
    while os.read(requests.fileno(), 1):  # `requests.read` would hold a lock that the end of the program needs
        pass
    os._exit(1)
