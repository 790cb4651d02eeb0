"""Pure functions of tensors. Nothing here knows a network, a file or a target.

Statistics of half-precision features are accumulated in float32 and returned in float32; on a CPU, Gram products of
bfloat16 are rounded to it once for each part of the positions.
"""

from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint  # pyright: ignore[reportUnknownVariableType] (untyped upstream)

from vggfeat.errors import InputError
from vggfeat.features.tensors import at_least_float32, without_autocast

GramDivisor = Literal["hw", "chw", "none"]

# bfloat16 products are rounded once a part, and summed in float32: the more parts, the smaller the rounding.
_GRAM_PARTS = 16


def gram(x: Tensor, *, divide_by: GramDivisor = "hw") -> Tensor:
    """The Gram matrix of features: the inner products of their channels over space.

    `x`: (N, C, H, W). Returns (N, C, C) in float32 at least. `divide_by` is the convention: `hw` divides by H·W
    (the notebook of Gatys et al., pastiche, pystiche), `chw` by C·H·W (neural-style, BasicSR, the PyTorch
    examples), `none` leaves the products undivided (Gatys et al. 2016, piq).
    """
    if x.ndim != 4:
        raise InputError(f"features are (N, C, H, W), not of shape {tuple(x.shape)}")
    if divide_by not in get_args(GramDivisor):
        raise InputError(f"unknown divide_by '{divide_by}': known are {', '.join(get_args(GramDivisor))}")
    channels, height, width = x.shape[1:]
    divisor = {"hw": height * width, "chw": channels * height * width, "none": 1}[divide_by]
    # For channels_last features this is a view.
    rows = x.permute(0, 2, 3, 1).flatten(1, 2)
    with without_autocast(x.device.type):
        return _Gram.apply(rows) / divisor  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]


class _Gram(torch.autograd.Function):
    """Rows (N, P, C) to products (N, C, C), with one matrix product in the backward pass where autograd takes two."""

    generate_vmap_rule = True

    @staticmethod
    def forward(rows: Tensor) -> Tensor:
        if rows.dtype == torch.bfloat16 and not rows.is_cuda:
            each = rows.shape[1] // _GRAM_PARTS
            parts = rows[:, : each * _GRAM_PARTS].reshape(len(rows), _GRAM_PARTS, each, rows.shape[2])
            rest = rows[:, each * _GRAM_PARTS :]
            return (parts.mT @ parts).sum(1, dtype=torch.float32) + (rest.mT @ rest).float()
        # float16 cannot hold the products, and a GPU forms float32 products of bfloat16 at full speed when told to.
        if rows.is_cuda and rows.dtype in (torch.bfloat16, torch.float16):
            return torch.bmm(rows.mT, rows, out_dtype=torch.float32)
        rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
        return rows.mT @ rows

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:  # noqa: ANN401, ARG004 (torch's own)
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:  # noqa: ANN401 (torch's own)
        (rows,) = ctx.saved_tensors
        gradient = grad_outputs[0] + grad_outputs[0].mT
        if rows.dtype == torch.float16:
            return (rows.float() @ gradient).to(rows.dtype)
        return rows @ gradient.to(rows.dtype)


def total_variation(images: Tensor, *, power: Literal[1, 2] = 2) -> Tensor:
    """How much neighbouring pixels differ: (N, C, H, W) to (N,).

    The mean over rows and channels of |difference|^power between vertical neighbours, plus the same between
    horizontal ones, so that the value does not depend on the size. An axis of one pixel counts nothing.
    """
    x = images.to(torch.promote_types(images.dtype, torch.float32))
    total = x.new_zeros(len(x))
    for axis in (2, 3):
        if x.shape[axis] > 1:
            difference = x.diff(dim=axis)
            total = total + (difference.abs() if power == 1 else difference.square()).mean(dim=(1, 2, 3))
    return total


