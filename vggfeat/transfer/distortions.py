"""Distortions that a layer or a metric notices most and least: eigendistortions and maximum differentiation."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, Unpack

import torch
from kornia.metrics import ssim
from torch import Tensor

from vggfeat.errors import InputError, LayerError, check_number, one_of
from vggfeat.features import tensors
from vggfeat.features.device import Precision, choose_device, settings
from vggfeat.features.extractor import FeatureExtractor
from vggfeat.losses.perceptual import PerceptualLoss
from vggfeat.losses.similarity import METRIC_CRITERIA
from vggfeat.networks.weights import Preprocessing
from vggfeat.pictures import sources
from vggfeat.pictures.sources import Source
from vggfeat.transfer.loop import Progress

Distance = Callable[[Tensor, Tensor], Tensor]
"""Distances (N,) of two batches (N, 3, H, W) in [0, 1]."""

WINDOW = 11
"""The side of the window of `ssim`, in pixels."""

METRICS = ("mse", "ssim", *METRIC_CRITERIA, "perceptual")
"""The metrics that `maximum_differentiation` knows by name."""

# The largest picture, in values, whose whole matrix `exact=True` computes.
_EXACT_VALUES = 4096

# An eigenvector is found when F v - value v is this short, relative to the largest eigenvalue.
_TOLERANCES = {"most": 1e-4, "least": 1e-7}

# Products with F are linear combinations of earlier ones. After this many steps they are computed afresh.
_REFRESHED = 16

# How far the held metric may be off, relatively: after each step, and at the end.
_HELD, _HELD_AT_LAST = 1e-2, 1e-4


class Distortions(ABC):
    """Two distortions of a picture in progress, the most and the least noticeable one.

    Iterate over it for `Progress`, whose `image` is (2, 3, H, W): the picture with the most and the least noticeable
    distortion. `result()` runs to the end and returns `image`.

    Args:
        picture: (1, 3, H, W) in [0, 1], on the device that computes.

    Example:
        >>> import torch
        >>> from vggfeat import eigendistortions
        >>> run = eigendistortions(torch.rand(1, 3, 16, 16), "relu1_2", steps=2)
        >>> [(progress.stage, progress.step, tuple(progress.image.shape)) for progress in run]
        [(1, 1, (2, 3, 16, 16)), (1, 2, (2, 3, 16, 16)), (2, 1, (2, 3, 16, 16)), (2, 2, (2, 3, 16, 16))]
    """

    values: Mapping[str, float]
    """How strongly the two are noticed so far, as `most` and `least`."""

    def __init__(self, picture: Tensor) -> None:
        self.picture = picture
        self._progress = self._run()
        self._began = time.monotonic()

    @property
    @abstractmethod
    def changes(self) -> Tensor:
        """The distortions so far, most and least noticeable: (2, 3, H, W), on the device that computes."""

    @property
    def image(self) -> Tensor:
        """The picture with each distortion so far added: (2, 3, H, W). Eigendistortions may leave [0, 1]."""
        return self.picture + self.changes

    def __iter__(self) -> Iterator[Progress]:
        return self._progress

    def result(self) -> Tensor:
        """Run to the end and return `image`."""
        for _ in self._progress:
            pass
        return self.image

    @abstractmethod
    def _run(self) -> Iterator[Progress]:
        """Compute, and yield progress after each step."""

    def _at(self, stage: int, stages: int, step: int, steps: int) -> Progress:
        return Progress(
            stage=stage,
            stages=stages,
            step=step,
            steps=steps,
            taken=(stage - 1) * steps + step,
            seconds=time.monotonic() - self._began,
            done=(stage - 1 + step / steps) / stages,
            image=self.image,
            terms={name: torch.tensor(value) for name, value in self.values.items()},
        )


class Eigendistortions(Distortions):
    """Eigendistortions in progress, as `eigendistortions` returns them. `changes` have a norm of 1."""

    def __init__(self, extract: FeatureExtractor, picture: Tensor, *, steps: int, seed: int, exact: bool) -> None:
        self._extract, self._steps, self._exact = extract, steps, exact
        noise = torch.randn(picture.shape, generator=torch.Generator().manual_seed(seed)).to(picture)
        self._vectors = {name: noise / noise.norm() for name in ("most", "least")}
        self.values = {}
        super().__init__(picture)

    @property
    def changes(self) -> Tensor:
        """The distortions so far, most and least noticeable: (2, 3, H, W) of norm 1."""
        return torch.cat([*self._vectors.values()])

    def _run(self) -> Iterator[Progress]:
        if self._exact:
            self._decompose()
            yield self._at(1, 1, 1, 1)
            return
        multiply = self._products(1)
        for stage, name in enumerate(self._vectors, 1):
            for step, _ in enumerate(self._ascend(multiply, name), 1):
                yield self._at(stage, 2, step, self._steps)

    def _products(self, count: int) -> Callable[[Tensor], Tensor]:
        """The product of F = J'J with each row of (count, 3HW), where J is the Jacobian of the layer's response."""
        with torch.inference_mode(mode=False), torch.enable_grad():
            x = self.picture.clone().expand(count, -1, -1, -1).contiguous().requires_grad_()
            [y] = self._extract(x).values()
            weight = torch.zeros_like(y, requires_grad=True)
            [back] = torch.autograd.grad(y, x, weight, create_graph=True)  # linear in `weight`

        def multiply(rows: Tensor) -> Tensor:
            with torch.inference_mode(mode=False), settings(x.device, "float32"):
                [response] = torch.autograd.grad(back, weight, rows.view_as(x), retain_graph=True)
                [found] = torch.autograd.grad(y, x, response, retain_graph=True)
            return found.flatten(1)

        return multiply

    def _decompose(self) -> None:
        count = 3 * self.picture.shape[2]
        multiply = self._products(count)
        identity = torch.eye(self.picture.numel(), device=self.picture.device)
        matrix = torch.cat([multiply(rows) for rows in identity.split(count)]).double()
        values, vectors = torch.linalg.eigh((matrix + matrix.mT) / 2)
        for name, number in (("most", -1), ("least", 0)):
            self._vectors[name] = vectors[:, number].float().reshape(self.picture.shape)
            self.values = {**self.values, name: float(values[number].clamp_min(0))}

    def _ascend(self, multiply: Callable[[Tensor], Tensor], name: str) -> Iterator[None]:
        """Locally optimal conjugate gradients (Knyazev 2001): each step solves the problem in three directions."""
        v = self._vectors[name].flatten(1)
        fv = multiply(v)
        basis, images = [v], [fv]
        for step in range(1, self._steps + 1):
            value = (v * fv).sum()
            residual = fv - value * v
            length = residual.norm()
            if length == 0 or (step > 1 and length <= _TOLERANCES[name] * max(self.values.values())):
                if step == 1:
                    self.values = {**self.values, name: float(value)}
                    yield
                return
            residual = residual / length
            basis.insert(1, residual)
            images.insert(1, multiply(residual))
            q, triangle = torch.linalg.qr(torch.cat(basis).double().mT)
            fq = torch.linalg.solve_triangular(triangle, torch.cat(images).double().mT, upper=True, left=False)
            inner = q.mT @ fq
            values, vectors = torch.linalg.eigh((inner + inner.mT) / 2)
            number = -1 if name == "most" else 0
            new, image = ((columns @ vectors[:, number]).to(v)[None] for columns in (q, fq))
            along = (v * new).sum()
            moved, moved_image = new - along * v, image - along * fv
            size = moved.norm().clamp_min(torch.finfo(v.dtype).tiny)
            v, fv = new, image if step % _REFRESHED else multiply(new)
            basis, images = [v, moved / size], [fv, moved_image / size]
            self._vectors[name] = v.view_as(self.picture)
            self.values = {**self.values, name: float(values[number].clamp_min(0))}
            yield


class MaximumDifferentiation(Distortions):
    """Maximum differentiation in progress, as `maximum_differentiation` returns it."""

    def __init__(
        self, picture: Tensor, metric: Distance, hold: Distance, *, noise: float, steps: int, seed: int
    ) -> None:
        self._metric, self._hold, self._steps = metric, hold, steps
        generator = torch.Generator().manual_seed(seed)
        start = picture.cpu() + noise * torch.randn(picture.shape, generator=generator)
        self._images = start.clamp(0, 1).to(picture).repeat(2, 1, 1, 1)
        self.values, self._aim = {}, torch.zeros(2)
        super().__init__(picture)

    @property
    def changes(self) -> Tensor:
        """The distortions so far, most and least noticeable: (2, 3, H, W)."""
        return self._images - self.picture

    @property
    def held(self) -> tuple[float, float]:
        """The held metric of the two pictures as they are. The start of a run has the same value."""
        with torch.no_grad(), settings(self.picture.device, "float32"):
            most, least = tensors.values(self._hold(self._images, self.picture.expand_as(self._images)))
        return most, least

    def _run(self) -> Iterator[Progress]:
        signs = _rows(torch.tensor([1.0, -1.0]).to(self.picture))
        x = self._images
        score, uphill = self._gradient(self._metric, x)
        self._aim, across = self._gradient(self._hold, x)
        if not self._aim.gt(0).all() or not _dot(across, across).gt(0).all():
            raise InputError("the held metric is 0 for the noisy picture: nothing could change; raise noise")
        rate = _rows(0.1 * self.changes.flatten(1).norm(dim=1))
        for step in range(1, self._steps + 1):
            level = uphill - across * _rows(_dot(uphill, across) / _dot(across, across))
            length = _rows(level.flatten(1).norm(dim=1)).clamp_min(torch.finfo(x.dtype).tiny)
            moved, slope = self._restored((x + signs * rate * level / length).clamp(0, 1), _HELD)
            found, gradient = self._gradient(self._metric, moved)
            better = _rows((found - score) * signs.flatten() > 0)
            x, uphill, across = (
                torch.where(better, new, old) for new, old in ((moved, x), (gradient, uphill), (slope, across))
            )
            score = torch.where(better.flatten(), found, score)
            rate = rate * torch.where(better, 1.2, 0.5)
            if step == self._steps:
                x, _ = self._restored(x, _HELD_AT_LAST, tries=20)
                score, _ = self._gradient(self._metric, x)
            self._images = x
            most, least = tensors.values(score)
            self.values = {"most": most, "least": least}
            yield self._at(1, 1, step, self._steps)

    def _gradient(self, metric: Distance, x: Tensor) -> tuple[Tensor, Tensor]:
        """The distances (2,) and their gradients."""
        with torch.inference_mode(mode=False), torch.enable_grad(), settings(x.device, "float32"):
            x = x.detach().clone().requires_grad_()
            found = metric(x, self.picture.expand_as(x))
            [gradient] = torch.autograd.grad(found.sum(), x)
        return found.detach(), gradient

    def _restored(self, x: Tensor, tolerance: float, tries: int = 4) -> tuple[Tensor, Tensor]:
        """The images with the held metric back at its value, by Newton's method, and its gradient there."""
        for _ in range(tries):
            found, slope = self._gradient(self._hold, x)
            gap = self._aim - found
            if (gap.abs() <= tolerance * self._aim).all():
                return x, slope
            x = (x + slope * _rows(gap / _dot(slope, slope))).clamp(0, 1)
        return x, self._gradient(self._hold, x)[1]


