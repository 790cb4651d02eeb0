"""Run a comparison in batches and yield the result of each pair."""

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vggfeat import files
from vggfeat.errors import ImageError, InputError, VggfeatError, check_number
from vggfeat.pairs.heatmap import heatmap_files, make_folders, save_heatmap
from vggfeat.pairs.match import Pair, PathLike, match_pictures, path_text
from vggfeat.pairs.measure import DEFAULT_METRICS, METRICS, Measures, has_layers, known_metrics
from vggfeat.pairs.result import Comparison, Failure, PairResult
from vggfeat.pictures.batching import SizeBatches

if TYPE_CHECKING:
    from torch import Tensor

    from vggfeat.features.device import Precision

# The largest picture that `resize` may produce, and that `read_picture` reads.
_MOST_PIXELS = 200_000_000


def compare(
    a: PathLike,
    b: PathLike,
    metrics: str | Sequence[str] = DEFAULT_METRICS,
    *,
    layers: bool = False,
    resize: int | tuple[int, int] | None = None,
    heatmaps: PathLike | None = None,
    batch_size: int = 8,
    device: str = "auto",
    precision: "Precision" = "float32",
) -> Comparison:
    """Compare the pictures `a` and `b`, or the pictures of folder `a` with those of the same name in folder `b`.

    Args:
        a: a picture, or a folder, which is read with its sub-folders.
        b: the same. A picture's counterpart has the same path within its folder, else the same path with another
            ending, if exactly one file has it.
        metrics: names of `METRICS`. Pictures are read as sRGB in [0, 1] without transparency.
        layers: also return the contribution of each layer to the metrics that are sums over layers (LPIPS, DISTS, ...),
            one of which must be among the metrics.
        resize: resize every picture to this shorter side, or to (width, height), in pixels: bilinear, antialiased. It
            changes the values. The limit is 200 million pixels.
        heatmaps: folder for one PNG per pair that shows where the pictures differ: the spatial map of the first LPIPS
            among the metrics, or of `lpips-vgg`, from black to white over the second picture in dim grey. It must not
            be inside a folder that is compared.
        batch_size: pairs of the same size compared at a time; fewer if they are larger than 512x512 pixels.
        device: `auto` (CUDA, else MPS, else the CPU) or a torch device.
        precision: precision of the networks; published numbers are in float32.

    For two folders, pairs that cannot be compared are listed in `failures`, for instance if SSIM is requested and a
    side is below 11 pixels. For two pictures the error is raised: `InputError`, `ImageError` or `WeightsError`.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import torch
        >>> from vggfeat import compare, write_picture
        >>> folder = Path(tempfile.mkdtemp())
        >>> write_picture(folder / "grey.png", torch.full((1, 3, 32, 32), 0.4))
        >>> write_picture(folder / "white.png", torch.ones(1, 3, 32, 32))
        >>> result = compare(folder / "grey.png", folder / "white.png", "psnr")
        >>> round(result.mean["psnr"], 2)
        4.44
    """
    return Comparing(
        a,
        b,
        metrics,
        layers=layers,
        resize=resize,
        heatmaps=heatmaps,
        batch_size=batch_size,
        device=device,
        precision=precision,
    ).result()


