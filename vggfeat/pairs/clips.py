"""Compare a painted clip with its original: how steady it is from frame to frame, and against its first frame."""

import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vggfeat.errors import InputError
from vggfeat.pairs.match import Pair, PathLike
from vggfeat.pairs.measure import METRICS, known_metrics
from vggfeat.pairs.result import Comparison, PairResult

if TYPE_CHECKING:
    from torch import Tensor

    from vggfeat.features.device import Precision
    from vggfeat.losses.similarity import LPIPS
    from vggfeat.losses.steadiness import Aligned
    from vggfeat.pictures.video.clips import Clip
    from vggfeat.pictures.video.flow import FlowSource

CLIP_METRICS = ("warping-error", *(name for name in METRICS if name.startswith("lpips")))
"""The metrics of clips, each of which is measured against the frame before and, as NAME-long, against the first one."""

DEFAULT_CLIP_METRICS = ("warping-error", "lpips-vgg")

_LONG = "-long"


class ComparingClips:
    """A running comparison of two clips. Iterating yields a `PairResult` for each frame from the second on.

    Args:
        painted: the clip to measure: a video file, an animated picture, or a folder of frames.
        original: the clip whose motion it should follow, with as many frames.
        metrics: names of `CLIP_METRICS`.
        flow: how the motion is found, see `vggfeat.pictures.video.flow.flow_function`.
        device, precision: as for `compare`.

    Raises `InputError`, `ImageError`, and `VggfeatError` if an extra is missing. Nothing is decoded before the first
    iteration.
    """

    def __init__(
        self,
        painted: PathLike,
        original: PathLike,
        metrics: str | Sequence[str] = DEFAULT_CLIP_METRICS,
        *,
        flow: "FlowSource" = "tvl1",
        device: str = "auto",
        precision: "Precision" = "float32",
    ) -> None:
        from vggfeat.features.device import choose_device, choose_precision
        from vggfeat.pictures.video.clips import open_clip
        from vggfeat.pictures.video.flow import flow_function

        self.metrics = known_metrics(metrics, CLIP_METRICS, "metric of clips")
        self.clips: tuple[Clip, Clip] = open_clip(painted), open_clip(original)
        self._find = flow_function(flow)
        self._flow = getattr(flow, "__qualname__", str(flow))
        self._device = choose_device(device)
        self._precision: Precision = precision
        self._chosen = choose_precision(precision, self._device)
        self._rows: list[PairResult] = []
        self._finished = False
        self._progress = self._run()

    def __iter__(self) -> Iterator[PairResult]:
        return self._progress

    def __len__(self) -> int:
        """The number of pairs; about that number if a video file does not say how many frames it has."""
        return max(0, self.clips[0].count - 1)

    @property
    def done(self) -> int:
        """The number of pairs that are compared."""
        return len(self._rows)

    @property
    def pictures(self) -> list[Path]:
        """The files and folders that are read."""
        return [clip.path for clip in self.clips]

    def result(self) -> Comparison:
        """Run the rest of the comparison and return all results. After an interruption they are not `complete`."""
        for _ in self._progress:
            pass
        if self._finished and not self._rows:
            raise InputError(f"'{self.clips[0].path}' has one frame: a clip needs two or more")
        return Comparison(tuple(self._rows), self._metadata(), complete=self._finished)

    def _run(self) -> Iterator[PairResult]:
        from vggfeat.losses.steadiness import aligned
        from vggfeat.pictures import images

        painted, original = ((images.flatten(frame.picture) for frame in clip) for clip in self.clips)
        for pairs in aligned(painted, original, flow=self._find, back=[1, None]):
            near, far = pairs
            values = self._values(near, "") | self._values(far, _LONG)
            order = [name + suffix for name in self.metrics for suffix in ("", _LONG)]
            height, width = near.frame.shape[2:]
            pair = Pair(f"frame {near.number}", self.clips[0].path, self.clips[1].path)
            self._rows.append(PairResult(pair, width, height, {name: values[name] for name in order}))
            yield self._rows[-1]
        self._finished = True

    def _values(self, pair: "Aligned", suffix: str) -> dict[str, float]:
        from vggfeat.losses.steadiness import warped_lpips, warping_error

        def moved(x: "Tensor") -> "Tensor":
            return x.to(self._device)

        pair = pair._replace(frame=moved(pair.frame), warped=moved(pair.warped), visible=moved(pair.visible))
        if not pair.visible.any():  # there is no value, and means leave out infinite ones
            return {name + suffix: math.inf for name in self.metrics}
        values = {"warping-error": float(warping_error(pair))}
        values |= {name: float(warped_lpips(criterion, pair)) for name, criterion in self._criteria.items()}
        for name, value in values.items():
            if not math.isfinite(value):
                raise InputError(f"{name} of frame {pair.number} is {value}: try precision='float32'")
        return {name + suffix: value for name, value in values.items()}

    @cached_property
    def _criteria(self) -> "dict[str, LPIPS]":
        from vggfeat.losses.similarity import LPIPS

        options: dict[str, Any] = {"check": "off", "precision": self._precision, "device": self._device}
        names = [name for name in self.metrics if name.startswith("lpips")]
        return {name: LPIPS(name.removeprefix("lpips-"), **options) for name in names}  # pyright: ignore[reportArgumentType] (a known net)

    def _metadata(self) -> dict[str, Any]:
        from vggfeat.losses.signature import line, signature

        about: dict[str, dict[str, str]] = {}
        for name in self.metrics:
            criterion = self._criteria.get(name)
            fields = {"input_range": "unit", "resize": "none", "precision": "float32"}
            cited = (
                line(["warping-error"], fields)
                if criterion is None
                else signature(criterion.trunk, criterion.loss, resize="none")
            )
            what = "warping error (Lai et al. 2018)" if criterion is None else METRICS[name].partition(",")[0]
            for suffix, against in (("", "the frame before"), (_LONG, "the first frame")):
                text = f"{what} against {against}, warped by the original's motion, over visible pixels"
                about[name + suffix] = {"metric": text, "signature": f"{cited}, flow {self._flow}"}
        return {
            "metrics": about,
            "vggfeat": version("vggfeat"),
            "input_range": [0, 1],
            "resize": None,
            "precision": self._chosen,
            "device": str(self._device),
        }
