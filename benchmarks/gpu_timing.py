"""Times and memory of work on a device, for `on_cuda.py`. Contenders take turns.

A time is the median over the rounds of the time between two CUDA events, after a warm-up.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vggfeat import read_picture

ASSETS = Path(__file__).parents[1] / "assets/images"
DTYPES = {"float32": torch.float32, "tf32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
Work = Callable[[], object]


class Clock:
    """Seconds that the device works: between two CUDA events, or on the wall clock where there are none."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def __call__(self, work: Work, calls: int) -> float:
        """Seconds a call."""
        if self.device.type != "cuda":
            began = time.perf_counter()
            for _ in range(calls):
                work()
            return (time.perf_counter() - began) / calls
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(self.device)
        first.record()
        for _ in range(calls):
            work()
        last.record()
        torch.cuda.synchronize(self.device)
        return first.elapsed_time(last) / 1e3 / calls


class Bench(NamedTuple):
    """The device, how much to do, and when to stop."""

    device: torch.device
    small: bool
    deadline: float
    rounds: int = 5

    def pick(self, full: Any, small: Any) -> Any:
        """The amount of work: `small` with `--quick` and on a CPU."""
        return small if self.small else full

    def race(self, contenders: Mapping[str, Callable[[], Work]]) -> dict[str, dict[str, Any]]:
        """{name: seconds and peak memory of a call}; contenders are built first, and take turns.

        One that fails, for example for want of memory, is told with its error.
        """
        clock, ready, found = Clock(self.device), {}, {}
        for name, build in contenders.items():
            try:
                work = build()
                work()  # libraries choose their algorithms
                before = self.allocated()
                taken = clock(work, 1)
                ready[name] = work, max(1, min(50, int(self.pick(0.05, 0) / max(taken, 1e-6))))
                found[name] = {"peak_mib": self.peak_mib(before)}
            except Exception as error:  # noqa: BLE001 (told, so that the others are still measured)
                found[name] = told(error)
        seconds: dict[str, list[float]] = {name: [] for name in ready}
        for turn in range(self.pick(self.rounds, 1)):
            if turn and time.monotonic() > self.deadline:
                break
            for name, (work, calls) in ready.items():
                seconds[name].append(clock(work, calls))
        return {name: {"seconds": seconds.get(name, []), **told} for name, told in found.items()}

    def allocated(self) -> int | None:
        """Bytes that tensors take on the device now, from where `peak_mib` counts; None on a CPU."""
        if self.device.type != "cuda":
            return None
        torch.cuda.reset_peak_memory_stats(self.device)
        return torch.cuda.memory_allocated(self.device)

    def peak_mib(self, before: int | None) -> float | None:
        """The most that was taken since, on top of `before`."""
        return None if before is None else (torch.cuda.max_memory_allocated(self.device) - before) / 2**20

    def images(self, count: int, side: int) -> Tensor:
        """Noise in [0, 1], (count, 3, side, side), the same each time."""
        return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0)).to(self.device)

    def photograph(self, name: str, side: int) -> Tensor:
        """A bundled picture, cut to a square and scaled to `side`: (1, 3, side, side)."""
        rgb = read_picture(ASSETS / name).rgb
        least = min(rgb.shape[2:])
        scaled = F.interpolate(rgb[..., :least, :least], (side, side), mode="bilinear", antialias=True)
        return scaled.clamp(0, 1).to(self.device)


def told(error: Exception) -> dict[str, Any]:
    """An error as a result: its kind and its first line."""
    return {"error": f"{type(error).__name__}: {error}".splitlines()[0][:300]}


def seconds(found: Mapping[str, Any]) -> float | None:
    """The median of what a contender took."""
    return statistics.median(found["seconds"]) if found.get("seconds") else None


def precisions(bench: Bench) -> list[str]:
    """Those that `FeatureExtractor` knows and that are worth timing on the device."""
    if bench.device.type != "cuda":
        return ["float32"]
    capable = torch.cuda.get_device_capability(bench.device) >= (8, 0)
    return ["float32", "tf32", "float16", "bfloat16"] if capable else ["float32", "float16"]


def half_name(bench: Bench) -> str:
    """The half precision that people choose on this device."""
    return "bfloat16" if bench.small or "bfloat16" in precisions(bench) else "float16"


def half(bench: Bench) -> torch.dtype:
    """The same as a dtype."""
    return DTYPES[half_name(bench)]


class Exact:
    """TF32 allowed or not, for products and convolutions, while a contender of torch's own works."""

    def __init__(self, work: Work, *, tf32: bool) -> None:
        self.work, self.setting = work, "tf32" if tf32 else "ieee"

    def __call__(self) -> object:
        """The work under the setting."""
        places = torch.backends.cuda.matmul, torch.backends.cudnn.conv
        before = [place.fp32_precision for place in places]
        for place in places:
            place.fp32_precision = self.setting
        try:
            return self.work()
        finally:
            for place, setting in zip(places, before, strict=True):
                place.fp32_precision = setting
