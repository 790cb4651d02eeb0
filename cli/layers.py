"""`vggfeat layers`: print the layer table of a network, and the figures of the VGG paper."""

import json
from dataclasses import asdict

import click

from vggfeat.networks import arch

from ._networks import algorithm_names, kernel_stacks, print_kernels, print_layers, print_paper, processor_line
from ._options import list_option


@click.command()
@click.argument("network", default="vgg16")
@click.option(
    "--config",
    metavar="PLAN",
    help="A plan of your own instead, such as 64,64,M,128,128,M; conv1-256 and LRN are allowed.",
)
@click.option("--size", type=click.IntRange(1, 100_000), default=224, help="Side of the square input, in pixels.")
@click.option(
    "--head",
    type=click.Choice(["paper", "gap"]),
    default="paper",
    help="Head to count: the paper's three linear layers, or global average pooling and one linear layer.",
)
@click.option("--paper", is_flag=True, help="Also print the paper's networks, their parameters and published errors.")
@click.option("--compare-kernels", is_flag=True, help="Only compare stacks of 3x3 convolutions with larger kernels.")
@click.option("--algorithms", is_flag=True, help="Also show which algorithm computes each convolution on this machine.")
@list_option
def command(
    network: str,
    *,
    config: str | None,
    size: int,
    head: arch.Head,
    paper: bool,
    compare_kernels: bool,
    algorithms: bool,
    as_json: bool,
) -> None:
    """Print the layers of NETWORK: names, indices, shapes, receptive fields and cumulative costs."""
    if compare_kernels:
        if as_json:
            click.echo(json.dumps([{**asdict(s), "activations": s.activations} for s in kernel_stacks()], indent=1))
        else:
            print_kernels()
        return
    name = network if config is None else arch.network(arch.parse_plan(config)).name
    layers = [asdict(layer) for layer in arch.sized_layers(name, size)]
    if algorithms:
        chosen = algorithm_names(name, size)
        layers = [layer | {"algorithm": chosen.get(layer["name"], "")} for layer in layers]
    if as_json:
        click.echo(json.dumps(layers, indent=1))
        return
    print_layers(layers, name, size, head)
    if algorithms:
        click.echo(processor_line())
    if paper:
        click.echo()
        print_paper(head)
