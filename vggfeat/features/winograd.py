"""3x3 convolution by Winograd's minimal filtering, F(4x4, 3x3), from public operations of torch.

Lavin and Gray, "Fast algorithms for convolutional neural networks" (2016): each 4x4 tile of the output is computed from
a 6x6 window of the input at 36 frequencies, which takes a quarter of the multiplications of the definition. The
relative error is about 1e-6 in float32.

Tiles are processed in rounds whose intermediate results stay in the processor's cache. The transformed weights are four
times as large as the weights and cheap to compute, so each call builds them and no call keeps them.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import product
from typing import Any

import torch
from torch import Tensor

TILE, WINDOW = 4, 6  # F(4x4, 3x3): 4x4 outputs from 6x6 inputs
FREQUENCIES = WINDOW**2

# Interpolation points besides infinity: the usual choice with the smallest error (Barabasz et al., 2018).
_POINTS = (0.0, 1.0, -1.0, 0.5, -2.0)

# The frequency at point 1 in both dimensions: a constant added there is added to every output of a tile.
_CONSTANT = _POINTS.index(1.0) * WINDOW + _POINTS.index(1.0)

# The most tiles in a round: with fewer, the products are inefficient; more do not fit the cache.
_ROUND = 128

# Bytes of transformed weights in one allocation. glibc reuses blocks of up to 32 MiB; larger ones come from the system
# on each call, which clears them first, and that costs more than the transform.
_ALLOCATION = 16 * 2**20


def convolve(x: Tensor, weight: Tensor, bias: Tensor, *, rectify: bool = False) -> Tensor:
    """Convolve with zero padding of 1 and add the bias; with `rectify`, apply a ReLU.

    Args:
        x: (N, C, H, W), float32 on a CPU, in any memory layout.
        weight: (O, C, 3, 3). Neither it nor the bias gets a gradient.
        bias: (O,)
        rectify: whether to return `relu(y)` instead of `y`.

    Returns (N, O, H, W) in channels_last. It can be differentiated twice with respect to `x`.

    >>> x, weight, bias = torch.randn(1, 8, 10, 12), torch.randn(16, 8, 3, 3), torch.randn(16)
    >>> torch.allclose(convolve(x, weight, bias), torch.conv2d(x, weight, bias, padding=1), atol=1e-3)
    True
    """
    y: Tensor = _Convolution.apply(x, weight, bias, rectify, False)
    return y


class _Convolution(torch.autograd.Function):
    """`convolve`, or with `adjoint` its transpose: from gradients of the output to gradients of the input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, rectify: bool, adjoint: bool) -> Tensor:  # noqa: PLR0917 (torch's own)
        y = _filter(x, weight, bias, rectify=rectify, adjoint=adjoint)
        ctx.weight, ctx.rectify, ctx.adjoint = weight, rectify, adjoint
        if rectify:
            ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None, None]:
        gradient = grad_outputs[0]
        y = ctx.saved_tensors[0] if ctx.rectify else None
        if torch.is_grad_enabled():  # a second derivative may be taken
            if y is not None:
                gradient = gradient.where(y > 0, 0)
            found = _Convolution.apply(gradient, ctx.weight, None, False, not ctx.adjoint)
        else:
            found = _filter(gradient, ctx.weight, None, positive=y, adjoint=not ctx.adjoint)
        return found, None, None, None, None


def _filter(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    rectify: bool = False,
    positive: Tensor | None = None,
    adjoint: bool = False,
) -> Tensor:
    """Convolve `x` round by round. `positive` is a ReLU's output: `x` is zeroed unless it is above zero."""
    images, _, height, width = x.shape
    rows, columns = _round(height, width)
    tiles = _Round(rows, columns, _at_frequencies(weight, adjoint=adjoint), bias)
    source = x.permute(0, 2, 3, 1)
    positive = None if positive is None else positive.permute(0, 2, 3, 1)
    y = x.new_empty(images, height, width, weight.shape[1 if adjoint else 0])
    # One image at a time, so that its features are the same to the last bit in any batch.
    for image, top, left in product(range(images), _starts(height, rows), _starts(width, columns)):
        down, across = _inside(top, rows, height), _inside(left, columns, width)
        part = source[image, down, across]
        inner = tiles.picture(down.start - top + 1, across.start - left + 1, *part.shape[:2])
        if positive is None:
            inner.copy_(part)
        else:
            # A tenth faster than `where`. For an inactive ReLU, an infinite gradient becomes NaN instead of 0.
            torch.sign(positive[image, down, across], out=inner).mul_(part)
        place = y[image, top : top + TILE * rows, left : left + TILE * columns]
        found = tiles.convolved()[: place.shape[0], : place.shape[1]]
        if rectify:
            torch.clamp_min(found, 0, out=place)
        else:
            place.copy_(found)
    return y.permute(0, 3, 1, 2)