def eigendistortions(
    image: Source,
    layer: str = "relu3_3",
    *,
    steps: int = 60,
    exact: bool = False,
    network: str = "vgg16",
    weights: Any = "default",
    seed: int = 0,
    device: str = "auto",
    pooling: Literal["max", "avg", "l2"] = "max",
    **preprocessing: Unpack[Preprocessing],
) -> Eigendistortions:
    """The changes of `image` that a layer notices most and least, among all changes of the same size.

    They are the eigenvectors of J'J with the largest and the smallest eigenvalue, where J is the Jacobian of the
    layer's response (Berardino et al. 2017). An eigenvalue is the squared change of the response over the squared
    change of the picture, for small changes. It is 0 for the least noticeable one if the layer has fewer values than
    the picture.

    Args:
        image: the picture: a file, or a float RGB tensor (1, 3, H, W) or (3, H, W) in [0, 1].
        layer: a layer such as `relu3_3`.
        steps: the most steps for each of the two. The largest eigenvalue converges in tens of steps; the smallest ones
            lie close together, and `values["least"]` falls as long as it runs.
        exact: compute the whole matrix and all its eigenvectors. For pictures of at most 4096 values, 36x36 pixels.
        network: the name of the network.
        weights: the name of a weights entry, a file, a state dict, or None for random weights.
        seed: of the noise from which both start.
        device: `auto` (CUDA, else MPS, else CPU) or a torch device.
        pooling: `max` as trained, `avg` or `l2`.
        preprocessing: `mean`, `std` and `input_order` of the weights, see `weights.Preprocessing`.

    Returns a run: iterate over it, or call `result()`. `changes` are the distortions, `values` the eigenvalues.

    Raises `ImageError`, `InputError`, `LayerError`, `WeightsError`.

    Example:
        >>> import torch
        >>> from vggfeat import eigendistortions
        >>> run = eigendistortions(torch.rand(1, 3, 16, 16), "relu1_2", steps=8)
        >>> pictures = run.result()
        >>> run.changes.flatten(1).norm(dim=1).round(decimals=3), run.values["most"] > 100 * run.values["least"]
        (tensor([1., 1.]), True)
    """
    check_number("steps", steps, 1, 100_000)
    place = choose_device(device)
    picture = sources.read(image, "image").to(place)
    if exact and picture.numel() > _EXACT_VALUES:
        raise InputError(
            f"the image has {picture.numel()} values: the whole matrix is computed for at most {_EXACT_VALUES}"
        )
    extract = FeatureExtractor(
        network, layer, weights=weights, pooling=pooling, check="off", device=place, **preprocessing
    )
    if len(extract.layers) != 1:
        raise LayerError(f"eigendistortions are of one layer, and '{layer}' names {len(extract.layers)}")
    return Eigendistortions(extract, picture, steps=steps, seed=seed, exact=exact)


