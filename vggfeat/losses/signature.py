"""One line that says which metric a number is: loss, network, weights, input range, resizing, precision, version."""

from collections.abc import Mapping
from importlib.metadata import version

from torch import Tensor

from vggfeat.features import tensors
from vggfeat.features.trunk import Trunk
from vggfeat.losses.base import FeatureLoss
from vggfeat.losses.weighted_sum import WeightedSum
from vggfeat.networks.weights import WeightsEntry
from vggfeat.pictures.ranges import RANGES


def signature(trunk: Trunk, loss: FeatureLoss | WeightedSum | None = None, *, resize: str = "none") -> str:
    """The line that identifies the values of `loss` over the features of `trunk`, or those features.

    Values can be compared or averaged only if their lines are equal. The hash of the weights is that of the published
    file, or else that of the weights' values; the hash of a loss is that of its heads. `resize` says how the images
    were resized before. The line names neither the device nor whether `loss` takes a mean or a sum over the batch.

    Example:
        >>> from vggfeat import ContentLoss, FeatureExtractor
        >>> from vggfeat.losses.signature import signature
        >>> loss = ContentLoss({"relu1_2": 0.5})
        >>> signature(FeatureExtractor("vgg16", loss.layers), loss).split(" | ")[:2]
        ['ContentLoss(layers=relu1_2:0.5 kind=l2)', 'vgg16 imagenet1k_v1 7dc6328ec55b']
    """
    low, high = RANGES[trunk.input_range]
    mean, std = ((trunk.offset - low) / (high - low), trunk.scale / (high - low))
    pooling = getattr(trunk, "pooling", "max")
    fields = {
        "pooling": pooling,
        "mean": _numbers(mean),
        "std": _numbers(std),
        "input_range": trunk.input_range,
        "resize": resize,
        "precision": trunk.precision,
    }
    return line([*([] if loss is None else [_loss(loss)]), _network(trunk)], fields)


def line(parts: list[str], fields: Mapping[str, str]) -> str:
    """The parts and `name=value` fields of a signature, followed by the version of vggfeat, in one line."""
    return " | ".join([*parts, *(f"{name}={value}" for name, value in fields.items()), f"vggfeat {version('vggfeat')}"])


def _network(trunk: Trunk) -> str:
    entry = getattr(trunk, "weights_entry", None)
    if isinstance(entry, WeightsEntry) and entry.sha256:
        return f"{trunk.name} {entry.name} {entry.sha256[:12]}"
    found = getattr(trunk, "weights_digest", None) or tensors.digest(trunk.buffers())
    return f"{trunk.name} {found[:12]}"


def _loss(loss: FeatureLoss | WeightedSum) -> str:
    if isinstance(loss, WeightedSum):
        return " + ".join(f"{loss.weights[name]:g} {_loss(term)}" for name, term in loss.losses.items())
    settings = {
        name: value
        for name, value in sorted(vars(loss).items())
        if isinstance(value, str | int | float) and not name.startswith("_") and name not in ("training", "reduction")
    }
    if heads := dict(loss.named_buffers()):
        settings["heads"] = tensors.digest(heads.values())[:12]
    else:
        settings = {"layers": ",".join(f"{name}:{weight:g}" for name, weight in loss.weights.items()), **settings}
    return f"{type(loss).__name__}({' '.join(f'{name}={value}' for name, value in settings.items())})"


def _numbers(x: Tensor) -> str:
    return ",".join(f"{value:.4g}" for value in tensors.values(x.flatten().float().cpu()))
