"""Pure functions of feature tensors, with no knowledge of networks or files.

Statistics of half-precision features are accumulated and returned in float32. On CPU, a Gram matrix of bfloat16
features is the float32 sum of 16 partial products, each rounded to bfloat16.
"""

from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from vggfeat.errors import InputError, one_of
from vggfeat.features.products import add_product, product
from vggfeat.features.tensors import at_least_float32, without_autocast

GramDivisor = Literal["hw", "chw", "none"]

# Each partial product is rounded to bfloat16 and the sum is float32, so more parts make the rounding error smaller.
_GRAM_PARTS = 16
# Largest intermediate result of a loss that compares every position, such as the products of nearest neighbours.
CHUNK_BYTES = 1 << 26
# Copies of a chunk of sorted projections that are alive at a time, in units of its values.
_SLICE_COPIES = 7


def gram(x: Tensor, *, divide_by: GramDivisor = "hw") -> Tensor:
    """The Gram matrix of features (N, C, H, W): the inner products of the channels, (N, C, C), at least float32.

    `divide_by` names the convention: `hw` divides by H·W (the notebook of Gatys et al., pastiche, pystiche), `chw` by
    C·H·W (neural-style, BasicSR, the PyTorch examples), and `none` does not divide (Gatys et al. 2016, piq).
    Raises `InputError` for another shape or an unknown convention.

    Example:
        >>> import torch
        >>> from vggfeat import gram
        >>> x = torch.tensor([[1.0, 2.0], [3.0, 0.0]]).reshape(1, 2, 1, 2)  # two channels at two positions
        >>> gram(x, divide_by="none")
        tensor([[[5., 3.],
                 [3., 9.]]])
    """
    if x.ndim != 4:
        raise InputError(f"features have the shape {tuple(x.shape)}, not (N, C, H, W)")
    one_of("divide_by", divide_by, get_args(GramDivisor))
    channels, height, width = x.shape[1:]
    divisor = {"hw": height * width, "chw": channels * height * width, "none": 1}[divide_by]
    # For channels_last features this is a view.
    rows = x.permute(0, 2, 3, 1).flatten(1, 2)
    # Dynamo refuses a function with a jvp of its own.
    products: Any = _Gram if torch.compiler.is_compiling() else _GramWithTangent
    with without_autocast(x.device.type):
        return products.apply(rows) / divisor


class _Gram(torch.autograd.Function):
    """Rows (N, P, C) to products (N, C, C). The backward pass needs one matrix product; autograd would need two."""

    generate_vmap_rule = True

    @staticmethod
    def forward(rows: Tensor) -> Tensor:
        if rows.dtype == torch.bfloat16 and not rows.is_cuda:
            each = rows.shape[1] // _GRAM_PARTS
            parts = rows[:, : each * _GRAM_PARTS].reshape(rows.shape[0], _GRAM_PARTS, each, rows.shape[2])
            rest = rows[:, each * _GRAM_PARTS :]
            return (parts.mT @ parts).sum(1, dtype=torch.float32) + (rest.mT @ rest).float()
        # float16 would overflow. On a GPU, half-precision inputs with float32 output run at full speed.
        if rows.is_cuda and rows.dtype in (torch.bfloat16, torch.float16):
            return torch.bmm(rows.mT, rows, out_dtype=torch.float32)
        rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
        return product(rows.mT, rows)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:  # noqa: ARG004 (torch's own)
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        (rows,) = ctx.saved_tensors
        gradient = grad_outputs[0] + grad_outputs[0].mT
        if rows.dtype == torch.float16:
            return product(rows.float(), gradient).to(rows.dtype)
        return product(rows, gradient.to(rows.dtype))


