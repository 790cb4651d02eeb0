"""`vggfeat classify`: name what pictures show."""

import json
from dataclasses import asdict
from typing import Any

import click

from vggfeat.errors import ImageError, InputError

from ._options import ORDER_FLAGS, SOME_FAILED, device_option, list_option, preprocessing_options
from ._progress import tell
from ._text import escaped, print_table


@click.command()
@click.argument("pictures", nargs=-1, required=True, type=click.Path(), metavar="IMAGE...")
@click.option("--network", default="auto", help="auto: the one that the weights file names, else vgg16.")
@click.option(
    "--weights",
    default="imagenet1k_v1",
    help="imagenet1k_v1 (downloaded once, about 550 MB), or a file from `vggfeat train` or torchvision.",
)
@preprocessing_options(*ORDER_FLAGS)
@click.option("--top", type=click.IntRange(1), default=5, help="Number of classes to print.")
@device_option
@list_option
def command(
    pictures: tuple[str, ...], *, network: str, weights: str, top: int, device: str, as_json: bool, **preprocessing: Any
) -> None:
    """Print the most probable classes of each IMAGE.

    Exit codes: 0 success; 3 some pictures could not be read; 2 nothing was done.
    """
    from vggfeat.training.classification import Classifier

    classify = Classifier(network, weights, device=device, **preprocessing)
    found: list[dict[str, Any]] = []
    for picture in pictures:
        try:
            predictions = classify(picture, top=top)
        except (ImageError, InputError) as error:
            tell(escaped(f"failed: '{picture}': {error}"))
            continue
        found.append({"image": picture, "predictions": [asdict(prediction) for prediction in predictions]})
        if not as_json:
            print_table(["", escaped(picture)], [[f"{each.probability:7.2%}", each.name] for each in predictions])
            click.echo()
    if as_json:
        click.echo(json.dumps(found, indent=1))
    if len(found) < len(pictures):
        raise click.exceptions.Exit(SOME_FAILED)
