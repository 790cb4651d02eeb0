"""Everything that a GPU is promised to do, tested and measured by one command on any machine with an NVIDIA card.

    python benchmarks/on_cuda.py [--minutes 8] [--out benchmarks/results] [--sections rates,losses] [--quick]

The command runs the tests marked `cuda`, then its sections in order of importance, until the minutes are over:

- equality: each metric on the CPU and on the device, and one painting made twice from the same seed.
- rates: matrix products, convolutions and copies, which are the rooflines of what follows.
- losses: a step of LPIPS, DISTS and the ESRGAN loss, beside lpips, torchmetrics and the usual snippet.
- painting: a step of style transfer from 256 to 4096 px, beside a plain Gatys loop.
- extraction: relu5_3 of VGG-16, beside torchvision.
- memory: the peak of a painting step over what `vggfeat.transfer.memory` predicts, for each objective.
- dump: pictures per second from JPEG files to arrays.

Contenders take turns. A time is the median over the rounds of the time between two CUDA events, after a warm-up. The
results are written after each section, so that an interrupted run loses only the section it was in; a section that
fails leaves its error in the results. Peers that are not installed are left out. `--quick` runs every section on the
least work, to see that the command works; `--device cpu` does the same on a CPU.

This file is not called `cuda.py`, because it would hide NVIDIA's package `cuda`, which torch imports.
"""

import argparse
import json
import re
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from gpu_sections import SECTIONS, Sections
from gpu_table import table
from gpu_timing import Bench, told
from measuring import Found, described, machine, processor, rounded

from vggfeat import files

SETTINGS = {"minutes": (8.0, 8.0)}


def run_tests() -> dict[str, Any]:
    """The tests marked `cuda`: how many passed and failed, and the end of what was printed."""
    began = time.monotonic()
    command = [sys.executable, "-m", "pytest", "-q", "-m", "cuda", "-p", "no:cacheprovider"]
    ended = subprocess.run(  # noqa: S603 (this interpreter)
        command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1]
    )
    lines = ended.stdout.strip().splitlines()
    counts = {
        word: int(count)
        for count, word in re.findall(r"(\d+) (passed|failed|skipped|error)", lines[-1] if lines else "")
    }
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return {"counts": counts, "failed": failed, "code": ended.returncode, "seconds": time.monotonic() - began}


def card(device: torch.device) -> dict[str, Any] | None:
    """What the device is, and the versions that matter there."""
    if device.type != "cuda":
        return None
    told = torch.cuda.get_device_properties(device)
    return {
        "name": told.name,
        "capability": ".".join(map(str, torch.cuda.get_device_capability(device))),
        "memory_gib": round(told.total_memory / 2**30, 1),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


def folder_of(found: Found) -> str:
    """The card in short, as a folder's name: `nvidia-h100-80gb-hbm3`."""
    told = found["card"]
    return re.sub(r"[^a-z0-9]+", "-", told["name"].lower()).strip("-") if told else processor(found["machine"])


def write(out: Path | None, found: Found) -> None:
    """Keep what was found so far."""
    if out is not None:
        folder = out / folder_of(found)
        folder.mkdir(parents=True, exist_ok=True)
        files.write(folder / "on_cuda.json", (json.dumps(rounded(found), indent=1) + "\n").encode())


def main(arguments: Sequence[str] | None = None, sections: Sections = SECTIONS) -> int:
    """Test and measure. Returns the exit code: 1 if a test or a section failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8, help="start no measurement after this (default 8)")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1 or cpu (default cuda)")
    parser.add_argument("--quick", action="store_true", help="run every section on the least work, as on a CPU")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write CARD/on_cuda.json there")
    parser.add_argument("--sections", default=",".join(sections), help=f"some of {', '.join(sections)}")
    parser.add_argument("--no-tests", action="store_true", help="leave out the tests marked cuda")
    options = parser.parse_args(arguments)
    chosen = options.sections.split(",")
    if unknown := set(chosen) - set(sections):
        parser.error(f"no section '{unknown.pop()}': choose from {', '.join(sections)}")
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no CUDA device here; --device cpu tries the command")
    small = options.quick or device.type != "cuda"
    bench = Bench(device, small=small, deadline=time.monotonic() + 60 * options.minutes)
    found: dict[str, Any] = {
        "settings": {"minutes": options.minutes, **({"quick": True} if options.quick else {})},
        "machine": machine(),
        "card": card(device),
        "sections": {},
    }
    print(described(found["machine"]), found["card"] or "no card", sep="\n", flush=True)
    if not options.no_tests:
        found["tests"] = run_tests()
        print(found["tests"], flush=True)
    for name in chosen:
        if time.monotonic() > bench.deadline:
            print(f"{name}: no time left", flush=True)
            continue
        began = time.monotonic()
        try:
            found["sections"][name] = sections[name](bench)
        except Exception as error:  # noqa: BLE001 (the other sections are still worth their time)
            traceback.print_exc()
            found["sections"][name] = told(error)
        found["sections"][name]["took"] = time.monotonic() - began
        write(options.out, found)
        print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
        if device.type == "cuda":
            torch.cuda.empty_cache()
    print(table(found))
    broken = any("error" in told for told in found["sections"].values())
    return int(broken or bool(found.get("tests", {}).get("code", 0) not in (0, 5)))


if __name__ == "__main__":
    sys.exit(main())