class _GramWithTangent(_Gram):
    """`_Gram` with forward-mode differentiation."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:  # noqa: ARG004 (torch's own)
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        work = torch.promote_types(tangents[0].dtype, torch.float32)
        found = product(ctx.saved_tensors[0].to(work).mT, tangents[0].to(work))
        return found + found.mT


def total_variation(images: Tensor, *, power: Literal[1, 2] = 2) -> Tensor:
    """The mean difference of neighbouring pixels: (N, C, H, W) to (N,), at least float32 (Rudin et al. 1992).

    The mean of |difference|^power over vertical neighbours plus the mean over horizontal ones, so that the value does
    not depend on the size. An axis of one pixel adds nothing.

    Example:
        >>> import torch
        >>> from vggfeat import total_variation
        >>> stripes = torch.tensor([0.0, 1.0]).repeat(4).expand(1, 3, 8, 8)
        >>> total_variation(stripes)
        tensor([1.])
    """
    x = images.to(torch.promote_types(images.dtype, torch.float32))
    total = x.new_zeros(x.shape[0])
    for axis in (2, 3):
        if x.shape[axis] > 1:
            difference = x.diff(dim=axis)
            total = total + (difference.abs() if power == 1 else difference.square()).mean(dim=(1, 2, 3))
    return total


def unit_normalize(x: Tensor, *, epsilon: float = 1e-10) -> Tensor:
    """Divide each channel vector by its norm plus epsilon: (N, C, ...) to the same shape, at least float32.

    This is the normalisation of LPIPS (Zhang et al. 2018). A zero vector stays zero with a zero gradient; the `lpips`
    package returns NaN for that gradient.
    """
    x = at_least_float32(x)
    squares = x.square().sum(1, keepdim=True)
    # Clamping to the smallest normal number keeps the derivative of the root finite at zero.
    norm = squares.clamp_min(torch.finfo(x.dtype).tiny).sqrt()
    return x / torch.where(squares > 0, norm + epsilon, torch.inf)


def mean_std(x: Tensor, *, epsilon: float = 1e-8) -> Tensor:
    """The mean and standard deviation of each channel: (N, C, H, W) to (N, 2, C), at least float32.

    The deviation is sqrt(population variance + epsilon), which keeps its derivative finite (Huang & Belongie 2017).
    """
    x = at_least_float32(x).flatten(2)
    variance, mean = torch.var_mean(x, dim=2, correction=0)
    return torch.stack([mean, (variance + epsilon).sqrt()], dim=1)


def mean_covariance(x: Tensor) -> Tensor:
    """The mean of the features, and below it their covariance: (N, C, H, W) to (N, C + 1, C), at least float32.

    The covariance is that of the population, divided by H·W.
    """
    x = at_least_float32(x)
    mean = x.mean((2, 3))
    # Centre first: the difference of two large products would lose digits.
    return torch.cat([mean[:, None], gram(x - mean[:, :, None, None])], dim=1)


def gaussian_w2(x: Tensor, y: Tensor, *, root: Tensor | None = None) -> Tensor:
    """The squared 2-Wasserstein distance (N,) between Gaussians with the moments `x` and `y` (Olkin & Pukelsheim 1982).

    `x` and `y` are (N, C + 1, C) as `mean_covariance` returns them; `y` may have a batch size of 1. The distance is
    |mean difference|² + trace(A + B - 2 (B^1/2 A B^1/2)^1/2), at least 0 up to rounding. `root` is B^1/2, the
    `matrix_root` of the covariance of a fixed `y`: with it, one eigendecomposition gives both value and gradient.
    """
    y = y.expand_as(x)
    means = (x[:, 0] - y[:, 0]).square().sum(1)
    a, b = x[:, 1:], y[:, 1:]
    traces = (a + b).diagonal(dim1=1, dim2=2).sum(1)
    with torch.no_grad():
        root = matrix_root(b) if root is None else root.expand_as(b)
    cross: Tensor = cast("Any", _TraceOfRoot).apply(a, b, root)
    return means + traces - 2 * cross


def matrix_root(matrix: Tensor) -> Tensor:
    """The square roots of symmetric positive semi-definite matrices (N, C, C)."""
    return _power(*_eigh(matrix), 0.5)


class _TraceOfRoot(torch.autograd.Function):
    """trace((B^1/2 A B^1/2)^1/2) of symmetric positive semi-definite (N, C, C), with a finite gradient.

    Autograd would divide by differences of eigenvalues, which are zero for rank-deficient covariances. The gradient
    with respect to A is B^1/2 (B^1/2 A B^1/2)^-1/2 B^1/2 / 2; that with respect to B exchanges A and B.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, root: Tensor) -> Tensor:
        values, vectors = _eigh(_between(root, a))
        ctx.save_for_backward(a, b, root, values, vectors)
        return values.clamp_min(0).sqrt().sum(-1)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        a, b, root, values, vectors = ctx.saved_tensors
        if torch.is_grad_enabled():  # under create_graph: the gradient must itself be differentiable
            root = matrix_root(b) if ctx.needs_input_grad[1] else root
            values, vectors = _eigh(_between(root, a))
        gradient = grad_outputs[0][:, None, None] / 2
        to_a = gradient * _between(root, _power(values, vectors, -0.5)) if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return to_a, None, None
        root = matrix_root(a)
        return to_a, gradient * _between(root, _power(*_eigh(_between(root, b)), -0.5)), None


