"""3x3 convolution by Winograd's minimal filtering, F(4x4, 3x3), from public operations of torch.

Lavin and Gray, "Fast algorithms for convolutional neural networks" (2016): each 4x4 tile of the output is computed from
a 6x6 window of the input at 36 frequencies, which takes a quarter of the multiplications of the definition. The
relative error is about 1e-6 in float32.

Tiles are processed in rounds whose intermediate results stay in the processor's cache. The transformed weights are four
times as large as the weights and cheap to compute, so each call builds them and no call keeps them.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import product
from typing import Any

import torch
from torch import Tensor

TILE, WINDOW = 4, 6  # F(4x4, 3x3): 4x4 outputs from 6x6 inputs
FREQUENCIES = WINDOW**2

# Interpolation points, besides infinity: of the usual choices the one with the smallest error (Barabasz et al., 2018).
_POINTS = (0.0, 1.0, -1.0, 0.5, -2.0)

# The frequency at which both coordinates are 1: a constant there is the same constant at each output of a tile.
_CONSTANT = _POINTS.index(1.0) * WINDOW + _POINTS.index(1.0)

# A round reads the transformed weights once, so it takes at least a quarter of their size, and at least this much.
_ROUND_BYTES = 2 * 2**20


def convolve(x: Tensor, weight: Tensor, bias: Tensor, *, rectify: bool = False) -> Tensor:
    """Convolve with zero padding of 1 and add the bias; with `rectify`, apply a ReLU.

    Args:
        x: (N, C, H, W), float32 on a CPU, in any memory layout.
        weight: (O, C, 3, 3), frozen: no gradient reaches it, nor the bias.
        bias: (O,)
        rectify: whether to return `relu(y)` instead of `y`.

    Returns (N, O, H, W) in channels_last. The gradient with respect to `x` can be differentiated again.

    >>> x, weight, bias = torch.randn(1, 8, 10, 12), torch.randn(16, 8, 3, 3), torch.randn(16)
    >>> torch.allclose(convolve(x, weight, bias), torch.conv2d(x, weight, bias, padding=1), atol=1e-3)
    True
    """
    y: Tensor = _Convolution.apply(x, weight, bias, rectify, False)  # pyright: ignore[reportUnknownMemberType, reportAssignmentType] (untyped upstream)
    return y


class _Convolution(torch.autograd.Function):
    """`convolve`, or with `adjoint` its transpose: from gradients of the output to gradients of the input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, rectify: bool, adjoint: bool) -> Tensor:  # noqa: ANN401, PLR0917 (torch's own)
        y = _filter(x, weight, bias, rectify=rectify, adjoint=adjoint)
        ctx.weight, ctx.rectify, ctx.adjoint = weight, rectify, adjoint
        if rectify:
            ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None, None]:  # noqa: ANN401 (torch's own)
        gradient = grad_outputs[0]
        y = ctx.saved_tensors[0] if ctx.rectify else None
        if torch.is_grad_enabled():  # a gradient of the gradient is wanted
            if y is not None:
                gradient = gradient * (y > 0)
            found = _Convolution.apply(gradient, ctx.weight, None, False, not ctx.adjoint)
        else:
            found = _filter(gradient, ctx.weight, None, positive=y, adjoint=not ctx.adjoint)
        return found, None, None, None, None  # pyright: ignore[reportReturnType]


def _filter(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    rectify: bool = False,
    positive: Tensor | None = None,
    adjoint: bool = False,
) -> Tensor:
    """Convolve `x`, set to zero where `positive` is not above zero, round by round."""
    outputs, inputs = reversed(weight.shape[:2]) if adjoint else weight.shape[:2]
    images, _, height, width = x.shape
    rows, columns = _round(height, width, max(inputs, outputs), inputs * outputs)
    tiles = rows * columns
    to_outputs, _, to_frequencies = (torch.kron(matrix, matrix).to(x.dtype) for matrix in transforms())
    kernel = _at_frequencies(weight, adjoint=adjoint)
    # Two buffers suffice: what has been transformed is not read again.
    one, two = x.new_empty(2, FREQUENCIES * tiles * max(inputs, outputs))
    windows = one[: FREQUENCIES * tiles * inputs].view(WINDOW, WINDOW, rows, columns, inputs)
    frequencies = two[: FREQUENCIES * tiles * inputs].view(FREQUENCIES, tiles, inputs)
    products = one[: FREQUENCIES * tiles * outputs].view(FREQUENCIES, tiles, outputs)
    results = two[: TILE**2 * tiles * outputs].view(TILE, TILE, rows, columns, outputs)
    framed = x.new_empty(TILE * rows + 2, TILE * columns + 2, inputs)
    by_row, by_column, by_channel = framed.stride()
    sliding = framed.as_strided(windows.shape, (by_row, by_column, TILE * by_row, TILE * by_column, by_channel))
    y = x.new_empty(images, height, width, outputs)
    # The last tiles may reach beyond the picture: such a round is written here and then cut.
    whole = x.new_empty(TILE * rows, TILE * columns, outputs) if height % TILE or width % TILE else y
    source = x.permute(0, 2, 3, 1)
    mask = None if positive is None else positive.permute(0, 2, 3, 1)
    # An image at a time: its features are the same, bit for bit, alone and in any batch.
    for image, top, left in product(range(images), _starts(height, rows), _starts(width, columns)):
        _frame(framed, source[image], mask if mask is None else mask[image], top, left)
        windows.copy_(sliding)
        torch.mm(to_frequencies, windows.view(FREQUENCIES, -1), out=frequencies.view(FREQUENCIES, -1))
        torch.bmm(frequencies, kernel, out=products)
        if bias is not None:
            products[_CONSTANT] += bias
        torch.mm(to_outputs, products.view(FREQUENCIES, -1), out=results.view(TILE**2, -1))
        place = y[image, top : top + TILE * rows, left : left + TILE * columns]
        fits = place.shape[:2] == (TILE * rows, TILE * columns)
        target = place if fits else whole
        tiled = target.view(rows, TILE, columns, TILE, outputs).permute(1, 3, 0, 2, 4)
        if rectify:
            torch.clamp_min(results, 0, out=tiled)
        else:
            tiled.copy_(results)
        if not fits:
            place.copy_(whole[: place.shape[0], : place.shape[1]])
    return y.permute(0, 3, 1, 2)


