"""Compare pictures in pairs: two pictures, or two folders matched by name.

torch is imported where it is first needed, so that a command can name the metrics without it.
"""

import csv
import io
import json
import math
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, cast

from vggfeat import weights as weights_table
from vggfeat.errors import ImageError, InputError, VggfeatError, near

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from vggfeat.criterion import Criterion
    from vggfeat.extract import Precision
    from vggfeat.losses import FeatureLoss
    from vggfeat.similarity import Net

PathLike = str | os.PathLike[str]

METRICS: Mapping[str, str] = {
    "lpips-vgg": "LPIPS (Zhang et al. 2018), 0 for equal pictures",
    "lpips-alex": "LPIPS (Zhang et al. 2018), 0 for equal pictures",
    "lpips-squeeze": "LPIPS (Zhang et al. 2018), 0 for equal pictures",
    "dists": "DISTS (Ding et al. 2020), 0 for equal pictures",
    "psnr": "peak signal-to-noise ratio in dB, infinite for equal pictures",
    "ssim": "structural similarity (Wang et al. 2004), window 11, sigma 1.5, unpadded, RGB, 1 for equal pictures",
    "perceptual": "mean square difference of relu3_3, 0 for equal pictures",
}
DEFAULT_METRICS = ("lpips-vgg", "dists", "psnr", "ssim")

_SSIM_WINDOW = 11

# A batch holds at most as many pixels as `batch_size` pictures of this many: large pictures go one by one.
_USUAL_PIXELS = 512 * 512

# The spatial LPIPS that a heat map shows at its brightest: about that of a picture against noise. The same for every
# pair, so that heat maps can be set side by side.
_HEAT_TOP = 0.8