def _between(outer: Tensor, inner: Tensor) -> Tensor:
    """The product of outer, inner and outer again."""
    return product(product(outer, inner), outer)


def _power(values: Tensor, vectors: Tensor, exponent: float) -> Tensor:
    """A power of the matrices with these eigenvalues and eigenvectors, at least 0: zero eigenvalues stay zero."""
    least = values[..., -1:].clamp_min(0) * torch.finfo(values.dtype).eps * values.shape[-1]
    powers = torch.where(values > least, values.clamp_min(torch.finfo(values.dtype).tiny) ** exponent, 0.0)
    return product(vectors * powers[..., None, :], vectors.mT)


def _eigh(matrix: Tensor) -> tuple[Tensor, Tensor]:
    solve = cast("Any", torch.linalg.eigh)
    if torch.compiler.is_compiling():
        return solve(matrix)
    try:
        return solve(matrix)
    except RuntimeError:  # in float32 it does not always converge for covariances of low rank
        values, vectors = solve(matrix.double())
        return values.to(matrix.dtype), vectors.to(matrix.dtype)


def sorted_projections(x: Tensor, directions: Tensor) -> Tensor:
    """Project features on directions and sort over positions: (N, C, H, W) and (C, K) to (N, K, H·W)."""
    return product(at_least_float32(x).flatten(2).mT, directions).mT.sort(dim=2).values


def quantile_distance(x: Tensor, y: Tensor) -> Tensor:
    """Squared 2-Wasserstein distance in one dimension, averaged over K: sorted (N, K, P) and (N, K, Q) to (N,).

    This is the mean square difference of sorted samples. If P and Q differ, `y` is interpolated linearly to P samples.
    """
    return (x - _resampled(y, x.shape[2])).square().mean((1, 2))


def _resampled(quantiles: Tensor, count: int) -> Tensor:
    """Sorted samples (N, K, Q), interpolated linearly to (N, K, count)."""
    if quantiles.shape[2] == count:
        return quantiles
    return torch.nn.functional.interpolate(quantiles, size=count, mode="linear", align_corners=True)


def sliced_distance(x: Tensor, y: Tensor, directions: Tensor) -> Tensor:
    """`quantile_distance` of the `sorted_projections` of `x` to `y`, in less memory: (N,).

    `x` is (N, C, H, W), `y` holds sorted projections (N or 1, K, Q), and `directions` is (C, K). The directions are
    taken in chunks, and the gradient, which reaches `x` only, is computed at once. There is no second derivative.
    """
    return cast("Any", _SlicedDistance).apply(x, y.detach(), directions)


