"""Every kernel that could compute a layer of VGG, and what the rule of `features.algorithms` chooses.

    python benchmarks/kernels.py [--quick] [--sides 64,128,224,512] [--rounds 7] [--out FOLDER]

Each shape of convolution that VGG-16 and VGG-19 have in a square picture of each side, with its bias and ReLU: forward,
and backward to the input. Contenders take turns. `rule` names what the rule chooses in float32 here, and `cost` is the
time of that choice over the time of the fastest float32 kernel, forward and backward together.

To see what a processor with AVX2 alone would do, run it with ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2
MKL_ENABLE_INSTRUCTIONS=AVX2.
"""

from types import SimpleNamespace
from typing import Any

import torch
from measuring import Found, Work, command, markdown, median, paired, race, ratio, timer
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from vggfeat.explore import plots
from vggfeat.features import algorithms, allocation, winograd
from vggfeat.networks import arch

SETTINGS = {"sides": ("64,128,224,512", "32"), "rounds": (7, 1)}
PEER, WINOGRAD, BFLOAT16 = "torch float32", "winograd float32", "torch bfloat16"


def shapes(sides: str) -> list[str]:
    """`64->128 112x112`: each shape of convolution in pictures of these sides, small pictures first."""
    found: dict[str, None] = {}
    for side in map(int, sides.split(",")):
        at = side
        for layer in arch.layers("vgg19"):
            if layer.kind == "conv" and layer.in_channels > 3:
                found[f"{layer.in_channels}->{layer.channels} {at}x{at}"] = None
            at = layer.output_side(at)
    return list(found)


def parsed(shape: str) -> tuple[int, int, int]:
    """Inputs, outputs and the side."""
    channels, size = shape.split()
    inputs, outputs = map(int, channels.split("->"))
    return inputs, outputs, int(size.split("x")[0])


def build(name: str, settings: SimpleNamespace) -> Work:
    """A contender (`winograd float32: 64->128 112x112 forward`): each call runs it once."""
    contender, shape = name.split(": ")
    inputs, outputs, side = parsed(shape)
    kernel, precision = contender.split()
    dtype = getattr(torch, precision)
    generator = torch.Generator().manual_seed(0)

    def tensor(*size: int) -> Tensor:
        values = torch.randn(*size, generator=generator).to(dtype)
        return values.contiguous(memory_format=torch.channels_last) if values.ndim == 4 else values

    x, weight, bias = tensor(1, inputs, side, side), tensor(outputs, inputs, 3, 3) / inputs, tensor(outputs)
    pull = tensor(1, outputs, side, side)

    def forward() -> Tensor:
        if kernel == "winograd":
            return winograd.convolve(x, weight, bias, rectify=True)
        return F.relu(F.conv2d(x, weight, bias, padding=1), inplace=True)

    if settings.backward:
        x.requires_grad_()
        y = forward()
        return lambda: torch.autograd.grad(y, x, pull, retain_graph=True)
    return torch.inference_mode()(forward)


def measure(settings: SimpleNamespace) -> dict[str, Any]:
    """Seconds of each contender in each round, for each shape."""
    allocation.hold()
    # Emulated, a backward pass in bfloat16 takes a hundred times as long.
    contenders = (PEER, WINOGRAD, *([BFLOAT16] if algorithms.bfloat16_is_faster() else []))
    seconds: dict[str, dict[str, dict[str, list[float]]]] = {}
    for shape in shapes(settings.sides):
        for way in ("forward", "backward"):
            place = SimpleNamespace(backward=way == "backward")
            racing = {name: build(f"{name}: {shape}", place) for name in contenders}
            seconds.setdefault(shape, {})[way] = race(racing, settings.rounds, timer(settings), warm_ups=2)
    return {"capability": torch.backends.cpu.get_cpu_capability(), "seconds": seconds, "peak_mib": {}}


def chosen(found: Found, shape: str) -> str:
    """The float32 contender that the rule chooses on the processor that was measured."""
    inputs, outputs, side = parsed(shape)
    return f"{algorithms.choose(found['capability'], torch.float32, (outputs, inputs), (side, side))} float32"


def cost(found: Found, shape: str) -> float:
    """The time of the rule's choice over the time of the fastest float32 kernel."""
    ways = found["seconds"][shape].values()
    both = {name: sum(median(times[name]) for times in ways) for name in (PEER, WINOGRAD)}
    return both[chosen(found, shape)] / min(both.values())


def table(found: Found) -> str:
    """One line for each shape: milliseconds, and ratios to torch's float32."""
    header = ["", "torch forward", "backward", "winograd", "backward", "bfloat16", "backward", "rule", "cost"]
    lines: list[list[str]] = []
    for shape, ways in found["seconds"].items():
        times = [f"{1000 * median(seconds[PEER]):.2f} ms" for seconds in ways.values()]
        ratios = [
            ratio(paired(seconds[PEER], seconds[name])) if name in seconds else ""
            for name in (WINOGRAD, BFLOAT16)
            for seconds in ways.values()
        ]
        lines.append([shape, *times, *ratios, chosen(found, shape).split()[0], ratio(cost(found, shape))])
    return f"capability {found['capability']}; ratios: times faster than torch float32\n\n{markdown(header, lines)}"


def chart(found: Found) -> Image.Image:
    """How many times faster Winograd's algorithm is than torch, forward."""
    bars = {shape: paired(ways["forward"][PEER], ways["forward"][WINOGRAD]) for shape, ways in found["seconds"].items()}
    title = f"Winograd, {found['capability']}"
    return plots.bar_chart(bars, title=title, x_label="times faster than torch's convolution", width=760)


if __name__ == "__main__":
    command(__doc__, "kernels", SETTINGS, build=build, measure=measure, table=table, chart=chart)
