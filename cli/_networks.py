"""The option `--network` beside `--weights`: a file of weights may say which network it holds."""

import click

from vggfeat.networks import weights as table

_DEFAULT = "vgg16"

network_option = click.option(
    "--network", help=f"vgg11 to vgg19, and so on.  [default: what the file of weights says, else {_DEFAULT}]"
)


def chosen_network(network: str | None, weights: str) -> str:
    """The network that is meant. Raises `WeightsError` for a file of weights that cannot be read."""
    return network or table.named_network(weights) or _DEFAULT