def unit_normalize(x: Tensor, *, epsilon: float = 1e-10) -> Tensor:
    """Features of unit length: (N, C, H, W) to the same shape, each vector of channels over its norm plus epsilon.

    Zhang et al. (2018), LPIPS. Where a vector is zero the result is zero, and so is its gradient, which is NaN in the
    `lpips` package. Computed in float32 at least: half precision would lose the epsilon.
    """
    x = at_least_float32(x)
    squares = x.square().sum(1, keepdim=True)
    # The least normal number changes no norm that is not zero, and keeps the root's slope finite where it is.
    norm = squares.clamp_min(torch.finfo(x.dtype).tiny).sqrt()
    return x / torch.where(squares > 0, norm + epsilon, torch.inf)


def mean_std(x: Tensor, *, epsilon: float = 1e-8) -> Tensor:
    """The mean and standard deviation of each channel over space: (N, C, H, W) to (N, 2, C).

    The deviation is that of the population, sqrt(variance + epsilon), whose slope stays finite. Huang & Belongie
    (2017) compare styles by these two.
    """
    x = at_least_float32(x).flatten(2)
    variance, mean = torch.var_mean(x, dim=2, correction=0)
    return torch.stack([mean, (variance + epsilon).sqrt()], dim=1)


def mean_covariance(x: Tensor) -> Tensor:
    """The mean of the features over space and their covariance: (N, C, H, W) to (N, C + 1, C), the mean first.

    The covariance is that of the population, divided by H·W.
    """
    x = at_least_float32(x)
    mean = x.mean((2, 3))
    # Centred first: the difference of two large products would keep few digits.
    return torch.cat([mean[:, None], gram(x - mean[:, :, None, None])], dim=1)


def gaussian_w2(x: Tensor, y: Tensor) -> Tensor:
    """The squared 2-Wasserstein distance of the Gaussians with the moments `x` and `y`.

    `x`, `y`: (N, C + 1, C) as `mean_covariance` returns them; `y` may have a batch of one. Returns (N,):
    |mean difference|² + trace(A + B - 2 (A^1/2 B A^1/2)^1/2), at least 0 up to rounding (Olkin & Pukelsheim, 1982).
    """
    y = y.expand_as(x)
    means = (x[:, 0] - y[:, 0]).square().sum(1)
    a, b = x[:, 1:], y[:, 1:]
    traces = (a + b).diagonal(dim1=1, dim2=2).sum(1)
    cross: Tensor = _TraceOfRoot.apply(a, b)  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    return means + traces - 2 * cross