class _SlicedDistance(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, directions: Tensor) -> Tensor:
        rows = at_least_float32(x).permute(0, 2, 3, 1).flatten(1, 2)
        count, positions, channels = rows.shape
        y = y.expand(count, -1, -1)
        chunk = max(1, CHUNK_BYTES // (rows.element_size() * _SLICE_COPIES * positions * count))
        value, gradient = rows.new_zeros(count), None
        if ctx.needs_input_grad[0]:
            gradient = rows.new_zeros(count, positions, channels)
        for some, target in zip(directions.split(chunk, 1), y.split(chunk, 1), strict=True):
            ordered, places = product(rows, some).mT.contiguous().sort(2)
            ordered -= _resampled(target, positions)
            value += ordered.square().sum((1, 2))
            if gradient is not None:
                unsorted = torch.empty_like(ordered).scatter_(2, places, ordered)
                add_product(gradient, unsorted.mT, some.mT.expand(count, -1, -1))
        total = directions.shape[1] * positions
        ctx.size, ctx.dtype, ctx.scale = x.shape[2:], x.dtype, 2 / total
        ctx.save_for_backward(gradient)
        return value / total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        scaled = gradient * (grad_outputs[0] * ctx.scale)[:, None, None]
        return scaled.to(ctx.dtype).mT.unflatten(2, ctx.size), None, None


def contextual_similarity(x: Tensor, y: Tensor, *, bandwidth: float = 0.5, chunk: int = 1024) -> Tensor:
    """Contextual similarity of Mechrez et al. (2018): (N,) in (0, 1], regardless of positions.

    `x` and `y` are (N, C, H, W) and may differ in size; `y` may have a batch size of 1.

    Both are centred on the mean of `y`. The cosine distances from a position of `x` are divided by their minimum plus
    1e-5 and become weights exp((1 - d) / bandwidth), normalised over `y`. The similarity is the mean over `y` of the
    largest weight over `x`. `chunk` positions of `x` are compared at a time and recomputed in the backward pass, so
    that memory is proportional to `chunk` times the positions of `y`.
    """
    x, y = at_least_float32(x).flatten(2), at_least_float32(y).flatten(2)
    centre = y.mean(2, keepdim=True)
    x, y = (unit_normalize((z - centre)[..., None])[..., 0] for z in (x, y))
    y = y.expand(x.shape[0], -1, -1)

    def greatest(part: Tensor) -> Tensor:
        distance = 1 - product(part.mT, y)
        relative = distance / (distance.amin(2, keepdim=True) + 1e-5)
        return ((1 - relative) / bandwidth).softmax(2).amax(1)

    parts = [x[:, :, start : start + chunk] for start in range(0, x.shape[2], chunk)]
    found = [checkpoint(greatest, part, use_reentrant=False) if x.requires_grad else greatest(part) for part in parts]
    return torch.stack(found).amax(0).mean(1)


def nearest_cosine_distance(x: Tensor, y: Tensor, *, centre: bool = True, chunk: int = 1024) -> Tensor:
    """The mean cosine distance from the features of `x` to the nearest features of `y`: (N,).

    `x` and `y` are (N, C, H, W) and may differ in size; `y` may have a batch size of 1. If `centre`, the mean of `y` is
    first subtracted from both. The value is the mean over positions of `x` of 1 minus the largest cosine; the gradient
    reaches `x` only. `chunk` positions of `x` are compared at a time, with as many of `y` as `CHUNK_BYTES` hold.
    """
    x, y = at_least_float32(x).flatten(2), at_least_float32(y.detach()).flatten(2)
    if centre:
        mean = y.mean(2, keepdim=True)
        x, y = x - mean, y - mean
    x, y = (unit_normalize(z[..., None])[..., 0] for z in (x, y))
    y = y.expand(x.shape[0], -1, -1)
    with torch.no_grad():
        nearest = torch.cat([_nearest(part.mT, y) for part in x.split(chunk, 2)], dim=1)
    matched = y.gather(2, nearest[:, None].expand_as(x))
    return 1 - (x * matched).sum(1).mean(1)


def _nearest(x: Tensor, y: Tensor) -> Tensor:
    """The number of the column of `y` (N, C, Q) with the largest product, for each row of `x` (N, P, C): (N, P)."""
    some = max(1, CHUNK_BYTES // (y.element_size() * x.shape[0] * x.shape[1]))
    best, nearest = product(x, y[:, :, :some]).max(2)
    for start in range(some, y.shape[2], some):
        found, places = product(x, y[:, :, start : start + some]).max(2)
        nearest = torch.where(found > best, places + start, nearest)
        best = torch.maximum(found, best)
    return nearest