def maximum_differentiation(
    image: Source,
    metric: str | Distance = "lpips-vgg",
    hold: str | Distance = "mse",
    *,
    noise: float = 0.1,
    steps: int = 100,
    seed: int = 0,
    device: str = "auto",
    precision: Precision = "float32",
) -> MaximumDifferentiation:
    """Two pictures as far from `image` by one metric, one as far as possible by another metric and one as near.

    Maximum differentiation (Wang & Simoncelli 2008) shows what metrics disagree about. It starts from the picture with
    noise, follows the gradient of `metric` where that does not change `hold`, and then corrects `hold`. All values stay
    in [0, 1].

    Args:
        image: the picture: a file, or a float RGB tensor (1, 3, H, W) or (3, H, W) in [0, 1].
        metric: the metric to make large and small: one of `METRICS`, or a function of two batches (N, 3, H, W) in
            [0, 1] that returns (N,), such as a criterion with `reduction="none"`. `ssim` means 1 - SSIM.
        hold: the metric that stays the same.
        noise: the standard deviation of the noise, above 0, which decides how far away the pictures are.
        steps: of the search.
        seed: of the noise.
        device: `auto` (CUDA, else MPS, else CPU) or a torch device.
        precision: of the networks of metrics given by name.

    Returns a run: iterate over it, or call `result()` for the pictures (2, 3, H, W), first the one that `metric` finds
    far. `values` are its distances, `held` those of `hold`.

    Raises `ImageError`, `InputError`, `WeightsError`.

    Example:
        >>> import torch
        >>> from vggfeat import maximum_differentiation
        >>> image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        >>> run = maximum_differentiation(image, "ssim", hold="mse", steps=10)
        >>> pictures = run.result()
        >>> run.values["most"] > run.values["least"], abs(run.held[0] / run.held[1] - 1) < 0.001
        (True, True)
    """
    check_number("steps", steps, 1, 100_000)
    check_number("noise", noise, 1e-4, 1.0)
    if metric == hold:
        raise InputError(f"'{metric}' is held fixed, so it cannot be changed: name two metrics")
    place = choose_device(device)
    picture = sources.read(image, "image").to(place)
    distances = (
        _distance(name, each, picture, precision) if isinstance(each, str) else each
        for name, each in (("metric", metric), ("hold", hold))
    )
    return MaximumDifferentiation(picture, *distances, noise=noise, steps=steps, seed=seed)


def _distance(option: str, metric: str, picture: Tensor, precision: Precision) -> Distance:
    """A metric by name, as a distance to `picture`, whose features are computed once."""
    match one_of(option, metric, METRICS):
        case "mse":
            return lambda x, y: (x - y).square().mean((1, 2, 3))
        case "ssim":
            if min(picture.shape[2:]) < WINDOW:
                raise InputError(f"the image is {picture.shape[3]}x{picture.shape[2]}: ssim needs {WINDOW} a side")
            return lambda x, y: 1 - ssim(x, y, WINDOW, padding="valid").mean((1, 2, 3))
        case _:
            make: Callable[..., Any] = METRIC_CRITERIA.get(metric, PerceptualLoss)
            criterion = make(reduction="none", check="off", precision=precision, device=picture.device)
            target = criterion.target(picture)
            return lambda x, _: criterion(x, target)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """The scalar products (N,)."""
    return (a * b).flatten(1).sum(1)


def _rows(x: Tensor) -> Tensor:
    """(N,) as (N, 1, 1, 1)."""
    return x.view(-1, 1, 1, 1)