class _TraceOfRoot(torch.autograd.Function):
    """trace((A^1/2 B A^1/2)^1/2) of symmetric positive semi-definite (N, C, C), with a gradient that stays finite.

    Autograd's way through the eigenvectors divides by differences of eigenvalues, which repeat and vanish in rank-
    deficient covariances. The gradient for B is A^1/2 (A^1/2 B A^1/2)^-1/2 A^1/2 / 2, and likewise for A.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:  # noqa: ANN401 (torch's own)
        ctx.save_for_backward(a, b)
        root = _power(a, 0.5)
        return _eigh(root @ b @ root)[0].clamp_min(0).sqrt().sum(-1)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, Tensor | None]:  # noqa: ANN401 (torch's own)
        gradient = grad_outputs[0][:, None, None] / 2
        found: list[Tensor | None] = []
        for wanted, (of, other) in zip(ctx.needs_input_grad, (ctx.saved_tensors, ctx.saved_tensors[::-1]), strict=True):
            root = _power(other, 0.5) if wanted else of
            found.append(gradient * (root @ _power(root @ of @ root, -0.5) @ root) if wanted else None)
        return found[0], found[1]


def _power(matrix: Tensor, exponent: float) -> Tensor:
    """A power of symmetric positive semi-definite matrices; directions of no extent stay so."""
    values, vectors = _eigh(matrix)
    least = values[..., -1:].clamp_min(0) * torch.finfo(matrix.dtype).eps * matrix.shape[-1]
    powers = torch.where(values > least, values.clamp_min(torch.finfo(matrix.dtype).tiny) ** exponent, 0.0)
    return (vectors * powers[..., None, :]) @ vectors.mT


def _eigh(matrix: Tensor) -> tuple[Tensor, Tensor]:
    solve = cast("Any", torch.linalg.eigh)  # pyright: ignore[reportUnknownMemberType] (untyped upstream)
    try:
        return solve(matrix)
    except RuntimeError:  # float32 does not converge for every covariance of little rank
        values, vectors = solve(matrix.double())
        return values.to(matrix.dtype), vectors.to(matrix.dtype)


def sorted_projections(x: Tensor, directions: Tensor) -> Tensor:
    """Features projected on directions and sorted over space: (N, C, H, W) and (C, K) to (N, K, H·W)."""
    return (at_least_float32(x).flatten(2).mT @ directions).mT.sort(dim=2).values


def quantile_distance(x: Tensor, y: Tensor) -> Tensor:
    """The mean square difference of sorted samples, (N, K, P) and (N, K, Q) to (N,): the squared W2 in one dimension.

    Where P and Q differ, `y` is read at the quantiles of `x`, linearly between its samples.
    """
    if x.shape[2] != y.shape[2]:
        y = torch.nn.functional.interpolate(y, size=x.shape[2], mode="linear", align_corners=True)
    return (x - y).square().mean((1, 2))


def contextual_similarity(x: Tensor, y: Tensor, *, bandwidth: float = 0.5, chunk: int = 1024) -> Tensor:
    """How well the features of `y` are found among those of `x`, wherever they are.

    `x`, `y`: (N, C, H, W), of any two sizes; `y` may have a batch of one. Returns (N,) in (0, 1].

    Mechrez et al. (2018): cosine distances of vectors centred on the mean of `y`, each relative to the least in its
    row plus 1e-5, become weights exp((1 - d) / bandwidth) that add up to 1 over `y`; the similarity is the mean over
    `y` of the greatest weight over `x`. `chunk` positions of `x` are looked at at a time, and again in the backward
    pass, so that memory grows with `chunk` times the positions of `y` and not with their product.
    """
    x, y = at_least_float32(x).flatten(2), at_least_float32(y).flatten(2)
    centre = y.mean(2, keepdim=True)
    x, y = (unit_normalize((z - centre)[..., None])[..., 0] for z in (x, y))
    y = y.expand(len(x), -1, -1)

    def greatest(part: Tensor) -> Tensor:
        distance = 1 - part.mT @ y
        relative = distance / (distance.amin(2, keepdim=True) + 1e-5)
        return ((1 - relative) / bandwidth).softmax(2).amax(1)

    parts = [x[:, :, start : start + chunk] for start in range(0, x.shape[2], chunk)]
    found = [checkpoint(greatest, part, use_reentrant=False) if x.requires_grad else greatest(part) for part in parts]
    return torch.stack(found).amax(0).mean(1)


def nearest_cosine_distance(x: Tensor, y: Tensor, *, chunk: int = 1024) -> Tensor:
    """How far the features of `x` are from the nearest among those of `y`, wherever these are.

    `x`, `y`: (N, C, H, W), of any two sizes; `y` may have a batch of one. Returns (N,): the mean over the positions of
    `x` of 1 minus the greatest cosine, both centred on the mean of `y`. The gradient goes to `x` alone. `chunk`
    positions of `x` are looked at at a time.
    """
    x, y = at_least_float32(x).flatten(2), at_least_float32(y.detach()).flatten(2)
    centre = y.mean(2, keepdim=True)
    x, y = (unit_normalize((z - centre)[..., None])[..., 0] for z in (x, y))
    y = y.expand(len(x), -1, -1)
    with torch.no_grad():
        starts = range(0, x.shape[2], chunk)
        nearest = torch.cat([(x[:, :, start : start + chunk].mT @ y).argmax(2) for start in starts], dim=1)
    matched = y.gather(2, nearest[:, None].expand_as(x))
    return 1 - (x * matched).sum(1).mean(1)