class _Round:
    """Convolves `rows` x `columns` tiles in its own buffers: write to `picture`, then read `convolved`.

    The transforms are separable. Frequencies are in the order (down, across), the pixels of a tile (across, down).
    Every product is a `bmm`, because the rounding of a `mm` may depend on the number of threads.
    """

    def __init__(self, rows: int, columns: int, kernels: Sequence[Tensor], bias: Tensor | None) -> None:
        like, (_, inputs, outputs) = kernels[0], kernels[0].shape
        tiles = rows * columns
        self._bias = bias
        self._framed = like.new_empty(TILE * rows + 2, TILE * columns + 2, inputs)
        self._filled: tuple[int, ...] | None = None
        # Two buffers suffice, because each stage reads only the one before it.
        one, two = like.new_empty(2, FREQUENCIES * tiles * max(inputs, outputs))
        self._bands = _part(one, rows, WINDOW, self._framed[0].numel())
        self._windows = _part(two, WINDOW, WINDOW, rows, columns, inputs)
        self._frequencies = _part(one, FREQUENCIES, tiles, inputs)
        self._products = _part(two, FREQUENCIES, tiles, outputs)
        self._strips = _part(one, WINDOW, TILE, tiles * outputs)
        self._results = _part(two, TILE, TILE, rows, columns, outputs)
        by_row, by_column, by_channel = self._framed.stride()
        self._overlapping = self._framed.as_strided(self._bands.shape, (TILE * by_row, by_row, 1))
        self._sliding = self._bands.as_strided(
            self._windows.shape, (by_row, by_column, WINDOW * by_row, TILE * by_column, by_channel)
        )
        to_outputs, _, to_frequencies = (matrix.to(like.dtype) for matrix in transforms())
        self._down_in, self._across_in = (to_frequencies.expand(n, -1, -1) for n in (rows, WINDOW))
        self._across_out, self._down_out = (to_outputs.expand(n, -1, -1) for n in (WINDOW, TILE))
        self._factors: list[tuple[Tensor, Tensor, Tensor]] = []
        start = 0
        for kernel in kernels:
            at = slice(start, start := start + len(kernel))
            self._factors.append((self._frequencies[at], kernel, self._products[at]))
        self._painted = like.new_empty(TILE * rows, TILE * columns, outputs)
        self._tiled = self._painted.view(rows, TILE, columns, TILE, outputs).permute(3, 1, 0, 2, 4)

    def picture(self, top: int, left: int, height: int, width: int) -> Tensor:
        """(height, width, inputs): the part of the input to write to. The zero padding surrounds it."""
        if (region := (top, left, height, width)) != self._filled:
            self._framed.zero_()
            self._filled = region
        return self._framed[top : top + height, left : left + width]

    def convolved(self) -> Tensor:
        """(4 rows, 4 columns, outputs): the convolution of the input. The next call overwrites it."""
        torch.bmm(self._down_in, self._overlapping, out=self._bands)
        self._windows.copy_(self._sliding)
        by_row = WINDOW, WINDOW, -1
        torch.bmm(self._across_in, self._windows.view(by_row), out=self._frequencies.view(by_row))
        for values, kernel, out in self._factors:
            torch.bmm(values, kernel, out=out)
        if self._bias is not None:
            self._products[_CONSTANT] += self._bias
        torch.bmm(self._across_out, self._products.view(by_row), out=self._strips)
        torch.bmm(self._down_out, self._strips.transpose(0, 1), out=self._results.view(TILE, TILE, -1))
        self._tiled.copy_(self._results)
        return self._painted


def _part(buffer: Tensor, *shape: int) -> Tensor:
    """The first elements of a buffer, as a tensor of this shape."""
    return buffer[: math.prod(shape)].view(shape)


def _inside(start: int, tiles: int, pixels: int) -> slice:
    """The pixels that tiles from `start` on read, with a border of one, clipped to the picture."""
    return slice(max(0, start - 1), min(pixels, start + TILE * tiles + 1))


def _at_frequencies(weight: Tensor, *, adjoint: bool) -> list[Tensor]:
    """The transformed weights at the 36 frequencies: tensors of (n, inputs, outputs), for n frequencies each.

    `adjoint`: those of the transposed convolution.
    """
    _, to_frequencies, _ = transforms()
    if adjoint:
        to_frequencies = to_frequencies.flip(1)
    matrix = torch.kron(to_frequencies, to_frequencies).to(weight.dtype)
    outputs, inputs = weight.shape[:2]
    taps = weight.detach().permute(2, 3, 0, 1).reshape(9, -1)
    together = _even(FREQUENCIES, max(1, _ALLOCATION // (taps[0].numel() * taps.element_size())))
    starts = range(0, FREQUENCIES, together)
    kernels = [torch.mm(matrix[start : start + together], taps).view(-1, outputs, inputs) for start in starts]
    return [kernel if adjoint else kernel.transpose(1, 2) for kernel in kernels]


def _round(height: int, width: int) -> tuple[int, int]:
    """The rows and columns of tiles in a round."""
    columns = _even(-(-width // TILE), _ROUND)
    return _even(-(-height // TILE), _ROUND // columns), columns


def _even(length: int, most: int) -> int:
    """The size, at most `most`, of equal pieces that cover `length` with the least overlap."""
    return -(-length // -(-length // most))


def _starts(pixels: int, tiles: int) -> list[int]:
    """The first pixels of the rounds of `tiles` that cover `pixels`. The last round may overlap the one before it."""
    last = TILE * (-(-pixels // TILE) - tiles)
    return [min(start, last) for start in range(0, pixels, TILE * tiles)]


@lru_cache
def transforms() -> tuple[Tensor, Tensor, Tensor]:
    """The float64 matrices of F(4, 3): frequencies to outputs (4, 6), weights (6, 3) and inputs (6, 6) to frequencies.

    Toom and Cook's construction: evaluate polynomials at the points, multiply the values, interpolate.
    """
    with torch.device("cpu"), torch.inference_mode(mode=False):  # independent of the caller's settings
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
