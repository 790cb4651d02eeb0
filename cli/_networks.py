"""Tables about networks: their layers, the figures of the VGG paper, stacks of kernels."""

from collections.abc import Mapping, Sequence
from typing import Any

import click

from vggfeat.networks import arch

from ._text import print_table


def print_layers(layers: Sequence[Mapping[str, Any]], name: str, size: int, head: arch.Head) -> None:
    """Print a table of layers, which all have the same keys, and a line about the network `name` at `size`."""
    print_table(
        [column.replace("_", " ") for column in layers[0]], [list(map(str, layer.values())) for layer in layers]
    )
    click.echo()
    click.echo(_summary(name, size, head))


def _summary(name: str, size: int, head: arch.Head) -> str:
    sides = f"{' -> '.join(map(str, arch.block_sides(name, size)))} pixels"
    if not arch.is_vgg(name):
        return sides
    counted = arch.count_parameters(name, head)
    return (
        f"{sides}; {counted.features / 1e6:.2f} M parameters of "
        f"features, {counted.head / 1e6:.2f} M of the {head} head for 1000 classes ({counted.head_share:.1%} of "
        f"{counted.total / 1e6:.2f} M)"
    )


def algorithm_names(name: str, size: int) -> dict[str, str]:
    """{convolution: algorithm} on this machine's processor, in float32."""
    import torch

    from vggfeat.features import algorithms

    stack, cpu = arch.layers(name), torch.device("cpu")
    return {**algorithms.by_layer(stack, size, size, dtype=torch.float32, device=cpu)}


def processor_line() -> str:
    """The CPU capability that the choice depends on, and what --precision auto means on this CPU."""
    import torch

    from vggfeat.features import algorithms

    auto = "bfloat16, with torch's convolutions" if algorithms.bfloat16_is_faster() else "float32"
    capability = torch.backends.cpu.get_cpu_capability()
    return f"algorithms for float32 on this CPU ({capability}); --precision auto means {auto} here"


def print_paper(head: arch.Head) -> None:
    """Print tables 2 to 4 of the paper, next to the parameters counted here."""
    counts = {name: arch.count_parameters(name, head) for name in arch.PUBLISHED_MILLIONS}
    rows = [
        [
            *(name, str(arch.weight_layers(name, head)), f"{counted.total / 1e6:.2f}"),
            *(str(arch.PUBLISHED_MILLIONS[name]), f"{counted.head_share:.1%}"),
            f"{arch.sized_layers(name)[-1].macs / 1e9:.2f}",
        ]
        for name, counted in counts.items()
    ]
    print_table(["network", "weight layers", "M parameters", "published", "in the head", "GMAC of features"], rows)
    click.echo()
    print_table(
        ["network", "trained at", "tested at", "top-1 error %", "top-5 error %"],
        [[one.network, one.train, one.test, f"{one.top1:.1f}", f"{one.top5:.1f}"] for one in arch.PUBLISHED],
    )
    click.echo("\nSimonyan & Zisserman (ICLR 2015), tables 2, 3 (one scale) and 4 (several); ImageNet validation set")


def kernel_stacks() -> list[arch.KernelStack]:
    """The stacks of convolutions that section 2.3 of the paper compares."""
    return [arch.kernel_stack(kernel, depth) for kernel, depth in ((3, 2), (5, 1), (3, 3), (7, 1))]


def print_kernels() -> None:
    """Print the receptive field, weights and non-linearities of `kernel_stacks`."""
    stacks = kernel_stacks()
    rows = [
        [
            f"{stack.depth} of {stack.kernel}x{stack.kernel}",
            f"{stack.receptive_field}x{stack.receptive_field}",
            f"{stack.weights} C\u00b2",
            str(stack.activations),
        ]
        for stack in stacks
    ]
    print_table(["convolutions", "receptive field", "weights", "non-linearities"], rows)
    three, seven = stacks[2:]
    click.echo(
        "\nWith C input and output channels, three 3x3 convolutions have the receptive field of one 7x7 convolution, "
        f"{1 - three.weights / seven.weights:.0%} fewer weights, and {three.activations} non-linearities instead of "
        f"{seven.activations}."
    )
