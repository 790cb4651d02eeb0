"""What a network is trained on: folders of pictures, torchvision's STL10, scikit-learn's digits."""

import hashlib
import os
from collections import Counter, deque
from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor

from vggfeat import files
from vggfeat.errors import ImageError, InputError, VggfeatError
from vggfeat.features import tensors
from vggfeat.networks.weights import Triple, cache_dir
from vggfeat.pictures import images

Report = Callable[[int, int], None]
"""Called with how many pictures were looked at, and how many there are."""

# A set of pictures that takes no more bytes than this is decoded once and kept.
_KEPT = 4 << 30
# Pictures from which mean and deviation are taken, where not all are kept.
_SAMPLE = 1000
# What torchvision's presets have: pictures are brought to 256 pixels, of which the network reads 224.
_ROOM = 8 / 7

_TRAIN = ("train", "training")
_HELD_OUT = ("val", "valid", "validation", "test", "held_out")


@dataclass(frozen=True)
class Pictures:
    """Square pictures with their labels: kept as bytes, (N, 3, S, S), or read from `paths` each time."""

    labels: Tensor
    side: int
    kept: Tensor | None = field(default=None, repr=False)
    paths: Sequence[Path] = field(default=(), repr=False)

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, batches: Iterable[Sequence[int]]) -> Generator[tuple[Tensor, Tensor]]:
        """The bytes and the labels of each batch of indices. What is not kept is read by threads, a batch ahead."""
        if self.kept is not None:
            for indices in batches:
                rows = list(indices)
                yield self.kept[rows], self.labels[rows]
            return
        with ThreadPoolExecutor(_threads()) as pool:
            waiting: deque[tuple[list[Future[Tensor]], Tensor]] = deque()
            for indices in batches:
                waiting.append(
                    ([pool.submit(read, self.paths[index], self.side) for index in indices], self.labels[list(indices)])
                )
                if len(waiting) > 2:
                    yield _joined(*waiting.popleft())
            while waiting:
                yield _joined(*waiting.popleft())

    def mean_std(self) -> tuple[Triple, Triple]:
        """Mean and deviation of each channel, for pictures in [0, 1]; a channel without contrast deviates by 1."""
        step = 1 if self.kept is not None else max(1, len(self) // _SAMPLE)
        total, squares, count = torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64), 0
        indices = list(range(0, len(self), step))
        for pixels, _ in self.batches(indices[start : start + 64] for start in range(0, len(indices), 64)):
            unit = pixels.double() / 255
            total += unit.sum((0, 2, 3))
            squares += unit.square().sum((0, 2, 3))
            count += pixels.numel() // 3
        mean = total / count
        std = (squares / count - mean.square()).clamp_min(0).sqrt()
        std[std < 1e-3] = 1.0
        rounded = [tuple(round(float(x), 5) for x in tensors.values(each)) for each in (mean, std)]
        return cast("Triple", rounded[0]), cast("Triple", rounded[1])


@dataclass(frozen=True)
class Data:
    """Pictures to learn from and pictures held out. `size` is what the network reads of their `side`.

    `skipped` says which files could not be read, and why. `fingerprint` tells one set of data from another.
    """

    name: str
    classes: tuple[str, ...]
    train: Pictures
    held_out: Pictures
    size: int
    augment: Literal["shift", "photo"]
    fingerprint: str
    skipped: dict[str, str] = field(default_factory=dict[str, str])


def load_data(
    source: str | os.PathLike[str],
    *,
    size: int = 0,
    held_out: float = 0.2,
    seed: int = 0,
    skip: Collection[str] | None = None,
    report: Report | None = None,
) -> Data:
    """Read `digits`, `stl10`, or a folder of pictures.

    Args:
        source: `digits` (scikit-learn's, in the package), `stl10` (torchvision's, downloaded once into the cache
            folder), or a folder: `DIR/CLASS/*`, or `DIR/train/CLASS/*` and `DIR/val/CLASS/*` (also `test` and
            `validation`). Sub-folders of a class are read; hidden files, and those without the ending of a picture,
            are not.
        size: pixels a side that the network reads; 0 is 32 for digits, 96 for STL10, 224 for folders.
        held_out: share of each class that is held out where the data has no split of its own.
        seed: of that split.
        skip: files that are known to be damaged; pictures that are not kept are then not looked at again.
        report: is told how the looking goes.

    Every picture of a folder is decoded once before training begins, so that a damaged one is found then: it is named
    in `skipped` and left out. Raises `InputError` for a class without a picture and for a folder without two classes,
    `VggfeatError` where scikit-learn is missing or STL10 cannot be downloaded.
    """
    match str(source):
        case "digits":
            return _digits(size or 32, held_out, seed)
        case "stl10":
            return _stl10(size or 96, cache_dir())
        case _:
            found = _Folder(Path(source), size or 224)
            found.look(skip, report)
            return found.data(held_out, seed)


