"""The computations behind the page: paint, explore, compare. Nothing here imports Gradio."""

import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from vggfeat.explore import view
from vggfeat.networks import arch
from vggfeat.pairs.heatmap import HEAT_TOP
from vggfeat.pairs.run import compare
from vggfeat.pictures import images
from vggfeat.transfer.loop import Progress
from vggfeat.transfer.recipe import Recipe
from vggfeat.transfer.record import record
from vggfeat.transfer.run import stylize
from vggfeat.ui.limits import Limits, Upload
from vggfeat.ui.page_runs import PageRun

# Least seconds between two reports of a run. Showing a large picture is slow: reports take at most a tenth of the time.
INTERVAL = 1.0


@dataclass(frozen=True, slots=True)
class Painting:
    """The state of a run: its image (1, 3, H, W), each loss term at every step, and at the end its file."""

    progress: Progress
    image: Tensor
    alpha: Tensor | None
    losses: Mapping[str, list[float]]
    stopped: bool = False
    file: Path | None = None


def paint(content: Upload, style: Upload, recipe: Recipe, run: PageRun, folder: Path) -> Iterator[Painting]:
    """Paint `content` in the style of `style`: yield the state about once a second, and at the end with a file.

    The picture is written to `folder`. If the run is stopped, its current image becomes the result; if its page is
    closed, nothing is written.
    """
    text = record(recipe, [("content", content.path), ("style", style.path)]).text()
    losses: dict[str, list[float]] = {}
    due = 0.0
    progress = None
    pictures = images.flatten(content.picture), images.flatten(style.picture)
    for progress in stylize(*pictures, recipe, style_masks=[style.picture.alpha]):
        for name, value in progress.losses.items():
            losses.setdefault(name, []).append(value)
        if run.ending:
            break
        if (started := time.monotonic()) >= due:
            yield Painting(progress, progress.image.cpu(), _alpha(content, progress.image), deepcopy(losses))
            due = (ended := time.monotonic()) + max(INTERVAL, 9 * (ended - started))
            if run.ending:
                break
    if progress is None or run.abandoned:
        return
    image, alpha = progress.image.cpu(), _alpha(content, progress.image)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{content.path.stem[:60]}-{style.path.stem[:60]}.png"
    metadata = images.read_metadata(content.path)
    images.write_picture(file, image, alpha=alpha, icc=content.picture.icc, text=text, metadata=metadata)
    yield Painting(progress, image, alpha, losses, stopped=run.stopped, file=file)


def _alpha(content: Upload, image: Tensor) -> Tensor | None:
    alpha = content.picture.alpha
    return None if alpha is None else images.resize(alpha, image.shape[2], image.shape[3])


@dataclass(frozen=True, slots=True)
class Grid:
    """The channels of a layer: `tiles` (C, 3, h, w), the `size` (width, height) of an activation, and their peaks.

    A peak is the value of a channel that is farthest from 0.
    """

    layer: arch.Layer
    size: tuple[int, int]
    tiles: Tensor
    peaks: tuple[float, ...]


@dataclass(slots=True)
class Explorer:
    """Features of the pictures explored last, kept so that another channel of the same layer appears at once."""

    limits: Limits
    most: int = 2
    _kept: OrderedDict[tuple[str, str, str], view.Inspection] = field(
        default_factory=OrderedDict[tuple[str, str, str], view.Inspection]
    )

    def inspection(self, upload: Upload, network: str, layer: str) -> view.Inspection:
        """A picture and its features in one layer."""
        key = (str(upload.path), network, layer)
        if key not in self._kept:
            rgb = images.flatten(upload.picture)
            self._kept[key] = view.inspect(rgb, layer, network, size=self.limits.analysed)
            while len(self._kept) > self.most:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]

    def grid(self, upload: Upload, network: str, layer: str, *, side: int = 80) -> Grid:
        """Every channel of a layer as a tile with a long side of `side` pixels."""
        found = self.inspection(upload, network, layer)
        features = found.features[layer]
        count, height, width = features.shape[1:]
        scale = side / max(height, width)
        tile = max(1, round(height * scale)), max(1, round(width * scale))
        tiles: list[Tensor] = []
        for start in range(0, count, 16):  # a few at a time: the maps of a shallow layer are large
            maps = view.channel_maps(features, range(start, min(start + 16, count)))
            tiles.append(images.resize(maps, *tile) if scale < 1 else torch.nn.functional.interpolate(maps, tile))
        flat = features[0].flatten(1)
        peaks = flat.gather(1, flat.abs().argmax(1, keepdim=True))[:, 0]
        return Grid(found.layers[0], (width, height), torch.cat(tiles), tuple(map(float, peaks)))

    def channel(self, upload: Upload, network: str, layer: str, channel: int) -> tuple[Tensor, Tensor]:
        """The picture as the network received it, and a channel at the same size: (1, 3, H, W) each."""
        found = self.inspection(upload, network, layer)
        height, width = found.picture.shape[2:]
        painted = view.channel_maps(found.features[layer], [channel])
        return found.picture, view.at_pixels(painted, found.layers[0], height, width).clamp(0, 1)


@dataclass(frozen=True, slots=True)
class Compared:
    """The distance of two pictures: {metric: value}, the heat map, both pictures as compared, and notes on how."""

    values: Mapping[str, float]
    heat: Tensor
    a: Tensor
    b: Tensor
    notes: tuple[str, ...]
    heat_top: float = HEAT_TOP


def compared(a: Upload, b: Upload, limits: Limits) -> Compared:
    """Compare two pictures. The second is resized to the size of the first, and large pictures are shrunk."""
    notes: list[str] = []
    first, second = (images.flatten(upload.picture) for upload in (a, b))
    height, width = images.fit(first.shape[2], first.shape[3], limits.analysed)
    if (height, width) != tuple(first.shape[2:]):
        notes.append(f"Compared at {width} x {height} pixels.")
    if first.shape != second.shape:
        notes.append(
            f"The second picture is {second.shape[3]} x {second.shape[2]} pixels and the first "
            f"{first.shape[3]} x {first.shape[2]}: the second was resized to match."
        )
    if a.picture.alpha is not None or b.picture.alpha is not None:
        notes.append("Transparent pixels were replaced by the mean colour of the opaque ones.")
    first, second = (images.resize(x, height, width) for x in (first, second))
    with TemporaryDirectory(prefix="vggfeat-compare-") as folder:
        files = [Path(folder, name) for name in ("first.png", "second.png")]
        for file, picture in zip(files, (first, second), strict=True):
            images.write_picture(file, picture)
        heatmaps = Path(folder, "heat")
        result = compare(files[0], files[1], heatmaps=heatmaps)
        heat = images.read_picture(next(heatmaps.iterdir())).rgb
    return Compared(result.rows[0].values, heat, first, second, tuple(notes))
