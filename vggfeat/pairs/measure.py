"""The metrics, and their values for a batch of pairs. Metrics share networks."""

from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from math import inf
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, cast

from vggfeat.errors import InputError, one_of
from vggfeat.losses.metrics import MetricInfo, available
from vggfeat.networks import weights as weights_table
from vggfeat.pairs.heatmap import HEAT_TOP

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from vggfeat.features.device import Precision
    from vggfeat.features.trunk import Trunk
    from vggfeat.losses.base import FeatureLoss
    from vggfeat.losses.criterion import Criterion
    from vggfeat.losses.lpips import Net


def _described(metric: MetricInfo) -> str:
    equal = "infinite (in JSON null)" if metric.equal == inf else f"{metric.equal:g}"
    return f"{metric.definition}, {equal} for equal pictures"


METRICS: Mapping[str, str] = {name: _described(metric) for name, metric in available().items()}
"""{metric: what it is, and its value for equal pictures}."""

DEFAULT_METRICS = ("lpips-vgg", "dists", "psnr", "ssim")

# The other metrics are sums over layers.
_SUMS = tuple(name for name, metric in available().items() if metric.networks and name != "perceptual")

_SSIM_WINDOW = 11


def known_metrics(
    metrics: str | Sequence[str], known: Iterable[str] = METRICS, what: str = "metric"
) -> tuple[str, ...]:
    """The metrics without duplicates. Raises `InputError` for names that are not among `known`, and for none."""
    names: list[Any] = [metrics] if isinstance(metrics, str) or not hasattr(metrics, "__iter__") else list(metrics)
    for name in names:
        one_of(what, name, known)
    if not names:
        raise InputError(f"no metric to compare by: choose from {', '.join(known)}")
    return tuple(dict.fromkeys(names))


def has_layers(metric: str) -> bool:
    """Whether a metric is a sum over layers."""
    return metric in _SUMS


class Measures:
    """Computes the requested metrics, and heat maps if `heat` is true, with as few networks as possible."""

    def __init__(
        self,
        metrics: Sequence[str],
        *,
        layers: bool,
        heat: bool,
        device: "torch.device",
        precision: "Precision",
        resize: str | None = None,
    ) -> None:
        from vggfeat.losses.content import ContentLoss
        from vggfeat.losses.lpips import LPIPSLoss
        from vggfeat.losses.perceptual import PerceptualLoss
        from vggfeat.losses.similarity import METRIC_CRITERIA

        self.metrics = tuple(metrics)
        self.layers = layers
        self._resize = resize or "none"
        options: dict[str, Any] = {"check": "off", "precision": precision, "device": device}
        self.heat_metric = next((name for name in metrics if name.startswith("lpips")), "lpips-vgg") if heat else None
        networks = [self.heat_metric, *metrics] if self.heat_metric else list(metrics)
        self._criteria: dict[str, Criterion[Any]] = {}
        for name in dict.fromkeys(networks):
            if name in METRIC_CRITERIA:
                self._criteria[name] = METRIC_CRITERIA[name](reduction="none", **options)
        self._losses: dict[str, FeatureLoss] = {name: x.loss for name, x in self._criteria.items() if name in metrics}
        if "perceptual" in metrics:
            self._criteria["perceptual"] = PerceptualLoss(**options)
            self._losses["perceptual"] = ContentLoss(["relu3_3"], reduction="none").to(device)
        _share_networks(self._criteria.values())
        self._heat = LPIPSLoss(_net(self.heat_metric), spatial=True).to(device) if self.heat_metric else None

    def __call__(self, a: "Tensor", b: "Tensor") -> "tuple[dict[str, list[float]], Tensor | None]":
        """{metric: N values} for two batches (N, 3, H, W) in [0, 1], and the distances (N, 1, H, W) of heat maps."""
        values = _kornia(self.metrics, a, b)
        heat = None
        for trunk in dict.fromkeys(criterion.trunk for criterion in self._criteria.values()):
            read, distances = self._read(trunk, a, b)
            values |= read
            heat = heat if distances is None else distances
        order = [key for name in self.metrics for key in values if key.partition("/")[0] == name]
        return {name: [float(value) for value in values[name].cpu()] for name in order}, heat

    def _read(self, trunk: "Trunk", a: "Tensor", b: "Tensor") -> "tuple[dict[str, Tensor], Tensor | None]":
        """The metrics of one network, and its distances for heat maps. Its features are freed on return."""
        from vggfeat.losses.base import LayerSumLoss

        criteria = {name: criterion for name, criterion in self._criteria.items() if criterion.trunk is trunk}
        criterion = next(iter(criteria.values()))
        x, y = criterion.features(a), criterion.features(b)
        values: dict[str, Tensor] = {}
        for name, loss in self._losses.items():
            if name in criteria:
                target = loss.target(y)
                found = {name: loss(x, target)}
                if self.layers and isinstance(loss, LayerSumLoss):
                    layers = loss.per_layer(x, target)
                    found |= {f"{name}/{layer}": value for layer, value in layers.items()}
                # DISTS and its parts are negative only by rounding.
                values |= {key: each.clamp_min(0) for key, each in found.items()} if name == "dists" else found
        if self._heat is None or self.heat_metric not in criteria:
            return values, None
        return values, self._heat(x, self._heat.target(y))

    @property
    def metadata(self) -> dict[str, Any]:
        """The definition, network and weights of each metric, and the scale of the heat maps."""
        metadata: dict[str, Any] = {"metrics": {name: self._about(name) for name in self.metrics}}
        if self.heat_metric:
            metadata["heatmap"] = {"metric": f"{self.heat_metric}, spatial", "black": 0, "white": HEAT_TOP}
        return metadata

    def signature(self, name: str) -> str:
        """The line to cite beside a value of metric `name`. Values whose lines differ are different metrics."""
        from vggfeat.losses.signature import line, signature

        if name in self._criteria:
            return signature(self._criteria[name].trunk, self._losses[name], resize=self._resize)
        fields = {"input_range": "unit", "resize": self._resize, "precision": "float32"}
        return line([name, f"kornia {version('kornia')}"], fields)

    def _about(self, name: str) -> dict[str, str]:
        from vggfeat.features.extractor import FeatureExtractor
        from vggfeat.features.shift_tolerant import ShiftTolerant

        about = {"metric": METRICS[name], "signature": self.signature(name)}
        if name not in self._criteria:
            return {**about, "by": f"kornia {version('kornia')}"}
        trunk = self._criteria[name].trunk
        if isinstance(trunk, FeatureExtractor):
            about |= {"net": trunk.network, "weights": trunk.weights_entry.name, "sha256": trunk.weights_entry.sha256}
        elif isinstance(trunk, ShiftTolerant):
            about |= {"net": trunk.name, "weights": "stlpips", "sha256": weights_table.STLPIPS_SHA256}
        else:
            about |= _about_squeezenet()
        if name.startswith("lpips"):
            about |= {"version": self._criteria[name].loss.version, "heads": f"lpips {version('lpips')}"}
        elif name == "dists":
            about |= {"alpha_beta_sha256": weights_table.DISTS_SHA256}
        return about


