"""Pictures per second from JPEG files to arrays on the disk: vggfeat.dump against torchvision in a plain loop.

    python benchmarks/dump.py [--quick] [--files 64] [--batch 8] [--rounds 3] [--out FOLDER]

relu3_3 of VGG-16 at 224 px, the same weights and the same files on both sides, cut from the bundled photographs at the
size that ImageNet's have. `network` is the network alone, on a batch in memory. The others are end to end: all
features (`full`, 3.2 MB a picture), or their means. They are timed between batches or shards, so that neither start
nor end count.

The plain loop is torchvision's `create_feature_extractor`, a DataLoader with as many workers as vggfeat takes, and
`numpy.save`. It runs in float32, as its users run it, and once more with channels_last and bfloat16 where the processor
is fast at that. Ratios are to the first. vggfeat's features of the first pictures must equal torchvision's.
"""

import itertools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from extraction import LAYER, LIMITS, MEAN, STD, precision_of, torchvision_extractor
from measuring import Found, Work, command, markdown, mebibytes, median, paired, ratio, spread, timed, timer
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from vggfeat import FeatureExtractor, open_dump, read_picture
from vggfeat.dumps.pipeline import decoding_workers
from vggfeat.dumps.run import Dumping
from vggfeat.explore import plots

SIDE = 224
SIZE = 500, 375  # of the JPEG files
SETTINGS = {"files": (64, 8), "batch": (8, 2), "rounds": (3, 1)}

PEER = "torchvision float32"
# Batches of one measurement: what is slow takes fewer.
BATCHES = {PEER: 4, "torchvision bfloat16, channels_last": 6, "vggfeat float32": 5, "vggfeat bfloat16": 6}
KINDS = ("network", "full", "mean")


