"""How a network's layers are run: torch's operations, and on the CPU faster ones that give the same result.

A 3x3 convolution in float32 runs by Winograd's minimal filtering, F(4x4, 3x3): Lavin and Gray, "Fast algorithms for
convolutional neural networks" (2016). It multiplies four times less than the definition, and its relative error is
about 1e-6. Where torch's own convolution is as fast (half precision, few channels, small pictures, other devices,
graphs that torch compiles or exports), that one runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vggfeat import arch

# Below this many channels the transforms cost what the products save.
_FEWEST_CHANNELS = 128

# oneDNN packs weights for a number of rows, and from this many on the packing is the same one. So many are multiplied
# at least, and of less than half that torch's own convolution takes less time.
_FEWEST_TILES = 64
_PACKED_FOR = 256

# What the tiles of one round may take, so that they stay in the processor's cache.
_ROUND_BYTES = 8 * 2**20

_TILE, _WINDOW = 4, 6  # F(4x4, 3x3): 4x4 results from 6x6 inputs
_POINTS = (0.0, 1.0, -1.0, 0.5, -2.0)  # and infinity: of the usual choices the one of the smallest error


@dataclass
class Step:
    """One layer, or a convolution with the ReLU behind it, ready to be run again and again.

    Args:
        layers: the layer, or the two.
        overwritable: nobody else reads what the step is given, so it may be reused.
        pooling: the kind that `pool` layers are.
        plain: use torch's own convolution always.
    """

    layers: Sequence[arch.Layer]
    overwritable: bool
    pooling: arch.Pooling = "max"
    plain: bool = False
    _fast: "_Kernel | None" = field(default=None, repr=False, compare=False)

    @property
    def name(self) -> str:
        """The layer whose activation the step returns."""
        return self.layers[-1].name

    def __call__(self, x: Tensor, tensors: Sequence[Tensor]) -> Tensor:
        """The activation of `x` (N, C, H, W); `tensors` are the first layer's, in the order of its state dict."""
        first, rectified = self.layers[0], len(self.layers) == 2
        match first.kind:
            case "conv":
                return self._convolve(first, x, *tensors, rectified=rectified)
            case "bn":
                weight, bias, mean, variance = tensors
                return F.batch_norm(x, mean, variance, weight, bias)
            case "relu":
                if first.slope:
                    return F.leaky_relu(x, first.slope, inplace=self.overwritable)
                return F.relu(x, inplace=self.overwritable)
            case "lrn":
                # Krizhevsky et al. (2012), as the paper cites them; torch divides alpha by the size.
                return F.local_response_norm(x, size=5, alpha=5e-4, beta=0.75, k=2.0)
            case "pool":
                return _pool(x, first, self.pooling)

    def _convolve(self, layer: arch.Layer, x: Tensor, weight: Tensor, bias: Tensor, *, rectified: bool) -> Tensor:
        if not self.plain and _winograd_fits(layer, x, weight):
            if self._fast is None or not self._fast.holds(weight):
                self._fast = _Kernel(weight)
            y: Tensor = _Winograd.apply(x, bias, self._fast, rectified)  # pyright: ignore[reportUnknownMemberType, reportAssignmentType] (untyped upstream)
            return y
        y = F.conv2d(x, weight, bias, stride=layer.step, padding=layer.padding)
        return F.relu(y, inplace=True) if rectified else y

    def __getstate__(self) -> dict[str, Any]:
        # Packed weights can be neither copied nor saved; they are made again when needed.
        return {**self.__dict__, "_fast": None}


def steps(
    stack: Sequence[arch.Layer], handed_out: Sequence[str], *, pooling: arch.Pooling, plain: bool
) -> tuple[Step, ...]:
    """The steps that run `stack`, of which the layers named in `handed_out` are returned to the caller."""
    found: list[Step] = []
    overwritable = False  # the images are the caller's
    rest = list(stack)
    while rest:
        layer = rest.pop(0)
        taken = [layer]
        if layer.kind == "conv" and layer.name not in handed_out and rest and _is_plain_relu(rest[0]):
            taken.append(rest.pop(0))
        found.append(Step(taken, overwritable, pooling, plain))
        overwritable = taken[-1].name not in handed_out
    return tuple(found)


def _is_plain_relu(layer: arch.Layer) -> bool:
    return layer.kind == "relu" and not layer.slope