def _digits(size: int, share: float, seed: int) -> Data:
    try:
        from sklearn.datasets import load_digits  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]
    except ImportError:
        raise VggfeatError(
            'the digits are scikit-learn\'s: pip install "vggfeat[train]", or pass a folder of pictures'
        ) from None
    found = cast("Any", load_digits())
    grey = torch.from_numpy(found.images).float()[:, None] / 16  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
    pixels = _bytes(images.resize(grey, size, size)).expand(-1, 3, -1, -1).contiguous()
    labels = torch.from_numpy(found.target).long()  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
    chosen = _held_out(labels, share, seed)
    return Data(
        name="digits",
        classes=tuple(map(str, range(10))),
        train=Pictures(labels[~chosen], size, pixels[~chosen]),
        held_out=Pictures(labels[chosen], size, pixels[chosen]),
        size=size,
        augment="shift",
        fingerprint=_fingerprint([f"digits {len(labels)}", f"{size} {share} {seed}"]),
    )


def _stl10(size: int, folder: Path) -> Data:
    from torchvision.datasets import STL10  # pyright: ignore[reportMissingTypeStubs] (untyped upstream)

    def part(split: str) -> tuple[Pictures, tuple[str, ...]]:
        try:
            found = cast("Any", STL10(folder, split=split, download=not (folder / "stl10_binary").is_dir()))
        except (OSError, RuntimeError) as error:
            raise VggfeatError(
                f"STL10 could not be downloaded ({' '.join(str(error).split())}): put its stl10_binary into "
                f"'{folder}', or train on digits or a folder of pictures"
            ) from error
        pixels = torch.from_numpy(found.data)  # pyright: ignore[reportUnknownMemberType]
        if size != pixels.shape[-1]:
            parts = (pixels[start : start + 256] for start in range(0, len(pixels), 256))
            pixels = torch.cat([_bytes(images.resize(some.float() / 255, size, size)) for some in parts])
        labels = torch.from_numpy(found.labels).long()  # pyright: ignore[reportUnknownMemberType]
        return Pictures(labels, size, pixels), tuple(found.classes)

    train, classes = part("train")
    held_out, _ = part("test")
    name = _fingerprint([f"stl10 {len(train)} {len(held_out)} {size}"])
    return Data("stl10", classes, train, held_out, size, "photo", name)