def make_files(folder: Path, count: int) -> list[Path]:
    """Cut pictures from the bundled photographs, and save them as JPEG."""
    photographs = sorted((Path(__file__).parents[1] / "assets/images").glob("*.jpg"))
    opened = [
        Image.fromarray((read_picture(path).rgb[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8))
        for path in photographs
    ]
    opened = [image for image in opened if image.width >= SIZE[0] and image.height >= SIZE[1]]
    generator = np.random.default_rng(0)
    files: list[Path] = []
    for number in range(count):
        image = opened[number % len(opened)]
        left, top = (int(generator.integers(0, has - wants + 1)) for has, wants in zip(image.size, SIZE, strict=True))
        files.append(folder / f"{number:03}.jpg")
        image.crop((left, top, left + SIZE[0], top + SIZE[1])).save(files[-1], quality=90)
    return files


def torchvision_network(name: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """Normalised images to features in float32."""
    model = torchvision_extractor()
    if precision_of(name) == "float32":
        return lambda batch: model(batch)[LAYER]
    model = model.bfloat16().to(memory_format=torch.channels_last)
    return lambda batch: model(batch.bfloat16().contiguous(memory_format=torch.channels_last))[LAYER].float()


class Pictures(Dataset[torch.Tensor]):
    """What everybody writes; `as_floats` resizes as vggfeat does, not in 8 bits."""

    def __init__(self, files: list[Path], *, as_floats: bool = False) -> None:
        self.files = files
        convert = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
        resize = [v2.Resize(SIDE), v2.CenterCrop(SIDE)]
        self.transform = v2.Compose([*convert, *resize] if as_floats else [*resize, *convert])
        self.normalize = v2.Normalize(MEAN, STD)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> torch.Tensor:
        with Image.open(self.files[index]) as image:
            return self.normalize(self.transform(image.convert("RGB")))


def workers(settings: SimpleNamespace) -> int:
    """Processes that decode: as many as vggfeat takes; none where this one's time is measured."""
    return 0 if settings.clock == "cpu" else decoding_workers(None, 10**6, "cpu")


def loop(
    network: Callable[[torch.Tensor], torch.Tensor], files: list[Path], out: Path, kind: str, settings: SimpleNamespace
) -> Iterator[int]:
    """The plain loop: load, run, save; yields how many pictures are saved."""
    done = 0
    for number, pictures in enumerate(DataLoader(Pictures(files), settings.batch, num_workers=workers(settings))):
        with torch.inference_mode():
            features = network(pictures)
            np.save(out / f"{number:06}.npy", (features if kind == "full" else features.mean((2, 3))).numpy())
        done += len(pictures)
        yield done


def dumped(files: list[Path], out: Path, kind: str, precision: str, settings: SimpleNamespace) -> Iterator[int]:
    """vggfeat.dump of the same; yields how many pictures are saved."""
    run = Dumping(
        files,
        out,
        layers=LAYER,
        reduce=kind,
        precision=precision,
        batch_size=settings.batch,
        shard_size=settings.batch,
        workers=workers(settings),
    )
    return (progress.done for progress in run)


def rate(done: Iterator[int], total: int, clock: Callable[[], float]) -> float:
    """Pictures per second of `total`, from the first of the counts that come on to the last but one.

    vggfeat tells of a shard when the next one is computed, and of the last without any.
    """
    counts = [(count, clock()) for count in done]
    if counts[-1][0] != total:
        raise SystemExit(f"{total - counts[-1][0]} of {total} pictures are missing")
    (first, began), (last, ended) = counts[0], counts[-2]
    return (last - first) / (ended - began)


def alone(network: Callable[[torch.Tensor], object], batch: int, batches: int, clock: Callable[[], float]) -> float:
    """Pictures per second of a network on a batch in memory."""
    pictures = torch.rand(batch, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        network(pictures)
        began = clock()
        for _ in range(batches):
            network(pictures)
    return batch * batches / (clock() - began)


def network_of(name: str) -> Callable[[torch.Tensor], object]:
    """What a contender runs, alone."""
    if name.startswith("vggfeat"):
        return FeatureExtractor("vgg16", LAYER, precision=precision_of(name), check="off")
    return torchvision_network(name)


def counted(name: str, files: list[Path], out: Path, kind: str, settings: SimpleNamespace) -> Iterator[int]:
    """A contender at work from end to end."""
    if name.startswith("vggfeat"):
        return dumped(files, out, kind, precision_of(name), settings)
    return loop(torchvision_network(name), files, out, kind, settings)


def build(name: str, settings: SimpleNamespace) -> Work:
    """A contender that dumps all features of some pictures; for its memory."""

    def work() -> None:
        with tempfile.TemporaryDirectory() as folder:
            files, out = 3 * make_files(Path(folder), settings.batch), Path(folder, "out")
            out.mkdir()
            rate(counted(name, files, out, "full", settings), len(files), timer(settings))

    return work


def compare(name: str, files: list[Path], out: Path) -> None:
    """Hold what vggfeat saved to what torchvision makes of the first pictures."""
    pictures = Pictures(files, as_floats=True)
    with torch.inference_mode():
        expected = torchvision_network(PEER)(torch.stack([pictures[number] for number in range(4)])).numpy()
    error = float(np.linalg.norm(open_dump(out)[LAYER][:4] - expected) / np.linalg.norm(expected))
    if not error < LIMITS[precision_of(name)]:
        raise SystemExit(f"{name} differs from torchvision by {error:.2g} of the features' norm")


def measure(settings: SimpleNamespace) -> dict[str, Any]:
    """Pictures per second of each contender in each round, by kind of work."""
    found: dict[str, dict[str, list[float]]] = {kind: {name: [] for name in timed(BATCHES)} for kind in KINDS}
    networks = {name: network_of(name) for name in timed(BATCHES)}
    with tempfile.TemporaryDirectory() as name_of_folder:
        folder = Path(name_of_folder)
        files = make_files(folder, settings.files)
        for turn, kind in itertools.product(range(settings.rounds), KINDS):
            for name, network in networks.items():
                batches = BATCHES[name]
                if kind == "network":
                    found[kind][name].append(alone(network, settings.batch, batches // 2, timer(settings)))
                    continue
                named = list(itertools.islice(itertools.cycle(files), settings.batch * batches))
                with tempfile.TemporaryDirectory(dir=folder) as out:
                    counts = counted(name, named, Path(out), kind, settings)
                    found[kind][name].append(rate(counts, len(named), timer(settings)))
                    if not turn and kind == "full" and name.startswith("vggfeat"):
                        compare(name, named, Path(out))
    return {"pictures_per_second": found, "peak_mib": dict.fromkeys(networks)}


def table(found: Found) -> str:
    """A row a contender."""
    rates = found["pictures_per_second"]
    rows: list[list[str]] = []
    for name in rates["network"]:
        network, full, mean = (rates[kind][name] for kind in KINDS)
        rows.append(
            [
                name,
                *(spread(values) for values in (network, full, mean)),
                f"{paired(full, network):.0%}",
                f"{paired(mean, network):.0%}",
                *(ratio(paired(rates[kind][name], rates[kind][PEER])) for kind in ("full", "mean")),
                mebibytes(found["peak_mib"].get(name)),
            ]
        )
    header = ["pictures/s", *KINDS, "full/network", "mean/network", "ratio, full", "ratio, mean", "memory, full"]
    return markdown(header, rows)


def chart(found: Found) -> Image.Image:
    """Pictures per second as bars."""
    rates = found["pictures_per_second"]
    bars = {f"{name}: {kind}": median(rates[kind][name]) for name in rates["network"] for kind in KINDS}
    title = f"From JPEG to {LAYER} of VGG-16 on the disk"
    return plots.bar_chart(bars, title=title, x_label="pictures per second", width=760)


if __name__ == "__main__":
    command(__doc__, "dump", SETTINGS, build=build, measure=measure, table=table, chart=chart)