def _pool(x: Tensor, layer: arch.Layer, pooling: arch.Pooling) -> Tensor:
    match pooling:
        case "max":
            return F.max_pool2d(x, layer.kernel, layer.step, layer.padding)
        case "avg":
            return F.avg_pool2d(x, layer.kernel, layer.step, layer.padding)
        case "l2":
            # Ding et al. (2020): a normalised Hann window over the squares. Half precision would lose the 1e-12.
            hann = torch.tensor([0.25, 0.5, 0.25], device=x.device, dtype=torch.promote_types(x.dtype, torch.float32))
            window = torch.outer(hann, hann).expand(layer.channels, 1, -1, -1)
            squares = F.conv2d(
                x.to(hann.dtype).square(), window, stride=layer.step, padding=layer.padding, groups=layer.channels
            )
            return (squares + 1e-12).sqrt().to(x.dtype)


def _winograd_fits(layer: arch.Layer, x: Tensor, weight: Tensor) -> bool:
    return (
        not torch.compiler.is_compiling()
        and winograd_available()
        and x.dtype == weight.dtype == torch.float32
        and x.device.type == weight.device.type == "cpu"
        and (layer.kernel, layer.step, layer.padding) == (3, 1, 1)
        and min(weight.shape[:2]) >= _FEWEST_CHANNELS
        and len(x) * -(-x.shape[2] // _TILE) * -(-x.shape[3] // _TILE) >= _FEWEST_TILES // 2
        and has_memory(x)
    )


@lru_cache
def winograd_available() -> bool:
    """Whether the products run in oneDNN with AVX-512: without it, grouped convolutions fall back to a slow kernel."""
    there = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
    return there and torch.backends.cpu.get_cpu_capability() == "AVX512"


def has_memory(x: Tensor) -> bool:
    """Whether `x` has values in memory: the tensors of torch.func have none, nor fake ones."""
    try:
        x.data_ptr()
    except RuntimeError:
        return False
    return True


class _Kernel:
    """A convolution's weights (O, C, 3, 3) as Winograd's algorithm multiplies by them, for either direction."""

    def __init__(self, weight: Tensor, *, reverse: "_Kernel | None" = None) -> None:
        self._source, self._version = weight, weight._version  # noqa: SLF001 (torch documents it)
        self._reverse = reverse
        self.outputs, self.inputs = weight.shape[:2]
        _, to_frequency, _ = transforms()
        with torch.inference_mode(mode=False), torch.no_grad():
            # (36 groups of O, C): each frequency is a 1x1 convolution of its own.
            grouped = torch.einsum("ia,jb,ocab->ijoc", to_frequency, to_frequency, weight.double())
            grouped = grouped.reshape(-1, self.inputs, 1, 1).to(weight.dtype)
            self._packed: Tensor = torch.ops.mkldnn._reorder_convolution_weight(  # noqa: SLF001 (inductor's own way; no public one)
                grouped, [0, 0], [1, 1], [1, 1], _WINDOW**2, [1, _WINDOW**2 * self.inputs, _PACKED_FOR, 1]
            )

    def holds(self, weight: Tensor) -> bool:
        """Whether this was made from `weight` as it is now."""
        return self._source is weight and self._version == weight._version  # noqa: SLF001 (as above)

    @property
    def reverse(self) -> "_Kernel":
        """The kernel that takes a gradient of the output to one of the input."""
        if self._reverse is None:
            with torch.inference_mode(mode=False):
                self._reverse = _Kernel(self._source.detach().flip(2, 3).transpose(0, 1), reverse=self)
        return self._reverse

    def multiply(self, tiles: Tensor) -> Tensor:
        """(T, 36, C) -> (T, 36, O), frequency by frequency."""
        count = len(tiles)
        image = tiles.view(1, count, 1, _WINDOW**2 * self.inputs).permute(0, 3, 1, 2)
        product: Tensor = torch.ops.mkldnn._convolution_pointwise(  # noqa: SLF001 (as above)
            image, self._packed, None, [0, 0], [1, 1], [1, 1], _WINDOW**2, "none", [], ""
        )
        return product.permute(0, 2, 3, 1).view(count, _WINDOW**2, self.outputs)


class _Winograd(torch.autograd.Function):
    """relu(conv(x) + bias), or without the ReLU; the gradient goes to `x` alone, and can be differentiated again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor | None, kernel: _Kernel, rectified: bool) -> Tensor:  # noqa: ANN401 (torch's own)
        y = _filter(x, bias, kernel, rectified=rectified)
        ctx.kernel, ctx.rectified = kernel, rectified
        if rectified:
            ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None]:  # noqa: ANN401 (torch's own)
        gradient = grad_outputs[0]
        if ctx.rectified:
            (y,) = ctx.saved_tensors
            gradient = torch.ops.aten.threshold_backward(gradient, y, 0)
        return _Winograd.apply(gradient, None, ctx.kernel.reverse, False), None, None, None  # pyright: ignore[reportReturnType, reportUnknownMemberType]


def _filter(x: Tensor, bias: Tensor | None, kernel: _Kernel, *, rectified: bool) -> Tensor:
    """The 3x3 convolution of `x` (N, C, H, W) with zeros around it: rounds of tiles that stay in the cache."""
    images, channels, height, width = x.shape
    down, across = -(-height // _TILE), -(-width // _TILE)
    together, rows = _round(images, down, across, channels + kernel.outputs)
    tiles = together * rows * across
    scratch = max(tiles, _FEWEST_TILES)
    outward, _, inward = (torch.kron(m, m).to(x.dtype) for m in transforms())
    gathered = x.new_zeros(scratch, _WINDOW**2, channels)
    frequencies = torch.empty_like(gathered)
    results = x.new_empty(tiles, _TILE**2, kernel.outputs)
    rounds = x.new_empty(together, rows, _TILE, across, _TILE, kernel.outputs)
    # One row and column of zeros around the picture, and what fills the last tiles.
    framed = x.new_zeros(together, _TILE * down + 2, _TILE * across + 2, channels)
    y = x.new_empty(images, height, width, kernel.outputs)
    source = x.permute(0, 2, 3, 1)
    for first in _starts(images, together):
        framed[:, 1 : height + 1, 1 : width + 1] = source[first : first + together]
        by_image, by_row, by_column, by_channel = framed.stride()
        for top in _starts(down, rows):
            gathered[:tiles].view(together, rows, across, _WINDOW, _WINDOW, channels).copy_(
                framed.as_strided(
                    (together, rows, across, _WINDOW, _WINDOW, channels),
                    (by_image, _TILE * by_row, _TILE * by_column, by_row, by_column, by_channel),
                    _TILE * top * by_row,
                )
            )
            torch.bmm(inward.expand(scratch, -1, -1), gathered, out=frequencies)
            product = kernel.multiply(frequencies)[:tiles]
            torch.bmm(outward.expand(tiles, -1, -1), product, out=results)
            arranged = results.view(together, rows, across, _TILE, _TILE, -1).transpose(2, 3)
            if bias is None:
                rounds.copy_(arranged)
            else:
                torch.add(arranged, bias, out=rounds)
            bottom = min(height, _TILE * (top + rows))
            part = rounds.view(together, _TILE * rows, _TILE * across, -1)[:, : bottom - _TILE * top, :width]
            place = y[first : first + together, _TILE * top : bottom]
            if rectified:
                torch.clamp_min(part, 0, out=place)
            else:
                place.copy_(part)
    return y.permute(0, 3, 1, 2)


def _round(images: int, down: int, across: int, channels: int) -> tuple[int, int]:
    """How many images, and how many rows of tiles of each, make a round."""
    most = max(_FEWEST_TILES, _ROUND_BYTES // (4 * _WINDOW**2 * channels))
    if down * across >= most:
        return 1, max(1, most // across)
    return min(images, most // (down * across)), down


def _starts(length: int, step: int) -> list[int]:
    """Where pieces of `step` begin that cover `length`: the last one overlaps, so that all are whole."""
    return [min(start, length - step) for start in range(0, length, step)]


@lru_cache
def transforms() -> tuple[Tensor, Tensor, Tensor]:
    """The matrices of F(4, 3): products -> results (4, 6), weights -> frequencies (6, 3), inputs -> frequencies (6, 6).

    Toom and Cook's construction: polynomials are evaluated at the points, multiplied there, and interpolated. float64.
    """
    with torch.device("cpu"):  # whatever the default is
        points = torch.tensor(_POINTS, dtype=torch.float64)
        powers = points[:, None] ** torch.arange(_TILE)
        at_infinity = torch.eye(_WINDOW, dtype=torch.float64)[-1]
        outward = torch.cat([powers.T, at_infinity[:, None][-_TILE:]], dim=1)
        differences = points[:, None] - points + torch.eye(len(points))
        weights = torch.cat([powers[:, :3] / differences.prod(dim=1, keepdim=True), at_infinity[None, -3:]])
        inward = torch.stack([_product([p for p in _POINTS if p != q]) for q in _POINTS] + [_product(_POINTS)])
    return outward, weights, inward


def _product(roots: Sequence[float]) -> Tensor:
    """The coefficients, lowest first, of the polynomial with these roots, padded to six."""
    coefficients = torch.zeros(_WINDOW, dtype=torch.float64)
    coefficients[0] = 1
    for root in roots:
        coefficients = coefficients.roll(1) - root * coefficients
    return coefficients