class _Folder:
    """The pictures of a folder, with the number of their part (0 to learn from, 1 held out) and of their class."""

    def __init__(self, folder: Path, size: int) -> None:
        if not folder.is_dir():
            raise InputError(f"no data '{folder}': pass a folder, stl10 or digits")
        self.folder, self.size = folder, size
        self.side = round(size * _ROOM)
        pairs = ((folder / a, folder / b) for a in _TRAIN for b in _HELD_OUT)
        self.split = next((pair for pair in pairs if pair[0].is_dir() and pair[1].is_dir()), None)
        self.parts = self.split or (folder,)
        found = [_classes(part) for part in self.parts]
        self.classes = tuple(sorted(found[0]))
        if len(self.classes) < 2:
            raise InputError(
                f"'{folder}' has {len(self.classes)} class folders: a class is a folder of pictures, two are needed"
            )
        if self.split and set(found[1]) != set(self.classes):
            odd = sorted(set(found[1]) ^ set(self.classes))
            raise InputError(f"'{self.split[0]}' and '{self.split[1]}' have different classes: {', '.join(odd)}")
        self.files = [
            (path, part, label)
            for part, classes in enumerate(found)
            for label, name in enumerate(self.classes)
            for path in classes[name]
        ]
        self.pixels: list[Tensor] = []
        self.skipped: dict[str, str] = {}

    def look(self, skip: Collection[str] | None, report: Report | None) -> None:
        """Decode every picture, and part with those that cannot be; `skip` spares that where nothing is kept."""
        keep = len(self.files) * 3 * self.side**2 <= _KEPT
        known = skip is not None and not keep
        self.skipped = dict.fromkeys(skip or (), "it was damaged when the run began")
        paths = [path for path, _, _ in self.files]
        good: list[tuple[Path, int, int]] = []
        results = (None for _ in paths) if known else _look(paths, self.side)
        for done, (file, result) in enumerate(zip(self.files, results, strict=True), 1):
            if isinstance(result, ImageError):
                self.skipped[str(file[0])] = str(result)
            elif str(file[0]) not in self.skipped:
                good.append(file)
                if keep and result is not None:
                    self.pixels.append(result)
            if report:
                report(done, len(paths))
        self.files = good
        self._check_classes()

    def _check_classes(self) -> None:
        needed = 1 if self.split else 2
        counts = Counter((part, label) for _, part, label in self.files)
        for number, part in enumerate(self.parts):
            for label, name in enumerate(self.classes):
                count = counts[number, label]
                if count < needed:
                    damaged = sum(path.startswith(str(part / name) + os.sep) for path in self.skipped)
                    raise InputError(
                        f"class '{name}' has {count or 'no'} picture{'s' * (count != 1)} in '{part / name}' that can "
                        f"be read ({damaged} damaged): it needs {needed}"
                    )

    def data(self, share: float, seed: int) -> Data:
        """The data, whose split is the folder's own, or `share` of each class."""
        labels = torch.tensor([label for _, _, label in self.files], dtype=torch.long)
        chosen = torch.tensor([part == 1 for _, part, _ in self.files])
        if not self.split:
            chosen = _held_out(labels, share, seed)
        kept = torch.stack(self.pixels) if self.pixels else None
        names = [path.relative_to(self.folder).as_posix() for path, _, _ in self.files]

        def part_of(mask: Tensor) -> Pictures:
            paths = [path for (path, _, _), wanted in zip(self.files, tensors.values(mask), strict=True) if wanted]
            return Pictures(labels[mask], self.side, None if kept is None else kept[mask], paths)

        return Data(
            name=self.folder.name,
            classes=self.classes,
            train=part_of(~chosen),
            held_out=part_of(chosen),
            size=self.size,
            augment="photo",
            fingerprint=_fingerprint([f"{self.size} {'' if self.split else (share, seed)}", *names]),
            skipped=self.skipped,
        )


def _classes(folder: Path) -> dict[str, list[Path]]:
    """{class: the files of its folder that have the ending of a picture, in order}."""
    found: dict[str, list[Path]] = {}
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and not entry.name.startswith("."):
            found[entry.name] = sorted(
                path
                for path in entry.rglob("*")
                if files.is_picture(path) and not any(part.startswith(".") for part in path.relative_to(entry).parts)
            )
    return found


def read(path: Path, side: int) -> Tensor:
    """The middle square of a picture, (3, side, side) bytes. Raises `ImageError`."""
    rgb = images.flatten(images.read_picture(path))
    return _bytes(images.middle_square(rgb, side, side))[0]


def _bytes(unit: Tensor) -> Tensor:
    return unit.mul(255).round_().clamp_(0, 255).to(torch.uint8)


def _look(paths: Sequence[Path], side: int) -> Generator[Tensor | ImageError]:
    """Each picture, or why it cannot be read, in order; read by threads, no more than some at once."""

    def attempt(path: Path) -> Tensor | ImageError:
        try:
            return read(path, side)
        except ImageError as error:
            return error

    with ThreadPoolExecutor(_threads()) as pool:
        waiting: deque[Future[Tensor | ImageError]] = deque()
        for path in paths:
            waiting.append(pool.submit(attempt, path))
            if len(waiting) > 64:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _joined(pictures: Sequence[Future[Tensor]], labels: Tensor) -> tuple[Tensor, Tensor]:
    return torch.stack([future.result() for future in pictures]), labels


def _threads() -> int:
    return min(16, os.cpu_count() or 1)


def _held_out(labels: Tensor, share: float, seed: int) -> Tensor:
    """A mask of `share` of each class, at least one picture and never all."""
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    generator = torch.Generator().manual_seed(seed)
    for label in range(int(labels.max()) + 1):
        members = torch.arange(len(labels))[labels == label]
        members = members[torch.randperm(len(members), generator=generator)]
        chosen[members[: min(max(1, round(len(members) * share)), len(members) - 1)]] = True
    return chosen


def _fingerprint(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()[:16]
