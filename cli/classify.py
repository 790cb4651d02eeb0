"""`vggfeat classify`: what pictures show."""

import json
from dataclasses import asdict
from typing import Any

import click

from vggfeat.errors import ImageError, InputError

from ._tables import print_table

_SOME_FAILED = 3


@click.command()
@click.argument("pictures", nargs=-1, required=True, type=click.Path(), metavar="IMAGE...")
@click.option("--network", default="auto", show_default=True, help="Its name; auto is what the file says, else vgg16.")
@click.option(
    "--weights",
    default="imagenet1k_v1",
    show_default=True,
    help="imagenet1k_v1 (downloaded once, about 550 MB), or a file of `vggfeat train` or of torchvision.",
)
@click.option("--top", type=click.IntRange(1), default=5, show_default=True, help="Classes to name.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 or mps.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list of objects.")
def command(pictures: tuple[str, ...], *, network: str, weights: str, top: int, device: str, as_json: bool) -> None:
    """Name what each IMAGE shows, with probabilities.

    Exit codes: 0; 3 if some pictures could not be read; 2 if nothing could begin.
    """
    from vggfeat.training.classification import Classifier

    classify = Classifier(network, weights, device=device)
    found: list[dict[str, Any]] = []
    failed = 0
    for picture in pictures:
        try:
            predictions = classify(picture, top=top)
        except (ImageError, InputError) as error:
            failed += 1
            click.echo(f"failed: '{picture}': {error}", err=True)
            continue
        found.append({"image": picture, "predictions": [asdict(prediction) for prediction in predictions]})
        if not as_json:
            rows = [[f"{each.probability:.2%}", each.name] for each in predictions]
            print_table(["", picture], [[share.rjust(7), name] for share, name in rows])
            click.echo()
    if as_json:
        click.echo(json.dumps(found, indent=1))
    if failed:
        raise click.exceptions.Exit(_SOME_FAILED)
