"""The network of instant styles: a picture and a mix of styles -> a painting, in one pass.

It follows Johnson et al. (2016): two convolutions of stride 2, residual blocks at a quarter of the size, and back.
Every convolution is followed by conditional instance normalisation (Dumoulin et al. 2017): a style is a scale and a
shift for each channel, so that a weighted mean of styles is a style. Upsampling repeats pixels before a convolution,
and edges are reflected, which leaves neither a checkerboard nor a border.

The normalised values of every convolution but the last are bounded, so that a sun in a dark picture, or a dark coat in
a bright one, is painted like other places, and not as a black blob.

The last convolution adds to the picture itself, times a gate of the style, before it is normalised. So the network
starts as a recolouring and learns the strokes.
"""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vggfeat.errors import InputError
from vggfeat.transfer.styles.widths import CHANNELS, MINIMUM_SIDE, StyleWidths, Unit, sizes, units

_EPSILON = 1e-5

# Deviations from the mean that a bounded unit lets through. Dark and bright places of a photograph lie up to ten away.
_BOUND = 2.0

# Keep colours this far from black and white before taking their logits.
_COLOUR_MARGIN = 0.02


class StyleUnit(nn.Module):
    """The parameters of a `Unit`: the convolution, and a scale and a shift (S, C) of S styles."""

    def __init__(self, unit: Unit, styles: int) -> None:
        super().__init__()
        self.unit = unit
        channels, outputs = unit.channels
        self.weight = nn.Parameter(torch.empty(outputs, channels, unit.kernel, unit.kernel))
        self.scale = nn.Parameter(torch.empty(styles, outputs))
        self.shift = nn.Parameter(torch.empty(styles, outputs))

    def draw(self, generator: torch.Generator) -> None:
        """Draw the initial values: He et al. (2015), but nearly zero before an addition."""
        deviation = (2 / (self.weight.shape[1] * self.unit.kernel**2)) ** 0.5
        nn.init.normal_(self.weight, 0, deviation * (0.1 if self.unit.name == "leave" else 1), generator=generator)
        nn.init.constant_(self.scale, 0.2 if self.unit.adds else 1.0)
        nn.init.zeros_(self.shift)

    def convolve(self, x: Tensor, edges: Sequence[int]) -> Tensor:
        """Convolve `x`, reflected by `edges` (left, right, top, bottom) pixels. There is no bias: a shift follows."""
        padded = F.pad(x, list(edges), mode="reflect") if any(edges) else x
        return F.conv2d(padded, self.weight, stride=self.unit.stride)

    def normalise(self, x: Tensor, mean: Tensor, variance: Tensor, mix: Tensor) -> Tensor:
        """Instance normalisation with the scales and shifts of a mix (N, S); `mean` and `variance` are (N, C)."""
        scale, shift = mix @ self.scale, mix @ self.shift
        inverse = (variance + _EPSILON).rsqrt()
        if self.unit.bounded:
            inverse = inverse / _BOUND
            x = torch.addcmul((-mean * inverse)[..., None, None], x, inverse[..., None, None]).tanh_()
            scale = scale * _BOUND
        else:
            scale = scale * inverse
            shift = shift - mean * scale
        x = torch.addcmul(shift[..., None, None], x, scale[..., None, None])
        return F.relu(x, inplace=not torch.is_grad_enabled()) if self.unit.relu else x


