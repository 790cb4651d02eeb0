"""Training data from a folder of pictures, with one sub-folder for each class."""

import os
from collections import Counter
from collections.abc import Collection, Generator, Iterable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from vggfeat import files
from vggfeat.errors import ImageError, InputError
from vggfeat.features import tensors
from vggfeat.training.dataset import Data, Pictures, Report, fingerprint, hold_out, read_ahead, read_square

KEPT_BYTES = 4 << 30
"""Pictures that take no more bytes than this are decoded once and kept in memory."""

# torchvision's presets resize to 256 pixels and read the central 224.
_ROOM = 8 / 7

_TRAIN = ("train", "training")
_HELD_OUT = ("val", "valid", "validation", "test", "held_out")


class _File(NamedTuple):
    """`part`: 0 for training pictures, 1 for held-out ones. `label`: the number of the class."""

    path: Path
    part: int
    label: int


class ClassFolder:
    """The picture files of a folder, by class, and by part if the folder has a split of its own.

    Raises `InputError` for a folder that does not exist, has fewer than two classes, or different classes in its parts.
    """

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
            _File(path, part, label)
            for part, classes in enumerate(found)
            for label, name in enumerate(self.classes)
            for path in classes[name]
        ]
        self.pixels: list[Tensor] = []
        self.skipped: dict[str, str] = {}

    def decode(self, skip: Collection[str] | None, report: Report | None) -> None:
        """Decode every picture, keep those that fit in memory, and drop those that cannot be read.

        With a list of files to `skip`, pictures that would not be kept are not decoded again. Raises `InputError` for a
        class with too few pictures left.
        """
        keep = len(self.files) * 3 * self.side**2 <= KEPT_BYTES
        known = skip is not None and not keep
        self.skipped = dict.fromkeys(skip or (), "it was damaged when the run began")
        good: list[_File] = []
        results = (None for _ in self.files) if known else _decoded((file.path for file in self.files), self.side)
        for done, (file, result) in enumerate(zip(self.files, results, strict=True), 1):
            if isinstance(result, ImageError):
                self.skipped[str(file.path)] = str(result)
            elif str(file.path) not in self.skipped:
                good.append(file)
                if keep and result is not None:
                    self.pixels.append(result)
            if report:
                report(done, len(self.files))
        self.files = good
        self._check_classes()

    def _check_classes(self) -> None:
        needed = 1 if self.split else 2
        counts = Counter((file.part, file.label) for file in self.files)
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
        """The data, split as the folder is, or with `share` of each class held out."""
        labels = torch.tensor([file.label for file in self.files], dtype=torch.long)
        chosen = torch.tensor([file.part == 1 for file in self.files])
        if not self.split:
            chosen = hold_out(labels, share, seed)
        kept = torch.stack(self.pixels) if self.pixels else None
        names = [file.path.relative_to(self.folder).as_posix() for file in self.files]

        def part_of(mask: Tensor) -> Pictures:
            paths = [file.path for file, wanted in zip(self.files, tensors.values(mask), strict=True) if wanted]
            return Pictures(labels[mask], self.side, None if kept is None else kept[mask], paths)

        return Data(
            name=self.folder.name,
            classes=self.classes,
            train=part_of(~chosen),
            held_out=part_of(chosen),
            size=self.size,
            augment="photo",
            fingerprint=fingerprint([f"{self.size} {'' if self.split else (share, seed)}", *names]),
            skipped=self.skipped,
        )


def _classes(folder: Path) -> dict[str, list[Path]]:
    """{class: the picture files of its folder and sub-folders, sorted}."""
    found: dict[str, list[Path]] = {}
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and not entry.name.startswith("."):
            found[entry.name] = sorted(files.pictures_in(entry, deep=True))
    return found


def _decoded(paths: Iterable[Path], side: int) -> Generator[Tensor | ImageError]:
    """Yield each picture, or why it cannot be read, in order."""

    def attempt(path: Path) -> Tensor | ImageError:
        try:
            return read_square(path, side)
        except ImageError as error:
            return error

    return read_ahead(paths, attempt, 64)