# The way of its colours through OKLab (Ottosson 2020), within sRGB; and the matrices from there to linear sRGB.
_HUES, _CHROMA, _LIGHTEST = (300, 455), 0.17, 0.97
_FROM_OKLAB = (
    (
        (1.0, 0.3963377774, 0.2158037573),
        (1.0, -0.1055613458, -0.0638541728),
        (1.0, -0.0894841775, -1.2914855480),
    ),
    (
        (4.0767416621, -3.3077115913, 0.2309699292),
        (-1.2684380046, 2.6097574011, -0.3413193965),
        (-0.0041960863, -0.7034186147, 1.7076147010),
    ),
)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two pictures to compare. `name` is that of the first: for folders its path within the folder."""

    name: str
    a: Path
    b: Path


@dataclass(frozen=True, slots=True)
class Row:
    """What a pair came to at `width` x `height` pixels.

    `values`: {metric: value}; with layers also {"lpips-vgg/relu1_2": value}, which add up to their metric.
    """

    pair: Pair
    width: int
    height: int
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Failure:
    """A pair that could not be compared, and why."""

    pair: Pair
    reason: str


@dataclass(frozen=True)
class Comparison:
    """The outcome of comparing: a row for each pair, in the order of their names.

    `mean`: of each metric over the rows, empty where there is none. `metadata`: what the values depend on, of which
    `metrics` says for each its network, version and weights. `failures`: the pairs that are missing from the rows.
    `unmatched`: {picture: reason} for those that have no counterpart.
    """

    rows: tuple[Row, ...]
    metadata: Mapping[str, Any] = field(repr=False)
    failures: tuple[Failure, ...] = ()
    unmatched: Mapping[str, str] = field(default_factory=dict[str, str])

    @cached_property
    def mean(self) -> dict[str, float]:
        """The mean of each metric over the rows."""
        names = self.rows[0].values if self.rows else ()
        return {name: sum(row.values[name] for row in self.rows) / len(self.rows) for name in names}

    def as_json(self) -> str:
        """`metadata`, `pairs`, `mean`, `unmatched` and `failed` as JSON, which has no infinity: that is null."""
        pairs = [
            {**_named(row.pair), "width": row.width, "height": row.height, **_finite(row.values)} for row in self.rows
        ]
        content = {
            "metadata": self.metadata,
            "pairs": pairs,
            "mean": _finite(self.mean),
            "unmatched": [{"picture": name, "reason": reason} for name, reason in self.unmatched.items()],
            "failed": [{**_named(failure.pair), "reason": failure.reason} for failure in self.failures],
        }
        return json.dumps(content, indent=2, allow_nan=False) + "\n"

    def as_csv(self) -> str:
        """One row a pair, a failed one without values but with its `error`; the last row is the mean.

        The last column is empty but in the last row, which holds the metadata as JSON: a line of comment before the
        header would break readers that expect none.
        """
        names = list(self.mean)
        text = io.StringIO()
        writer = csv.DictWriter(
            text, ["pair", "a", "b", "width", "height", *names, "error", "metadata"], lineterminator="\n"
        )
        writer.writeheader()
        for row in self.rows:
            writer.writerow({**_named(row.pair), "width": row.width, "height": row.height, **row.values})
        for failure in self.failures:
            writer.writerow({**_named(failure.pair), "error": failure.reason})
        writer.writerow({"pair": "mean", **self.mean, "metadata": json.dumps(self.metadata)})
        return text.getvalue()


class Comparing:
    """A comparison under way: iterate over it for each `Row` or `Failure` as it comes; `result()` does what is left.

    `pairs` are those that were found; no picture is opened before the first iteration.
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
        from vggfeat.extract import resolve_precision
        from vggfeat.extract import choose_device

        self.metrics = _known(metrics)
        if resize is not None and min(resize if isinstance(resize, tuple) else (resize,)) < 1:
            raise InputError(f"resize is {resize}: it is at least 1")
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}: it is at least 1")
        self.pairs, self.unmatched = match(a, b)
        self._alone = not Path(a).is_dir()
        self._heatmaps = {} if heatmaps is None else _heatmap_files(Path(heatmaps), self.pairs)
        self._layers = layers
        self._resize = resize
        self._batch_size = batch_size
        self._device = choose_device(device)
        self._precision: Precision = precision
        self._dtype = resolve_precision(precision, self._device)
        self._outcomes: dict[Pair, Row | Failure] = {}
        self._progress = self._run()

    def __iter__(self) -> Iterator[Row | Failure]:
        return self._progress

    def __len__(self) -> int:
        return len(self.pairs)

    def result(self) -> Comparison:
        """Compare what is left, and return all of it."""
        for _ in self._progress:
            pass
        outcomes = [self._outcomes[pair] for pair in self.pairs]
        return Comparison(
            rows=tuple(outcome for outcome in outcomes if isinstance(outcome, Row)),
            metadata=self._measures.metadata | self._circumstances(),
            failures=tuple(outcome for outcome in outcomes if isinstance(outcome, Failure)),
            unmatched=self.unmatched,
        )

    @cached_property
    def _measures(self) -> "_Measures":
        return _Measures(
            self.metrics,
            layers=self._layers,
            heat=bool(self._heatmaps),
            device=self._device,
            precision=self._precision,
        )

    def _circumstances(self) -> dict[str, Any]:
        return {
            "vggfeat": version("vggfeat"),
            "input_range": [0, 1],
            "resize": _resize_text(self._resize),
            "precision": str(self._dtype).removeprefix("torch."),
            "device": str(self._device),
        }

    def _run(self) -> Iterator[Row | Failure]:
        _make_room(self._heatmaps.values())
        for outcome in self._compared(self._measures):
            self._outcomes[outcome.pair] = outcome
            yield outcome

    def _compared(self, measures: "_Measures") -> Iterator[Row | Failure]:
        """Compare in batches of one size. What waits for its batch to fill is bounded as a batch is."""
        waiting: dict[tuple[int, int], list[_Loaded]] = defaultdict(list)
        limit = self._batch_size * _USUAL_PIXELS
        for pair in self.pairs:
            try:
                loaded = self._load(pair)
            except VggfeatError as error:
                yield self._failed(pair, error)
                continue
            size = loaded.size
            waiting[size].append(loaded)
            if len(waiting[size]) >= min(self._batch_size, limit // math.prod(size)):
                yield from self._measured(measures, waiting.pop(size))
            while sum(math.prod(size) * len(batch) for size, batch in waiting.items()) > limit:
                yield from self._measured(measures, waiting.pop(next(iter(waiting))))
        for batch in waiting.values():
            yield from self._measured(measures, batch)

    def _load(self, pair: Pair) -> "_Loaded":
        from vggfeat import images

        a, b = (_resized(images.read_picture(path).rgb, self._resize) for path in (pair.a, pair.b))
        if a.shape != b.shape:
            sizes = [f"{x.shape[3]}x{x.shape[2]}" for x in (a, b)]
            least = min((a, b), key=lambda x: x.shape[2] * x.shape[3]).shape
            raise InputError(
                f"'{_text(pair.a)}' is {sizes[0]} and '{_text(pair.b)}' {sizes[1]} pixels, a pair must be of one size: "
                f"pass --resize {least[3]}x{least[2]}, in Python resize=({least[3]}, {least[2]})"
            )
        return _Loaded(pair, a, b)

    def _measured(self, measures: "_Measures", batch: list["_Loaded"]) -> Iterator[Row | Failure]:
        """The rows of a batch; where it fails as a whole, its pairs are tried one by one."""
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
            row = Row(loaded.pair, width, height, {name: column[number] for name, column in values.items()})
            try:
                _check_values(row)
                if heat is not None:
                    _save_heatmap(self._heatmaps[loaded.pair], loaded.b, heat[number : number + 1].cpu())
            except VggfeatError as error:
                yield self._failed(loaded.pair, error)
            else:
                yield row

    def _failed(self, pair: Pair, error: Exception) -> Failure:
        if self._alone and isinstance(error, VggfeatError):
            raise error
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        if self._alone:
            raise InputError(f"cannot compare '{_text(pair.a)}' and '{_text(pair.b)}': {reason}") from error
        return Failure(pair, reason)


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
    """Compare the pictures `a` and `b`, or all pictures of the folder `a` with those of the same name in `b`.

    Args:
        a: a picture, or a folder of which sub-folders are read too.
        b: likewise. A picture's counterpart has its path within the folder, or failing that its path but for the
            ending, if one alone has it.
        metrics: names of `METRICS`. All read the pictures as sRGB in [0, 1], without their transparency.
        layers: give also what each layer contributes to LPIPS and DISTS.
        resize: pixels of the shorter side, or (width, height), that every picture is brought to, enlarged if need
            be: bilinear, antialiased. It changes the values.
        heatmaps: folder for a PNG a pair that shows where they differ: spatial LPIPS, of the first LPIPS among the
            metrics or else of `lpips-vgg`, from black to white, over the second picture in dim grey.
        batch_size: pairs of one size that are compared at once, fewer where they exceed 512x512 pixels.
        device: `auto` (CUDA, else MPS, else the CPU) or a torch device.
        precision: of the networks; published numbers are float32's.

    Of two folders, pairs that cannot be compared are listed in `failures`; for two pictures that is raised. Raises
    `InputError`, `ImageError`, `WeightsError`.
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


def match(a: PathLike, b: PathLike) -> tuple[list[Pair], dict[str, str]]:
    """The pairs of two pictures or folders in the order of their names, and {picture: reason} without counterpart.

    Files of a folder count by their endings; hidden ones do not. Raises `InputError` if nothing matches, or a folder
    is to be compared with a picture.
    """
    first, second = Path(a), Path(b)
    if not (first.is_dir() or second.is_dir()):
        return [Pair(_text(first.name), first, second)], {}
    for path in (first, second):
        if not path.is_dir():
            folder = second if path is first else first
            what = "not a folder" if path.exists() else "not there"
            raise InputError(f"'{_text(folder)}' is a folder and '{_text(path)}' is {what}: "
                             "compare two pictures or two folders")  # fmt: skip
    ours, theirs = _pictures(first), _pictures(second)
    found = {name: name for name in ours if name in theirs}
    left_a, left_b = (_by_stem(name for name in names if name not in found) for names in (ours, theirs))
    unmatched: dict[str, str] = {}
    for stem in sorted({*left_a, *left_b}):
        names_a, names_b = left_a.get(stem, []), left_b.get(stem, [])
        if len(names_a) == len(names_b) == 1:
            found[names_a[0]] = names_b[0]
            continue
        for names, folder, others, other in ((names_a, first, names_b, second), (names_b, second, names_a, first)):
            reason = f"no counterpart in '{_text(other)}'"
            if others:
                reason = f"{', '.join(map(_text, others))} in '{_text(other)}' could be its counterpart, endings differ"
            unmatched |= {_text(folder / name): reason for name in names}
    if not found:
        raise InputError(f"no picture of '{_text(first)}' ({_sample(ours)}) has the name of one of "
                         f"'{_text(second)}' ({_sample(theirs)})")  # fmt: skip
    pairs = [Pair(_text(name), first / name, second / found[name]) for name in sorted(found)]
    return pairs, unmatched


@dataclass(frozen=True, slots=True, eq=False)
class _Loaded:
    """A pair and its pictures, (1, 3, H, W) each."""

    pair: Pair
    a: "Tensor"
    b: "Tensor"

    @property
    def size(self) -> tuple[int, int]:
        return self.a.shape[2], self.a.shape[3]


class _Measures:
    """The metrics that were asked for, on as few networks as they need: {name: a value a pair}, and a map a pair."""

    def __init__(
        self, metrics: Sequence[str], *, layers: bool, heat: bool, device: "torch.device", precision: "Precision"
    ) -> None:
        from vggfeat.losses import ContentLoss
        from vggfeat.perceptual import PerceptualLoss
        from vggfeat.similarity import DISTS, LPIPS, LPIPSLoss

        self.metrics = tuple(metrics)
        self.layers = layers
        options: dict[str, Any] = {"check": "off", "precision": precision, "device": device}
        self.heat_metric = next((name for name in metrics if name.startswith("lpips")), "lpips-vgg") if heat else None
        networks = [self.heat_metric, *metrics] if self.heat_metric else list(metrics)
        self._criteria: dict[str, Criterion[Any]] = {}
        for name in dict.fromkeys(networks):
            if name.startswith("lpips"):
                self._criteria[name] = LPIPS(_net(name), reduction="none", **options)
            elif name == "dists":
                self._criteria[name] = DISTS(reduction="none", **options)
        self._losses: dict[str, FeatureLoss] = {name: x.loss for name, x in self._criteria.items() if name in metrics}
        if "perceptual" in metrics:
            # LPIPS has relu3_3 among its layers: one pass serves both.
            self._criteria["perceptual"] = self._criteria.get("lpips-vgg") or PerceptualLoss(**options)
            self._losses["perceptual"] = ContentLoss(["relu3_3"], reduction="none").to(device)
        self._heat = LPIPSLoss(_net(self.heat_metric), spatial=True).to(device) if self.heat_metric else None

    def __call__(self, a: "Tensor", b: "Tensor") -> "tuple[dict[str, list[float]], Tensor | None]":
        """{metric: a value a pair} of (N, 3, H, W) twice, and (N, 1, H, W) for the heat maps."""
        values = _kornia(self.metrics, a, b)
        heat = None
        for criterion in dict.fromkeys(self._criteria.values()):
            found, seen = self._read(criterion, a, b)
            values |= found
            heat = heat if seen is None else seen
        order = [key for name in self.metrics for key in values if key.partition("/")[0] == name]
        return {name: [float(value) for value in values[name].cpu()] for name in order}, heat

    def _read(self, criterion: "Criterion[Any]", a: "Tensor", b: "Tensor") -> "tuple[dict[str, Tensor], Tensor | None]":
        """What one network's features come to, which are let go of before the next network runs."""
        from vggfeat.similarity import DISTSLoss, LPIPSLoss

        x, y = criterion.features(a), criterion.features(b)
        values: dict[str, Tensor] = {}
        for name, loss in self._losses.items():
            if self._criteria[name] is criterion:
                target = loss.target(y)
                values[name] = loss(x, target)
                if self.layers and isinstance(loss, LPIPSLoss | DISTSLoss):
                    found = loss.per_layer(x, target)
                    values |= {f"{name}/{layer}": value for layer, value in found.items()}
        if self._heat is None or self._criteria.get(self.heat_metric or "") is not criterion:
            return values, None
        return values, self._heat(x, self._heat.target(y))

    @property
    def metadata(self) -> dict[str, Any]:
        """What each metric is computed with, and what heat maps show."""
        metadata: dict[str, Any] = {"metrics": {name: self._about(name) for name in self.metrics}}
        if self.heat_metric:
            metadata["heatmap"] = {"metric": f"{self.heat_metric}, spatial", "black": 0, "white": _HEAT_TOP}
        return metadata

    def _about(self, name: str) -> dict[str, str]:
        from vggfeat.extract import FeatureExtractor

        about = {"metric": METRICS[name]}
        if name not in self._criteria:
            return {**about, "by": f"kornia {version('kornia')}"}
        trunk = self._criteria[name].trunk
        if isinstance(trunk, FeatureExtractor):
            about |= {"net": trunk.network, "weights": trunk.row.name, "sha256": trunk.row.sha256}
        else:
            about |= _about_squeezenet()
        if name.startswith("lpips"):
            about |= {"version": self._criteria[name].loss.version, "heads": f"lpips {version('lpips')}"}
        elif name == "dists":
            about |= {"alpha_beta_sha256": weights_table.DISTS_SHA256}
        return about


def _net(metric: str) -> "Net":
    return cast("Net", metric.removeprefix("lpips-"))


def _about_squeezenet() -> dict[str, str]:
    from torchvision.models import SqueezeNet1_1_Weights  # pyright: ignore[reportMissingTypeStubs] (untyped upstream)

    # torchvision's file is named by the first digits of its sha256, which are checked when it is loaded.
    net, _, digits = PurePath(SqueezeNet1_1_Weights.IMAGENET1K_V1.url).stem.partition("-")
    return {"net": net, "weights": "imagenet1k_v1", "sha256": digits}


def _kornia(metrics: Iterable[str], a: "Tensor", b: "Tensor") -> "dict[str, Tensor]":
    """PSNR and SSIM of each pair, if they are among the metrics: (N,)."""
    import torch

    values: dict[str, Tensor] = {}
    if "psnr" in metrics:
        from kornia.metrics import psnr

        # A batch would have one PSNR, that of its mean square.
        values["psnr"] = torch.stack([psnr(x, y, 1.0) for x, y in zip(a, b, strict=True)])
    if "ssim" in metrics:
        from kornia.metrics import ssim

        if min(a.shape[2:]) < _SSIM_WINDOW:
            raise InputError(f"pictures of {a.shape[3]}x{a.shape[2]} pixels are too small for ssim: "
                             f"it needs at least {_SSIM_WINDOW} a side")  # fmt: skip
        values["ssim"] = ssim(a, b, _SSIM_WINDOW, padding="valid").mean((1, 2, 3))
    return values


def _known(metrics: str | Sequence[str]) -> tuple[str, ...]:
    """Each metric once. Raises `InputError` for unknown ones."""
    names = (metrics,) if isinstance(metrics, str) else tuple(dict.fromkeys(metrics))
    for name in names:
        if name not in METRICS:
            raise InputError(f"unknown metric '{name}': {near(name, METRICS)}")
    if not names:
        raise InputError(f"no metric to compare by: known are {', '.join(METRICS)}")
    return names


def _check_values(row: Row) -> None:
    for name, value in row.values.items():
        if not math.isfinite(value) and name != "psnr":
            raise InputError(f"{name} of '{row.pair.name}' is {value}: does it need another precision?")


def _resize_text(resize: int | tuple[int, int] | None) -> str | None:
    if isinstance(resize, tuple):
        return f"{resize[0]}x{resize[1]}"
    return None if resize is None else f"shorter side {resize}"


def _resized(rgb: "Tensor", resize: int | tuple[int, int] | None) -> "Tensor":
    from vggfeat import images

    if resize is None:
        return rgb
    height, width = rgb.shape[2:]
    if isinstance(resize, tuple):
        width, height = resize
    else:
        scale = resize / min(height, width)
        height, width = round(height * scale), round(width * scale)
    return images.resize(rgb, height, width)


def _pictures(folder: Path) -> set[PurePath]:
    """The paths within `folder` of the files that have the ending of a picture, sub-folders included."""
    from PIL import Image

    endings = {ending for ending, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    found: set[PurePath] = set()
    for parent, folders, files in os.walk(folder, onerror=_refuse_folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        within = Path(parent).relative_to(folder)
        found |= {
            within / name for name in files if PurePath(name).suffix.lower() in endings and not name.startswith(".")
        }
    return found


def _refuse_folder(error: OSError) -> None:
    raise ImageError(f"cannot read the folder '{_text(error.filename)}': {(error.strerror or str(error)).lower()}")


def _by_stem(names: Iterable[PurePath]) -> dict[PurePath, list[PurePath]]:
    stems: dict[PurePath, list[PurePath]] = defaultdict(list)
    for name in sorted(names):
        stems[name.with_suffix("")].append(name)
    return stems


def _sample(names: Iterable[PurePath]) -> str:
    first = sorted(names)[:2]
    return f"{', '.join(map(_text, first))}, ..." if first else "no pictures"


def _text(path: PurePath | str) -> str:
    """A path as text that can be printed and stored, whatever bytes are in it; with slashes on every system."""
    text = path if isinstance(path, str) else path.as_posix()
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _named(pair: Pair) -> dict[str, str]:
    return {"pair": pair.name, "a": _text(pair.a), "b": _text(pair.b)}


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _heatmap_files(folder: Path, pairs: Sequence[Pair]) -> dict[Pair, Path]:
    """A PNG for each pair, whose name keeps the picture's ending where another picture differs by that alone.

    Raises `ImageError` where it would replace a picture that is to be compared.
    """
    stems = _by_stem(PurePath(pair.name) for pair in pairs)
    sources = {path.resolve() for pair in pairs for path in (pair.a, pair.b)}
    files: dict[Pair, Path] = {}
    for pair in pairs:
        stem = PurePath(pair.name).with_suffix("")
        files[pair] = folder / f"{stem if len(stems[stem]) == 1 else pair.name}.png"
        if files[pair].resolve() in sources:
            raise ImageError(f"the heat map '{_text(files[pair])}' would replace a picture: choose another folder")
    return files


def _make_room(files: Iterable[Path]) -> None:
    """Make the folders of `files`. Raises `ImageError` for those that cannot be made or written to."""
    from vggfeat import images

    for path in files:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise ImageError(f"cannot make the folder '{_text(path.parent)}': {reason}") from error
        images.check_writable(path)


def _save_heatmap(path: Path, picture: "Tensor", heat: "Tensor") -> None:
    """Write (1, 1, H, W) distances as colours, over the grey of the (1, 3, H, W) picture where they are small."""
    import torch

    from vggfeat import images

    share = (heat.float() / _HEAT_TOP).clamp(0, 1)
    grey = (picture * torch.tensor([0.2126, 0.7152, 0.0722]).reshape(1, 3, 1, 1)).sum(1, keepdim=True)
    images.write_picture(path, (colours(share) + 0.25 * grey * (1 - share) ** 2).clamp(0, 1))


def colours(share: "Tensor") -> "Tensor":
    """(N, 1, H, W) in [0, 1] to RGB, (N, 3, H, W): black, violet, red, orange, white.

    Lightness grows evenly in OKLab (Ottosson 2020), so that equal steps look equal, and read in grey too.
    """
    import torch

    hue = torch.deg2rad(_HUES[0] + (_HUES[1] - _HUES[0]) * share)
    chroma = _CHROMA * (torch.pi * share).sin().clamp_min(0)
    lab = torch.cat([_LIGHTEST * share, chroma * hue.cos(), chroma * hue.sin()], dim=1)
    cones, rgb = (torch.tensor(matrix, dtype=share.dtype, device=share.device) for matrix in _FROM_OKLAB)
    linear = torch.einsum("ij,njhw->nihw", rgb, torch.einsum("ij,njhw->nihw", cones, lab) ** 3).clamp(0, 1)
    return torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear.clamp_min(1e-3) ** (1 / 2.4) - 0.055)
