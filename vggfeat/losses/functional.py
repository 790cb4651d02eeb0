"""Distances of images, and statistics of features, as functions: `from vggfeat import functional as F`.

A distance builds its network at the first call and keeps it, one in a process for each device and precision: all
functions share the tensors of the same weights. The network is built where the images are. `F.lpips(a, b)` equals
`LPIPS()(a, b)` to the bit; `release` frees the networks. Calls from several threads are safe.

Every call checks its images, which waits for a GPU once: pass `check="off"` in a training loop, or use the class, which
checks the first batches only. Weights from files need the class as well.

>>> import torch
>>> from vggfeat import functional as F
>>> image = torch.rand(1, 3, 64, 64)
>>> F.lpips(image, image, net="alex"), F.gram(image).shape
(tensor(0.), torch.Size([1, 3, 3]))
"""

import os
from collections.abc import Mapping
from threading import Lock
from typing import Any, Unpack, cast

import torch
from torch import Tensor, nn

from vggfeat.errors import InputError, near
from vggfeat.features.device import Precision
from vggfeat.features.trunk import Check
from vggfeat.losses.base import Distance, Layers, Reduction
from vggfeat.losses.criterion import Criterion, InputOptions, check_tensor
from vggfeat.losses.formulas import (
    GramDivisor,
    contextual_similarity,
    gaussian_w2,
    gram,
    mean_covariance,
    mean_std,
    nearest_cosine_distance,
    total_variation,
    unit_normalize,
)
from vggfeat.losses.lpips import Convention, Net, Version
from vggfeat.losses.perceptual import PerceptualLoss, StyleLoss
from vggfeat.losses.similarity import ADISTS, DISTS, DMM, LPIPS, STLPIPS
from vggfeat.pictures.ranges import InputRange

__all__ = [
    "adists", "contextual_similarity", "dists", "dmm", "gaussian_w2", "gram", "lpips", "mean_covariance", "mean_std",
    "nearest_cosine_distance", "perceptual", "release", "stlpips", "style", "total_variation", "unit_normalize",
]  # fmt: skip


class DistanceOptions(InputOptions, total=False):
    """Options of every distance of images, as for the classes."""

    reduction: Reduction
    """`mean` or `sum` over the batch gives a scalar, `none` gives (N,)."""
    both: bool
    """Let the gradient reach the second argument, too."""
    input_range: InputRange
    """Range of the images: `unit` [0, 1], the default, `signed` [-1, 1] or `byte` [0, 255]."""
    precision: Precision
    """Precision of the network's arithmetic: `float32`, the default, `tf32`, `bfloat16`, `float16` or `auto`."""
    check: Check
    """Whether to check the values of the images: `warn`, the default, `raise` or `off`."""
    mask: Tensor | None
    """(N or 1, 1, H, W): weighs differences, see `Criterion.forward`."""


def lpips(
    prediction: Tensor,
    target: Tensor,
    *,
    net: Net | None = None,
    version: Version = "0.1",
    spatial: bool = False,
    exact: bool = False,
    convention: Convention = "lpips",
    **options: Unpack[DistanceOptions],
) -> Tensor:
    """LPIPS (Zhang et al. 2018) of two batches of images (N, 3, H, W): a scalar, or (N,). See `LPIPS`.

    Raises what the class raises, and `InputError` for an unknown option.

    Example:
        >>> import torch
        >>> from vggfeat import LPIPS, functional as F
        >>> a, b = torch.rand(2, 1, 3, 64, 64)
        >>> torch.equal(F.lpips(a, b, net="alex"), LPIPS("alex")(a, b))
        True
    """
    network = {"net": net, "version": version, "spatial": spatial, "exact": exact, "convention": convention}
    return _distance(LPIPS, prediction, target, network, options)


def stlpips(prediction: Tensor, target: Tensor, *, spatial: bool = False, **options: Unpack[DistanceOptions]) -> Tensor:
    """Shift-tolerant LPIPS (Ghildyal & Liu 2022) of images (N, 3, H, W), net `alex`: a scalar, or (N,). See `STLPIPS`.

    Example:
        >>> import torch
        >>> from vggfeat import functional as F
        >>> F.stlpips(*torch.rand(2, 4, 3, 32, 32), reduction="none").shape
        torch.Size([4])
    """
    return _distance(STLPIPS, prediction, target, {"spatial": spatial}, options)


def dists(
    prediction: Tensor, target: Tensor, *, resize: int | None = None, **options: Unpack[DistanceOptions]
) -> Tensor:
    """DISTS (Ding et al. 2020) of two batches of images (N, 3, H, W): a scalar, or (N,). See `DISTS`.

    Example:
        >>> import torch
        >>> from vggfeat import functional as F
        >>> F.dists(*torch.rand(2, 4, 3, 32, 32), reduction="none").shape
        torch.Size([4])
    """
    return _distance(DISTS, prediction, target, {}, options, resize=resize)


def adists(
    prediction: Tensor, target: Tensor, *, resize: int | None = None, **options: Unpack[DistanceOptions]
) -> Tensor:
    """A-DISTS (Ding et al. 2021) of two batches of images (N, 3, H, W): a scalar, or (N,). See `ADISTS`.

    Example:
        >>> import torch
        >>> from vggfeat import functional as F
        >>> F.adists(*torch.rand(2, 4, 3, 32, 32), reduction="none").shape
        torch.Size([4])
    """
    return _distance(ADISTS, prediction, target, {}, options, resize=resize)


