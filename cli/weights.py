"""`vggfeat weights`: list the available weights, verify their files, or carry them to another machine."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from vggfeat.errors import WeightsError
from vggfeat.networks import weights

from ._text import escaped, print_table

if TYPE_CHECKING:
    from vggfeat.networks.carry import Carried

_network_argument = click.argument("networks", nargs=-1, required=True, metavar="NETWORK...")
_name_option = click.option("--name", default="imagenet1k_v1", help="The weights, as `vggfeat weights` lists them.")
_whole_option = click.option(
    "--whole", is_flag=True, help="torchvision's whole network with its classifier, about 550 MB."
)


@click.group(invoke_without_command=True)
@click.pass_context
def command(context: click.Context) -> None:
    """List the known weights; verify those on this machine; fetch, export and import them.

    For a machine without network: `fetch` or `export` on another one, carry the file, `import` it.
    """
    if context.invoked_subcommand is None:
        _list()


@command.command("list")
def list_weights() -> None:
    """List the known weights."""
    _list()


def _list() -> None:
    print_table(
        ["network", "weights", "status", "MB", "licence", "mean", "std", "source"],
        [
            [
                *(entry.network, entry.name, entry.status, f"{entry.size / 1e6:.0f}", entry.licence),
                *(" ".join(f"{value:.5f}" for value in triple) for triple in (entry.mean, entry.std)),
                entry.source,
            ]
            for entry in weights.TABLE
        ],
    )


@command.command("verify")
def verify() -> None:
    """Check the hash of each file on this machine, and the fingerprint of each layer."""
    damaged: list[str] = []
    for entry in weights.TABLE:
        if entry.status == "to be downloaded":
            continue
        try:
            weights.verify(entry)
        except WeightsError as error:
            damaged.append(str(error))
        else:
            click.echo(f"{entry}: {entry.status}, intact")
    if damaged:
        raise WeightsError("; ".join(damaged))


@command.command("fetch")
@_network_argument
@_name_option
@_whole_option
def fetch(networks: tuple[str, ...], *, name: str, whole: bool) -> None:
    """Download weights now, so that later runs need no network. Files on this machine are only checked."""
    from vggfeat.networks import carry

    for entry in [weights.find_entry(network, name) for network in networks]:
        _tell(carry.fetch(entry, classifier=whole))


@command.command("export")
@click.argument("network")
@_name_option
@_whole_option
@click.option("-o", "--output", type=click.Path(), help="The file to write.  [default: NETWORK-NAME.safetensors]")
def export(network: str, *, name: str, whole: bool, output: str | None) -> None:
    """Write weights to a file that `import` reads on another machine, and print its sha256."""
    from vggfeat.networks import carry

    entry = weights.find_entry(network, name)
    url = weights.whole_url(entry) if whole else None
    path = Path(output or (url.rpartition("/")[2] if url else f"{entry.network}-{entry.name}.safetensors"))
    digest = carry.export(entry, path, classifier=whole)
    click.echo(escaped(f"{path}: sha256 {digest}"))


@command.command("import")
@click.argument("files", nargs=-1, required=True, type=click.Path(), metavar="FILE...")
@click.option("--sha256", "digest", metavar="DIGITS", help="The sha256 that `export` printed; needs a single FILE.")
@click.option("--whole", is_flag=True, help="Keep torchvision's file with its classifier, not only the features.")
def import_files(files: tuple[str, ...], *, digest: str | None, whole: bool) -> None:
    """Put files of `export`, or torchvision's own, where every command finds them. Their hashes are checked."""
    from vggfeat.networks import carry

    if digest is not None and len(files) > 1:
        raise click.UsageError("--sha256 needs a single FILE")
    for file in files:
        for kept in carry.import_file(Path(file), digest=digest, classifier=whole):
            _tell(kept)


def _tell(kept: "Carried") -> None:
    what = "whole network" if kept.whole else "features"
    click.echo(escaped(f"{kept.entry}, {what}: '{kept.path}'"))