class StyleNetwork(nn.Module):
    """Paints pictures (N, 3, H, W) in [0, 1] in a mix of its styles, in one pass.

    Args:
        names: of the styles.
        widths: channels and blocks.
        seed: of the initial weights.

    >>> network = StyleNetwork(["waves", "dots"], StyleWidths(4, 8, 8, blocks=1))
    >>> pictures = torch.rand(2, 3, 30, 41)
    >>> network(pictures, network.mix({"waves": 2, "dots": 1})).shape
    torch.Size([2, 3, 30, 41])
    """

    def __init__(self, names: Sequence[str], widths: StyleWidths | None = None, *, seed: int = 0) -> None:
        super().__init__()
        self.names = tuple(names)
        self.widths = StyleWidths() if widths is None else widths
        self.units = units(self.widths)
        self.gate = nn.Parameter(torch.ones(len(self.names), CHANNELS))
        generator = torch.Generator("cpu").manual_seed(seed)
        for unit in self.units:
            part = StyleUnit(unit, len(self.names))
            if not part.weight.is_meta:
                part.draw(generator)
            self.add_module(unit.name, part)

    def part(self, unit: Unit) -> StyleUnit:
        """The parameters of a unit."""
        return cast("StyleUnit", self.get_submodule(unit.name))

    def mix(self, weights: dict[str, float]) -> Tensor:
        """The proportions (1, S) of the styles, whose weights may have any sum above 0.

        Raises `InputError` if a weight is negative or not finite, or if all are 0.
        """
        values = torch.tensor([[float(weights.get(name, 0)) for name in self.names]], device=self.gate.device)
        if not (values >= 0).all() or not values.isfinite().all() or not values.any():
            raise InputError(f"the weights of a mix are at least 0 and one is above it, not {weights}")
        return values / values.sum()

    def forward(self, pictures: Tensor, mix: Tensor) -> Tensor:
        """Paint `pictures` in the proportions `mix`: (1, S) for all, or (N, S) for each. The size stays."""
        check_side(*pictures.shape[2:])
        heights, widths = sizes(pictures.shape[2]), sizes(pictures.shape[3])
        x = pictures
        kept: dict[str, Tensor] = {}
        for unit in self.units:
            part = self.part(unit)
            if unit.enlarge:
                x = enlarged(x)[:, :, : heights[unit.level], : widths[unit.level]]
            x = part.convolve(x, (unit.kernel // 2,) * 4)
            if unit.name == "leave":
                x = x + pictures * self.gated(mix)
            variance, mean = torch.var_mean(x, dim=(2, 3), correction=0)
            x = part.normalise(x, mean, variance, mix)
            if unit.adds:
                x = x + kept.pop(unit.adds)
            if any(unit.name == other.adds for other in self.units):
                kept[unit.name] = x
        return torch.sigmoid(x)

    def gated(self, mix: Tensor) -> Tensor:
        """The gates (N, 3, 1, 1) of a mix (N, S): how much of the picture itself the last unit adds."""
        return (mix @ self.gate)[..., None, None]

    @torch.no_grad()
    def start_style(self, number: int, colours: Tensor) -> None:
        """Start style `number` with the colours of a picture (1, 3, H, W): their mean and deviation as logits."""
        clipped = colours.clamp(_COLOUR_MARGIN, 1 - _COLOUR_MARGIN)
        deviation, mean = torch.std_mean(clipped.logit(), dim=(0, 2, 3))
        last = self.part(self.units[-1])
        last.scale[number] = deviation
        last.shift[number] = mean

    @torch.no_grad()
    def with_styles(self, names: Sequence[str]) -> "StyleNetwork":
        """A copy with further styles, which start as the mean of the present ones."""
        grown = StyleNetwork((*self.names, *names), self.widths)
        mine = self.state_dict()
        for key, x in grown.state_dict().items():
            if key.endswith(("scale", "shift", "gate")):
                x[: len(mine[key])] = mine[key]
                x[len(mine[key]) :] = mine[key].mean(0)
            else:
                x.copy_(mine[key])
        return grown

    def freeze_shared(self) -> None:
        """Let training change the scales, shifts and gates only."""
        for unit in self.units:
            self.part(unit).weight.requires_grad_(False)


def enlarged(x: Tensor) -> Tensor:
    """Repeat each pixel of (N, C, H, W) 2x2."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


def check_side(height: int, width: int) -> None:
    """Raise `InputError` for pictures that are too small to reflect their edges at every level."""
    if min(height, width) < MINIMUM_SIDE:
        raise InputError(
            f"the picture has {width}x{height} pixels: an instant style needs at least {MINIMUM_SIDE} a side"
        )
