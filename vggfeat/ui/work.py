"""What the page asks for: paint, explore, compare. Nothing here knows Gradio."""

import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vggfeat.explore import plots, view
from vggfeat.networks import arch
from vggfeat.pairs.heatmap import HEAT_TOP
from vggfeat.pairs.run import compare
from vggfeat.pictures import images
from vggfeat.transfer.recipe import Recipe
from vggfeat.transfer.record import record
from vggfeat.transfer.run import Progress, stylize
from vggfeat.ui.jobs import Job
from vggfeat.ui.limits import Limits, Upload

if TYPE_CHECKING:
    from PIL import Image

# Seconds from one picture of a run to the next, and from one loss curve to the next.
_PICTURES, _CURVES = 0.4, 1.0


@dataclass(frozen=True, slots=True)
class Painting:
    """Where a run stands: the picture (1, 3, H, W), and the loss curve where it is new; at its end the file."""

    progress: Progress
    image: Tensor
    alpha: Tensor | None
    chart: "Image.Image | None"
    stopped: bool = False
    file: Path | None = None


def paint(content: Upload, style: Upload, recipe: Recipe, job: Job, folder: Path) -> Iterator[Painting]:
    """Paint `content` in the manner of `style`: how it stands from time to time, and at last with its file in `folder`.

    Where the job is stopped the picture as it stands is the last one; where its page is gone nothing is written.
    """
    text = record(recipe, [("content", content.path), ("style", style.path)]).text()
    run = stylize(images.flatten(content.picture), images.flatten(style.picture), recipe)
    losses: dict[str, list[float]] = {}
    pictured = drawn = -1e9
    progress = None
    for progress in run:
        if job.gone:
            return
        for name, value in progress.losses.items():
            losses.setdefault(name, []).append(value)
        now = time.monotonic()
        if now - pictured >= _PICTURES and not job.over:
            chart = None
            if now - drawn >= _CURVES:
                chart, drawn = loss_chart(losses), now
            yield Painting(progress, progress.image.cpu(), _alpha(content, progress.image), chart)
            pictured = time.monotonic()
        if job.over:
            break
    if progress is None or job.gone:
        return
    image, alpha = progress.image.cpu(), _alpha(content, progress.image)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{content.path.stem[:60]}-{style.path.stem[:60]}.png"
    images.write_picture(file, image, alpha=alpha, icc=content.picture.icc, text=text)
    yield Painting(progress, image, alpha, loss_chart(losses), stopped=job.stopped, file=file)


def loss_chart(losses: Mapping[str, list[float]]) -> "Image.Image":
    """The terms of a run's loss, step by step."""
    shown = {name: line for name, line in losses.items() if any(value > 0 for value in line)}
    return plots.line_chart(shown, title="Loss", x_label="step", log=True, width=480, height=320)


def _alpha(content: Upload, image: Tensor) -> Tensor | None:
    alpha = content.picture.alpha
    return None if alpha is None else images.resize(alpha, image.shape[2], image.shape[3])


@dataclass(frozen=True, slots=True)
class Grid:
    """The channels of a layer as one picture, `columns` to a line, each `tile` (height, width); their peaks."""

    layer: arch.Layer
    size: tuple[int, int]
    sprite: Tensor
    columns: int
    tile: tuple[int, int]
    peaks: tuple[float, ...]


@dataclass(slots=True)
class Explorer:
    """What networks made of the last pictures that were explored, so that a channel is there at once."""

    limits: Limits
    most: int = 2
    _kept: OrderedDict[tuple[str, str, str], view.Seen] = field(
        default_factory=OrderedDict[tuple[str, str, str], view.Seen]
    )

    def seen(self, upload: Upload, network: str, layer: str) -> view.Seen:
        """What a layer of `network` made of a picture."""
        key = (str(upload.path), network, layer)
        if key not in self._kept:
            rgb = images.flatten(upload.picture)
            self._kept[key] = view.look(rgb, layer, network, size=self.limits.looked)
            while len(self._kept) > self.most:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]

    def grid(self, upload: Upload, network: str, layer: str, *, side: int = 80) -> Grid:
        """Every channel of a layer, small."""
        seen = self.seen(upload, network, layer)
        features = seen.features[layer]
        height, width = features.shape[2:]
        scale = side / max(height, width)
        tile = max(1, round(height * scale)), max(1, round(width * scale))
        count = features.shape[1]
        columns = 16
        rows = -(-count // columns)
        sprite = torch.zeros(1, 3, rows * tile[0], columns * tile[1])
        for start in range(0, count, columns):
            channels = range(start, min(start + columns, count))
            painted = view.channel_maps(features, channels)
            small = images.resize(painted, *tile) if scale < 1 else torch.nn.functional.interpolate(painted, tile)
            top = start // columns * tile[0]
            for number, picture in enumerate(small):
                sprite[0, :, top : top + tile[0], number * tile[1] : (number + 1) * tile[1]] = picture
        flat = features[0].flatten(1)
        peaks = flat.gather(1, flat.abs().argmax(1, keepdim=True))[:, 0]
        return Grid(seen.layers[0], (width, height), sprite, columns, tile, tuple(map(float, peaks)))

    def channel(self, upload: Upload, network: str, layer: str, channel: int) -> tuple[Tensor, Tensor]:
        """The picture as the network saw it, and a channel laid over it: (1, 3, H, W) each."""
        seen = self.seen(upload, network, layer)
        height, width = seen.picture.shape[2:]
        painted = view.channel_maps(seen.features[layer], [channel])
        return seen.picture, view.at_pixels(painted, seen.layers[0], height, width).clamp(0, 1)


@dataclass(frozen=True, slots=True)
class Compared:
    """How far two pictures are apart: {metric: value}, the heat map, both pictures as they were compared, and notes."""

    values: Mapping[str, float]
    heat: Tensor
    a: Tensor
    b: Tensor
    notes: tuple[str, ...]
    heat_top: float = HEAT_TOP


def compared(a: Upload, b: Upload, limits: Limits) -> Compared:
    """Compare two pictures, the second brought to the first's size, and both shrunk where they are large."""
    notes: list[str] = []
    first, second = (images.flatten(upload.picture) for upload in (a, b))
    height, width = images.fit(first.shape[2], first.shape[3], limits.looked)
    if (height, width) != tuple(first.shape[2:]):
        notes.append(f"Compared at {width} x {height} pixels.")
    if first.shape != second.shape:
        notes.append(
            f"The second picture is {second.shape[3]} x {second.shape[2]} pixels and the first "
            f"{first.shape[3]} x {first.shape[2]}: the second was brought to the first's shape."
        )
    if a.picture.alpha is not None or b.picture.alpha is not None:
        notes.append("What is transparent counts as the mean colour of what is not.")
    first, second = (images.resize(x, height, width) for x in (first, second))
    with TemporaryDirectory(prefix="vggfeat-compare-") as folder:
        files = [Path(folder, name) for name in ("first.png", "second.png")]
        for file, picture in zip(files, (first, second), strict=True):
            images.write_picture(file, picture)
        heatmaps = Path(folder, "heat")
        result = compare(files[0], files[1], heatmaps=heatmaps)
        heat = images.read_picture(next(heatmaps.iterdir())).rgb
    return Compared(result.rows[0].values, heat, first, second, tuple(notes))