def _share_networks(criteria: "Iterable[Criterion[Any]]") -> None:
    """Let criteria read one network in one pass, if it has the layers of all of them."""
    import torch

    from vggfeat.features import tensors
    from vggfeat.features.extractor import FeatureExtractor

    kept: dict[object, list[FeatureExtractor]] = {}
    # Those with the most layers come first.
    for criterion in sorted(criteria, key=lambda each: -len(each.trunk.layers)):
        trunk = criterion.trunk
        if isinstance(trunk, FeatureExtractor):
            normalisation = tuple(tensors.values(torch.cat([trunk.offset, trunk.scale]).flatten()))
            key = trunk.network, trunk.weights_entry.sha256, trunk.pooling, trunk.channels_last, normalisation
            others = kept.setdefault(key, [])
            same = [other for other in others if set(trunk.layers) <= set(other.layers)]
            others += [] if same else [trunk]
            criterion.trunk = (same or [trunk])[0]


def _net(metric: str) -> "Net":
    return cast("Net", metric.removeprefix("lpips-"))


def _about_squeezenet() -> dict[str, str]:
    from torchvision.models import SqueezeNet1_1_Weights

    # The file name contains the first digits of its sha256, which are checked when it is loaded.
    net, _, digits = PurePath(SqueezeNet1_1_Weights.IMAGENET1K_V1.url).stem.partition("-")
    return {"net": net, "weights": "imagenet1k_v1", "sha256": digits}


def _kornia(metrics: Iterable[str], a: "Tensor", b: "Tensor") -> "dict[str, Tensor]":
    """{metric: (N,)} of PSNR and SSIM, if they are among the metrics."""
    import torch

    values: dict[str, Tensor] = {}
    if "psnr" in metrics:
        from kornia.metrics import psnr

        # kornia returns one PSNR for a whole batch.
        values["psnr"] = torch.stack([psnr(x, y, 1.0) for x, y in zip(a, b, strict=True)])
    if "ssim" in metrics:
        from kornia.metrics import ssim

        if min(a.shape[2:]) < _SSIM_WINDOW:
            raise InputError(f"pictures of {a.shape[3]}x{a.shape[2]} pixels are too small for ssim: "
                             f"it needs at least {_SSIM_WINDOW} a side")  # fmt: skip
        values["ssim"] = ssim(a, b, _SSIM_WINDOW, padding="valid").mean((1, 2, 3))
    return values
