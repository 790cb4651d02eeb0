"""Decodes pictures ahead of the network, in separate processes.

A worker is a subprocess that reads requests from standard input and answers on standard output. It exits when its
input ends, so no worker outlives a killed run. A picture that crashes its decoder fails, and the worker is replaced.
"""

import itertools
import json
import os
import struct
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, replace
from typing import IO, Any, Self, cast

import numpy as np

from vggfeat.dumps.prepare import Preparation, Prepared, prepare
from vggfeat.dumps.sources import Item, Move
from vggfeat.errors import VggfeatError

_LENGTHS = struct.Struct("<QQ")


class Decoders:
    """A context manager that prepares items in `workers` processes, or in a thread of this process if it is 0."""

    def __init__(self, how: Preparation, workers: int) -> None:
        self._how = how
        self._workers = workers
        self._idle: deque[_Worker] = deque()
        self._all: set[_Worker] = set()
        self._guard = threading.Lock()
        self._threads = ThreadPoolExecutor(max(1, workers), "decode")
        self._closed = False

    def __enter__(self) -> Self:
        # The processes start while the network is loaded.
        self._idle.extend(self._start() for _ in range(self._workers))
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        self._kill_all()
        self._threads.shutdown(cancel_futures=True)
        self._kill_all()  # a worker may have been replaced meanwhile

    def _kill_all(self) -> None:
        with self._guard:
            workers = list(self._all)
            self._all.clear()
        for worker in workers:
            worker.kill()

    def map(self, items: Iterable[Item], *, ahead: int) -> Iterator[Prepared]:
        """Prepare `items` and yield the results in order. At most `ahead` results are prepared before they are used."""
        waiting: deque[Future[Prepared]] = deque()
        source = iter(items)
        while True:
            for item in itertools.islice(source, max(1, ahead) - len(waiting)):
                waiting.append(self._threads.submit(self._prepare, item))
            if not waiting:
                return
            yield waiting.popleft().result()

    def _prepare(self, item: Item) -> Prepared:
        """Prepare one item. Runs in one of as many threads as there are workers."""
        if not self._workers:
            return prepare(item, self._how)
        worker = self._idle.popleft()
        try:
            return worker.ask(item, self._how)
        except (OSError, EOFError) as error:
            code = worker.kill()
            with self._guard:
                self._all.discard(worker)
            if self._closed:
                raise VggfeatError("the run is over") from error
            worker = self._start()
            return Prepared("", 0, None, f"cannot read '{item.place}': decoding it ended its process (code {code})")
        finally:
            self._idle.append(worker)

    def _start(self) -> "_Worker":
        worker = _Worker()
        with self._guard:
            self._all.add(worker)
        return worker


class _Worker:
    """One process. Its standard error is discarded: image libraries print warnings about files there."""

    def __init__(self) -> None:
        code = f"import sys; sys.path[:] = {sys.path!r}; from vggfeat.dumps.decoding import serve; serve()"
        environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self._process = subprocess.Popen(  # noqa: S603 (this Python)
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            process_group=0 if os.name == "posix" else None,  # Ctrl-C reaches only the run, which ends its workers
        )
        self._pipes = cast("tuple[IO[bytes], IO[bytes]]", (self._process.stdin, self._process.stdout))

    def ask(self, item: Item, how: Preparation) -> Prepared:
        stdin, stdout = self._pipes
        _send(stdin, {"item": asdict(replace(item, columns=())), "how": asdict(how)})
        about, data = _receive(stdout)
        shape = about.pop("shape")
        pixels = None if shape is None else np.frombuffer(data, np.float32).reshape(shape)
        return Prepared(pixels=pixels, **about)

    def kill(self) -> int:
        """End the process; return its exit code."""
        self._process.kill()
        code = self._process.wait()
        for pipe in self._pipes:
            with suppress(OSError):  # a request that was not sent completely
                pipe.close()
        return code


def serve() -> None:
    """Answer requests on standard input until it ends."""
    import torch

    torch.set_num_threads(1)
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # keep what libraries print out of the answers
    while True:
        try:
            content, _ = _receive(requests)
            item: dict[str, Any] = content["item"]
            how: dict[str, Any] = content["how"]
            resize: Any = how["resize"]
            how["resize"] = tuple(cast("list[int]", resize)) if isinstance(resize, list) else resize
            how["moved"] = how["moved"] and Move(**how["moved"])
            found = prepare(Item(**item), Preparation(**how))
            shape = None if found.pixels is None else found.pixels.shape
            about = {"sha256": found.sha256, "size": found.size, "error": found.error, "shape": shape}
            _send(answers, about, b"" if found.pixels is None else found.pixels.data.cast("B"))
        except (OSError, EOFError):
            return


def _send(pipe: IO[bytes], content: dict[str, Any], data: bytes | memoryview = b"") -> None:
    text = json.dumps(content).encode()
    pipe.write(_LENGTHS.pack(len(text), len(data)))
    pipe.write(text)
    pipe.write(data)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> tuple[dict[str, Any], bytes]:
    text, data = (_exactly(pipe, length) for length in _LENGTHS.unpack(_exactly(pipe, _LENGTHS.size)))
    return json.loads(text), data


def _exactly(pipe: IO[bytes], length: int) -> bytes:
    data = pipe.read(length)
    if len(data) < length:
        raise EOFError
    return data
