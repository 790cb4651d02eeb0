"""Reading a dump: opening it, random rows, and an epoch of a shuffled DataLoader, against numpy's memory map.

    python benchmarks/reading.py [--quick] [--pictures 300000] [--rows 20000] [--rounds 5] [--out FOLDER]

The dump has one array of 64 float32 values for each picture, in shards of 2048, and a manifest in CSV. Its values are
random and its files are written as `vggfeat.dump` writes them, without a network. `numpy memmap` reads the same values
from one `.npy` file; its rows are taken by one index array, as those of the dump are. `DataLoader` yields batches of
256 from `array.dataset()`, or from a data set that indexes the memory map, in this process. Memory is what opening adds
to a fresh process that has imported everything. All files are in the system's cache. What the two read is compared
first.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from measuring import Found, Work, command, markdown, mebibytes, median, paired, race, ratio, spread, timer
from PIL import Image
from torch.utils.data import DataLoader, Dataset

import vggfeat
from vggfeat import open_dump
from vggfeat.dumps.manifest import ManifestEntry
from vggfeat.dumps.store import Store
from vggfeat.explore import plots

SETTINGS = {"pictures": (300_000, 3_000), "rows": (20_000, 500), "rounds": (5, 1)}

ARRAY, WIDTH, SHARD, BATCH = "relu1_1.mean", 64, 2048, 256
ROWS, EPOCH = "random rows", "DataLoader(shuffle=True), an epoch"
DUMP, MAP = "vggfeat", "numpy memmap"
OPEN = "open_dump"
CONTENDERS = (OPEN, *(f"{kind}: {name}" for kind in (ROWS, EPOCH) for name in (DUMP, MAP)))

# The folder of the files, for the processes that measure memory.
_FOLDER = "VGGFEAT_READING"


def make_dump(folder: Path, pictures: int) -> None:
    """Write a dump of `pictures` random rows to `folder`/dump, and the same rows to `folder`/rows.npy."""
    Image.new("RGB", (32, 32)).save(folder / "one.png")
    options = {"network": "vgg11", "weights": None, "resize": 32, "workers": 0, "device": "cpu"}
    run = dict(vggfeat.dump(folder / "one.png", folder / "one", layers="relu1_1", reduce="mean", **options).run)
    shards = -(-pictures // SHARD)
    run["fingerprint"] |= {"inputs": {"count": pictures, "sha256": ""}, "shard_size": SHARD}
    run["shards"] = shards
    store = Store(folder / "dump")
    store.create()
    store.write_run(run)
    values = np.random.default_rng(0).random((pictures, WIDTH), dtype=np.float32)
    np.save(folder / "rows.npy", values)
    for number in range(shards):
        here = range(number * SHARD, min((number + 1) * SHARD, pictures))
        files = store.shard(number)
        files.append(f"{ARRAY}/{number:06}.npy", values[here.start : here.stop])
        files.finish([_entry(place, number) for place in here], {})
    store.write_manifest(shards, "csv")


def _entry(place: int, shard: int) -> ManifestEntry:
    name = f"{place // 1000:04}/{place:08}.jpg"
    return ManifestEntry(name, f"/data/{name}", f"{place:064x}", 110_000, "ok", "", shard, place % SHARD, 32, 32)


class Mapped(Dataset[torch.Tensor]):
    """The rows of a memory map, one by one, as a user would write it."""

    def __init__(self, rows: npt.NDArray[np.float32]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(self._rows[index].copy())


def epoch(data: Dataset[Any]) -> int:
    """Read every row once, in random order; returns the number of batches."""
    generator = torch.Generator().manual_seed(0)
    return sum(1 for _ in DataLoader(data, BATCH, shuffle=True, generator=generator))


def build(name: str, settings: SimpleNamespace) -> Work:
    """A contender that opens its files itself."""
    folder = Path(os.environ[_FOLDER])
    if name == OPEN:
        return partial(open_dump, folder / "dump")
    chosen = np.random.default_rng(1).integers(0, settings.pictures, settings.rows)
    ours = name.endswith(DUMP)
    rows: Any = open_dump(folder / "dump")[ARRAY] if ours else np.load(folder / "rows.npy", mmap_mode="r")
    if name.startswith(ROWS):
        return lambda: rows[chosen]
    return partial(epoch, rows.dataset() if ours else Mapped(rows))


@contextmanager
def made(settings: SimpleNamespace) -> Iterator[None]:
    """The files, for as long as the context lasts."""
    with tempfile.TemporaryDirectory() as folder:
        make_dump(Path(folder), settings.pictures)
        os.environ[_FOLDER] = folder
        yield


def compare(settings: SimpleNamespace) -> None:
    """Hold the rows of the dump to those of the memory map."""
    ours, theirs = (np.asarray(build(f"{ROWS}: {name}", settings)()) for name in (DUMP, MAP))
    if not np.array_equal(ours, theirs):
        raise SystemExit("the dump's rows are not those of the memory map")


def measure(settings: SimpleNamespace) -> dict[str, Any]:
    """Seconds of each contender in each round."""
    compare(settings)
    contenders = {name: build(name, settings) for name in CONTENDERS}
    return {
        "seconds": race(contenders, settings.rounds, timer(settings)),
        "peak_mib": dict.fromkeys(CONTENDERS[:2]),
    }


def table(found: Found) -> str:
    """A row a contender."""
    seconds, settings = found["seconds"], found["settings"]
    count = {ROWS: settings["rows"], EPOCH: settings["pictures"]}
    rows: list[list[str]] = []
    for name in CONTENDERS:
        kind = name.partition(":")[0]
        peer = None if name == OPEN or name.endswith(MAP) else paired(seconds[f"{kind}: {MAP}"], seconds[name])
        per_second = f"{count[kind] / median(seconds[name]):,.0f}" if kind in count else ""
        rows.append([name, spread(seconds[name]), per_second, ratio(peer), mebibytes(found["peak_mib"].get(name))])
    about = f"{settings['pictures']:,} pictures of {WIDTH} values; {settings['rows']:,} random rows.\n\n"
    return about + markdown(["", "seconds", "rows/s", "times memmap's speed", "memory"], rows)


def chart(found: Found) -> Image.Image:
    """Seconds as bars."""
    bars = {name: median(found["seconds"][name]) for name in CONTENDERS}
    return plots.bar_chart(bars, title="Opening and reading a dump", x_label="seconds", width=760)


def main() -> None:
    """Measure within the folder of the files, which memory is measured in too."""
    command(__doc__, "reading", SETTINGS, build=build, measure=measure, table=table, chart=chart, around=made)


if __name__ == "__main__":
    main()