def _frame(framed: Tensor, source: Tensor, mask: Tensor | None, top: int, left: int) -> None:
    """Fill `framed` with what the tiles from (`top`, `left`) on read of `source` (H, W, C), and with zeros outside."""
    height, width = source.shape[:2]
    down, across = framed.shape[:2]
    begin, end = max(0, top - 1), min(height, top - 1 + down)
    start, stop = max(0, left - 1), min(width, left - 1 + across)
    inner = framed[begin - top + 1 : end - top + 1, start - left + 1 : stop - left + 1]
    if inner.shape != framed.shape:
        framed.zero_()
    if mask is None:
        inner.copy_(source[begin:end, start:stop])
    else:
        torch.mul(source[begin:end, start:stop], mask[begin:end, start:stop] > 0, out=inner)


def _at_frequencies(weight: Tensor, *, adjoint: bool) -> Tensor:
    """(36, inputs, outputs): the matrix to multiply by at each frequency. `adjoint`: for the transposed convolution."""
    _, to_frequencies, _ = transforms()
    if adjoint:
        to_frequencies = to_frequencies.flip(1)
    matrix = torch.kron(to_frequencies, to_frequencies).to(weight.dtype)
    outputs, inputs = weight.shape[:2]
    taps = weight.detach().permute(2, 3, 0, 1).reshape(9, -1)
    kernel = torch.mm(matrix, taps).view(FREQUENCIES, outputs, inputs)
    return kernel if adjoint else kernel.transpose(1, 2)


def _round(height: int, width: int, channels: int, weights: int) -> tuple[int, int]:
    """How many rows and columns of tiles a round has, where the convolution's wider side has `channels`."""
    size = max(_ROUND_BYTES, FREQUENCIES * weights)  # a quarter of what the transformed weights take
    most = max(1, size // (4 * FREQUENCIES * channels))
    columns = _even(-(-width // TILE), most)
    return _even(-(-height // TILE), max(1, most // columns)), columns


def _even(length: int, most: int) -> int:
    """The size of pieces of at most `most` that cover `length` with as little overlap as possible."""
    return -(-length // -(-length // most))


def _starts(pixels: int, tiles: int) -> list[int]:
    """The pixels where rounds of `tiles` begin that cover `pixels`; the last may overlap the one before it."""
    last = TILE * (-(-pixels // TILE) - tiles)
    return [min(start, last) for start in range(0, pixels, TILE * tiles)]


@lru_cache
def transforms() -> tuple[Tensor, Tensor, Tensor]:
    """The matrices of F(4, 3) in float64: to outputs (4, 6), of weights (6, 3) and of inputs (6, 6) to frequencies.

    The construction of Toom and Cook: evaluate polynomials at the points, multiply there, interpolate.
    """
    with torch.device("cpu"), torch.inference_mode(mode=False):  # whatever the caller has set
        points = torch.tensor(_POINTS, dtype=torch.float64)
        powers = points[:, None] ** torch.arange(TILE)
        at_infinity = torch.eye(WINDOW, dtype=torch.float64)[-1]
        to_outputs = torch.cat([powers.T, at_infinity[:, None][-TILE:]], dim=1)
        differences = points[:, None] - points + torch.eye(len(points))
        of_weights = torch.cat([powers[:, :3] / differences.prod(dim=1, keepdim=True), at_infinity[None, -3:]])
        others = [[p for p in _POINTS if p != q] for q in _POINTS]
        of_inputs = torch.stack([_polynomial(roots) for roots in [*others, _POINTS]])
    return to_outputs, of_weights, of_inputs


def _polynomial(roots: Sequence[float]) -> Tensor:
    """The coefficients, lowest first, of the monic polynomial with these roots, padded to six."""
    coefficients = torch.zeros(WINDOW, dtype=torch.float64)
    coefficients[0] = 1
    for root in roots:
        coefficients = coefficients.roll(1) - root * coefficients
    return coefficients
