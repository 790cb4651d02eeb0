"""Rules for the algorithm of a convolution and for the fast precision. `vggfeat layers --algorithms` prints them.

The choice depends only on the processor's capability, the dtype, the channels and the size of the picture. It does not
depend on the batch, the number of threads or timings, so an image has the same features alone and in a batch, and a
command that is run twice writes the same bytes.

The limits come from the tables of `benchmarks/kernels.py`. Processors that were not measured, such as Arm's, use
torch's own convolutions in float32.
"""

from collections.abc import Iterable
from math import prod
from typing import Literal

import torch

from vggfeat.features import winograd
from vggfeat.networks import arch

Algorithm = Literal["torch", "winograd"]

# Winograd's algorithm is faster only above three limits: weights (inputs x outputs), tiles, and tiles x channels. Below
# the first, transforming the picture costs more than the products save; below the second, transforming the weights
# does; below the third, the overhead of the calls does. The keys are values of
# `torch.backends.cpu.get_cpu_capability()`.
_LEAST_WEIGHTS = {"AVX2": 64 * 128, "AVX512": 128 * 128}
_FEWEST_TILES = 32
_LEAST_WORK = 12_000


def choose(capability: str, dtype: torch.dtype, channels: tuple[int, int], size: tuple[int, int]) -> Algorithm:
    """The faster algorithm for a 3x3 convolution on a CPU: `channels` (outputs, inputs), `size` (height, width).

    >>> choose("AVX2", torch.float32, (256, 256), (56, 56))
    'winograd'
    >>> choose("AVX2", torch.float32, (256, 256), (14, 14)), choose("DEFAULT", torch.float32, (256, 256), (56, 56))
    ('torch', 'torch')
    """
    if capability not in _LEAST_WEIGHTS or dtype != torch.float32:
        return "torch"
    tiles = prod(-(-side // winograd.TILE) for side in size)
    pays = (
        prod(channels) >= _LEAST_WEIGHTS[capability] and tiles >= _FEWEST_TILES and tiles * min(channels) >= _LEAST_WORK
    )
    return "winograd" if pays else "torch"


def by_layer(
    stack: Iterable[arch.Layer], height: int, width: int, *, dtype: torch.dtype, device: torch.device
) -> dict[str, Algorithm]:
    """{convolution: algorithm} for images of `height` x `width` on this machine.

    >>> chosen = by_layer(arch.layers("vgg16"), 224, 224, dtype=torch.bfloat16, device=torch.device("cpu"))
    >>> chosen["conv3_1"]
    'torch'
    """
    capability = torch.backends.cpu.get_cpu_capability()
    chosen: dict[str, Algorithm] = {}
    for layer in stack:
        if layer.kind == "conv":
            fits = device.type == "cpu" and is_3x3(layer)
            channels = layer.channels, layer.in_channels
            chosen[layer.name] = choose(capability, dtype, channels, (height, width)) if fits else "torch"
        height, width = layer.output_side(height), layer.output_side(width)
    return chosen


def is_3x3(layer: arch.Layer) -> bool:
    """Whether this is the convolution that Winograd's algorithm computes: 3x3, stride 1, padding 1."""
    return layer.kind == "conv" and (layer.kernel, layer.step, layer.padding) == (3, 1, 1)


def bfloat16_is_faster() -> bool:
    """Whether this CPU computes a network faster in bfloat16 than in float32.

    That is the case with bfloat16 instructions (AVX512-BF16 or AMX) that torch uses. With only AVX2, torch emulates
    bfloat16, which is many times slower.
    """
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not hasattr(torch.cpu, "get_capabilities"):
        return False  # torch 2.9 has no public way to ask
    able = torch.cpu.get_capabilities()
    return any(able.get(name) for name in ("amx_bf16", "avx512_bf16"))