class Comparing:
    """A running comparison. Iterating yields a `PairResult` or `Failure` for each pair; `result()` runs the rest.

    `pairs` are the pairs that were found, `pictures` all pictures of both sides, `heatmaps` the files of the heat maps.
    No picture is opened before the first iteration.
    """

    def __init__(
        self,
        a: PathLike,
        b: PathLike,
        metrics: str | Sequence[str],
        *,
        layers: bool,
        resize: int | tuple[int, int] | None,
        heatmaps: PathLike | None,
        batch_size: int,
        device: str,
        precision: "Precision",
    ) -> None:
        from vggfeat.features.device import choose_device, choose_precision

        self.metrics = known_metrics(metrics)
        if layers and not any(has_layers(name) for name in self.metrics):
            raise InputError(f"no layers in {', '.join(self.metrics)}: "
                             f"known for {', '.join(name for name in METRICS if has_layers(name))}")  # fmt: skip
        if heatmaps is not None and not os.fspath(heatmaps):
            raise InputError("the folder of the heat maps has an empty name")
        width, height = resize if isinstance(resize, tuple) else (1 if resize is None else resize,) * 2
        for side in (width, height):
            check_number("resize", side, 1)
        if width * height > _MOST_PIXELS:
            raise InputError(f"resize is {resize}: that makes {width * height} pixels, the limit is {_MOST_PIXELS}")
        check_number("batch_size", batch_size, 1)
        self.pairs, self.unmatched, self.pictures = match_pictures(a, b)
        self._alone = not Path(a).is_dir()
        self.heatmaps = {} if heatmaps is None else self._heatmap_files(heatmaps, () if self._alone else (a, b))
        self._layers = layers
        self._resize = resize
        self._batch_size = batch_size
        self._device = choose_device(device)
        self._precision: Precision = precision
        self._chosen = choose_precision(precision, self._device)
        self._outcomes: dict[Pair, PairResult | Failure] = {}
        self._progress = self._run()

    def __iter__(self) -> Iterator[PairResult | Failure]:
        return self._progress

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def done(self) -> int:
        """The number of pairs that are compared or failed."""
        return len(self._outcomes)

    def _heatmap_files(self, folder: PathLike, compared: Iterable[PathLike]) -> dict[Pair, Path]:
        found = heatmap_files(Path(folder), self.pairs, map(Path, compared))
        read = set(map(files.identity, self.pictures))
        for path in found.values():
            if files.identity(path) in read:
                raise ImageError(f"the heat map '{path_text(path)}' would overwrite a picture: choose another folder")
        return found

    def result(self) -> Comparison:
        """Run the rest of the comparison and return all results. After an interruption they are not `complete`."""
        for _ in self._progress:
            pass
        outcomes = [self._outcomes[pair] for pair in self.pairs if pair in self._outcomes]
        return Comparison(
            rows=tuple(outcome for outcome in outcomes if isinstance(outcome, PairResult)),
            metadata=self._measures.metadata | self._circumstances(),
            failures=tuple(outcome for outcome in outcomes if isinstance(outcome, Failure)),
            unmatched=self.unmatched,
            complete=len(outcomes) == len(self.pairs),
        )

    @cached_property
    def _measures(self) -> "Measures":
        return Measures(
            self.metrics,
            layers=self._layers,
            heat=bool(self.heatmaps),
            device=self._device,
            precision=self._precision,
            resize=_resize_text(self._resize),
        )

    def _circumstances(self) -> dict[str, Any]:
        return {
            "vggfeat": version("vggfeat"),
            "input_range": [0, 1],
            "resize": _resize_text(self._resize),
            "precision": self._chosen,
            "device": str(self._device),
        }

    def _run(self) -> Iterator[PairResult | Failure]:
        make_folders(self.heatmaps.values())
        for outcome in self._compared(self._measures):
            self._outcomes[outcome.pair] = outcome
            yield outcome

    def _compared(self, measures: "Measures") -> Iterator[PairResult | Failure]:
        """Compare in batches of one size."""
        batches = SizeBatches[_Loaded](self._batch_size)
        for pair in self.pairs:
            try:
                loaded = self._load(pair)
            except (VggfeatError, MemoryError, RuntimeError) as error:
                yield self._failed(pair, error)
                continue
            for _, batch in batches.add(loaded.size, loaded):
                yield from self._measured(measures, batch)
        for _, batch in batches.rest():
            yield from self._measured(measures, batch)

    def _load(self, pair: Pair) -> "_Loaded":
        from vggfeat.pictures import images

        a, b = (_resized(path, images.read_picture(path).rgb, self._resize) for path in (pair.a, pair.b))
        if a.shape != b.shape:
            sizes = [f"{x.shape[3]}x{x.shape[2]}" for x in (a, b)]
            least = min((a, b), key=lambda x: x.shape[2] * x.shape[3]).shape
            raise InputError(
                f"'{path_text(pair.a)}' is {sizes[0]} and '{path_text(pair.b)}' {sizes[1]} pixels, "
                "both must have the same size: "
                f"pass --resize {least[3]}x{least[2]}, in Python resize=({least[3]}, {least[2]})"
            )
        return _Loaded(pair, a, b)

    def _measured(self, measures: "Measures", batch: list["_Loaded"]) -> Iterator[PairResult | Failure]:
        """The results of a batch. If the batch fails, its pairs are tried one by one."""
        import torch

        try:
            a, b = (torch.cat(tensors).to(self._device) for tensors in zip(*((x.a, x.b) for x in batch), strict=True))
            with torch.no_grad():
                values, heat = measures(a, b)
        except (VggfeatError, MemoryError, RuntimeError) as error:
            if len(batch) == 1:
                yield self._failed(batch[0].pair, error)
            else:
                for loaded in batch:
                    yield from self._measured(measures, [loaded])
            return
        height, width = batch[0].size
        for number, loaded in enumerate(batch):
            result = PairResult(loaded.pair, width, height, {name: column[number] for name, column in values.items()})
            try:
                _check_values(result)
                if heat is not None:
                    save_heatmap(self.heatmaps[loaded.pair], loaded.b, heat[number : number + 1].cpu())
            except (VggfeatError, MemoryError, RuntimeError) as error:
                yield self._failed(loaded.pair, error)
            else:
                yield result

    def _failed(self, pair: Pair, error: Exception) -> Failure:
        if self._alone and isinstance(error, VggfeatError):
            raise error
        lacking = "out of memory" if isinstance(error, MemoryError) else type(error).__name__
        reason = str(error).strip().partition("\n")[0] or lacking
        if self._alone:
            raise InputError(f"cannot compare '{path_text(pair.a)}' and '{path_text(pair.b)}': {reason}") from error
        return Failure(pair, reason)


@dataclass(frozen=True, slots=True, eq=False)
class _Loaded:
    """A pair and its pictures, (1, 3, H, W) each."""

    pair: Pair
    a: "Tensor"
    b: "Tensor"

    @property
    def size(self) -> tuple[int, int]:
        return self.a.shape[2], self.a.shape[3]


def _check_values(result: PairResult) -> None:
    for name, value in result.values.items():
        if not math.isfinite(value) and name != "psnr":
            raise InputError(f"{name} of '{result.pair.name}' is {value}: try precision='float32'")


def _resize_text(resize: int | tuple[int, int] | None) -> str | None:
    if isinstance(resize, tuple):
        return f"{resize[0]}x{resize[1]}"
    return None if resize is None else f"shorter side {resize}"


def _resized(path: Path, rgb: "Tensor", resize: int | tuple[int, int] | None) -> "Tensor":
    from vggfeat.pictures import images

    if resize is None:
        return rgb
    height, width = rgb.shape[2:]
    if isinstance(resize, tuple):
        width, height = resize
    else:
        scale = resize / min(height, width)
        height, width = round(height * scale), round(width * scale)
    if height * width > _MOST_PIXELS:
        raise InputError(f"'{path_text(path)}' would have {width} x {height} = {height * width} pixels, "
                         f"the limit is {_MOST_PIXELS}")  # fmt: skip
    return images.resize(rgb, height, width)
