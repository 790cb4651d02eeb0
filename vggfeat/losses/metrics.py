"""The metrics of two pictures, and those that accumulate as torchmetrics metrics.

`available` needs neither torch nor torchmetrics. The classes need the extra `vggfeat[metrics]`.

>>> from vggfeat import metrics
>>> [name for name, metric in metrics.available().items() if metric.higher_is_better]
['psnr', 'ssim']
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from math import inf
from typing import TYPE_CHECKING, Any

from vggfeat.networks.table import TABLE

if TYPE_CHECKING:
    from vggfeat.losses.accumulated import MeanDistance, MeanDISTS, MeanLPIPS

_CLASSES = ("MeanDISTS", "MeanDistance", "MeanLPIPS")

__all__ = ["MeanDISTS", "MeanDistance", "MeanLPIPS", "MetricInfo", "available"]


_SHIFT_TOLERANT = "shift-tolerant alexnet"


@dataclass(frozen=True, slots=True)
class MetricInfo:
    """A metric of two pictures.

    Attributes:
        definition: the metric and its source.
        range: no value lies outside; not every value in it is reached.
        equal: the value for equal pictures.
        networks: the networks that it reads, none for metrics of pixels.
        bundled: whether it works offline, because its weights ship with vggfeat or it needs none.
        code: how to make it: a public class of vggfeat, or the name for `compare` if there is none.
        accumulated: the class of `vggfeat.metrics` that averages it over batches, if there is one.
    """

    definition: str
    range: tuple[float, float]
    equal: float
    networks: tuple[str, ...]
    bundled: bool
    code: str
    accumulated: str | None = None

    @property
    def higher_is_better(self) -> bool:
        """Whether higher values mean that pictures are more alike."""
        return self.equal == self.range[1]

    @property
    def direction(self) -> str:
        """`higher` or `lower`: the values of pictures that are more alike."""
        return "higher" if self.higher_is_better else "lower"


def _lpips(net: str, network: str) -> MetricInfo:
    return _distance("LPIPS (Zhang et al. 2018)", (network,), f'LPIPS("{net}")', f'MeanLPIPS("{net}")')


def _distance(
    definition: str, networks: tuple[str, ...], code: str, accumulated: str | None = None, *, most: float = inf
) -> MetricInfo:
    bundled = {*(entry.network for entry in TABLE if entry.bundled), _SHIFT_TOLERANT}
    return MetricInfo(definition, (0.0, most), 0.0, networks, bundled.issuperset(networks), code, accumulated)


def _of_pixels(definition: str, name: str, values: tuple[float, float]) -> MetricInfo:
    return MetricInfo(definition, values, values[1], (), bundled=True, code=f'compare(..., "{name}")')


_METRICS: Mapping[str, MetricInfo] = {
    "lpips-vgg": _lpips("vgg", "vgg16"),
    "lpips-alex": _lpips("alex", "alexnet"),
    "lpips-squeeze": _lpips("squeeze", "squeezenet1_1"),
    # The similarity of structure is a correlation, at least -1.
    "dists": _distance("DISTS (Ding et al. 2020)", ("vgg16",), "DISTS()", "MeanDISTS()", most=2.0),
    "stlpips-alex": _distance("shift-tolerant LPIPS (Ghildyal & Liu 2022)", (_SHIFT_TOLERANT,), 'STLPIPS("alex")'),
    "a-dists": _distance(
        "A-DISTS (Ding et al. 2021), the second picture is the reference", ("vgg16",), "ADISTS()", most=2.0
    ),
    "dmm": _distance("DMM (Chen et al. 2023)", ("vgg16",), "DMM()"),
    "psnr": MetricInfo(
        "peak signal-to-noise ratio in dB", (0.0, inf), inf, (), bundled=True, code='compare(..., "psnr")'
    ),
    "ssim": _of_pixels(
        "structural similarity (Wang et al. 2004), window 11, sigma 1.5, unpadded, RGB", "ssim", (-1.0, 1.0)
    ),
    "perceptual": _distance("mean square difference of relu3_3", ("vgg16",), "PerceptualLoss()"),
}


def available() -> dict[str, MetricInfo]:
    """{name: metric} of all metrics of two pictures. The names are those of `compare` and `vggfeat compare`.

    Example:
        >>> from vggfeat import metrics
        >>> dists = metrics.available()["dists"]
        >>> dists.direction, dists.range, dists.networks, dists.bundled
        ('lower', (0.0, 2.0), ('vgg16',), True)
        >>> dists.code, dists.accumulated
        ('DISTS()', 'MeanDISTS()')
    """
    return dict(_METRICS)


def __getattr__(name: str) -> Any:
    if name in _CLASSES:
        return getattr(import_module("vggfeat.losses.accumulated"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