def dmm(prediction: Tensor, target: Tensor, *, resize: int | None = None, **options: Unpack[DistanceOptions]) -> Tensor:
    """DMM (Chen et al. 2023) of two batches of images (N, 3, H, W): a scalar, or (N,). See `DMM`.

    Example:
        >>> import torch
        >>> from vggfeat import functional as F
        >>> F.dmm(*torch.rand(2, 1, 3, 128, 128), reduction="none").shape
        torch.Size([1])
    """
    return _distance(DMM, prediction, target, {}, options, resize=resize)


def perceptual(
    prediction: Tensor,
    target: Tensor,
    content: Layers = ("relu3_3",),
    style: Layers = (),
    *,
    network: str = "vgg16",
    distance: Distance = "l2",
    divide_by: GramDivisor = "chw",
    pixel: float = 0.0,
    tv: float = 0.0,
    **options: Unpack[DistanceOptions],
) -> Tensor:
    """The perceptual loss of two batches of images (N, 3, H, W): a scalar, or (N,). See `PerceptualLoss`.

    Example:
        >>> import torch
        >>> from vggfeat import functional as F
        >>> image = torch.rand(1, 3, 32, 32)
        >>> F.perceptual(image, image, ["relu1_2"])
        tensor(0.)
    """
    found = {"content": content, "style": style, "network": network, "distance": distance}
    found |= {"divide_by": divide_by, "pixel": pixel, "tv": tv}
    return _distance(PerceptualLoss, prediction, target, found, options)


def style(
    prediction: Tensor,
    target: Tensor,
    layers: Layers = ("relu1_2", "relu2_2", "relu3_3", "relu4_3"),
    *,
    network: str = "vgg16",
    divide_by: GramDivisor = "hw",
    **options: Unpack[DistanceOptions],
) -> Tensor:
    """The Gram style loss (Gatys et al. 2016) of images, whose sizes may differ: a scalar, or (N,). See `StyleLoss`.

    Example:
        >>> import torch
        >>> from vggfeat import functional as F
        >>> F.style(torch.rand(2, 3, 32, 32), torch.rand(1, 3, 48, 40), ["relu1_2"], reduction="none").shape
        torch.Size([2])
    """
    found = {"layers": layers, "network": network, "divide_by": divide_by}
    return _distance(StyleLoss, prediction, target, found, options)


def release() -> None:
    """Free the networks that the functions share. The next call builds its own again.

    Example:
        >>> from vggfeat import functional as F
        >>> F.release()
    """
    _shared.clear()


def _distance(
    make: type[Criterion[Any]],
    prediction: Tensor,
    target: Tensor,
    network: Mapping[str, object],
    options: DistanceOptions,
    *,
    resize: int | None = None,
) -> Tensor:
    """The distance by the shared criterion of class `make`, built with `network`."""
    known = DistanceOptions.__annotations__
    if unknown := next((name for name in options if name not in known), None):
        raise InputError(f"unknown option '{unknown}': {near(unknown, known)}")
    check_tensor(prediction)
    settings = dict(cast("Mapping[str, Any]", options))
    mask = settings.pop("mask", None)
    for name in ("input_range", "precision"):
        network = {**network, name: settings.pop(name)} if name in settings else network
    criterion = _shared.criterion(make, {**network, "device": prediction.device})
    return criterion.variant(resize=resize, **settings)(prediction, target, mask)


class _SharedCriteria:
    """Builds each criterion once, and lets all of them share equal weights."""

    def __init__(self) -> None:
        self.clear()
        if hasattr(os, "register_at_fork"):  # a child may inherit a lock that nobody will release
            os.register_at_fork(after_in_child=self._renew_lock)

    def _renew_lock(self) -> None:
        self._lock = Lock()

    def clear(self) -> None:
        self._renew_lock()
        self._criteria: dict[object, Criterion[Any]] = {}
        self._tensors: dict[object, Tensor] = {}

    def criterion(self, make: type[Criterion[Any]], arguments: Mapping[str, Any]) -> Criterion[Any]:
        key = make, _hashable(arguments)
        if found := self._criteria.get(key):
            return found
        with self._lock:
            if found := self._criteria.get(key):
                return found
            made = make(**arguments)
            for module in made.modules():
                self._intern(module)
            self._criteria[key] = made
            return made

    def _intern(self, module: nn.Module) -> None:
        """Replace the buffers of a module by equal ones of another criterion."""
        name = getattr(module, "name", type(module).__name__)
        for field, x in list(module.named_buffers(recurse=False)):
            key = name, field, x.device, x.dtype, x.shape, x.stride()
            kept = self._tensors.setdefault(key, x)
            if x.is_meta or torch.equal(kept, x):
                module.register_buffer(field, kept, persistent=False)


def _hashable(value: object) -> object:
    if isinstance(value, Mapping):
        return tuple((name, _hashable(item)) for name, item in cast("Mapping[object, object]", value).items())
    if isinstance(value, list | tuple):
        return tuple(map(_hashable, cast("list[object]", value)))
    return value


_shared = _SharedCriteria()
