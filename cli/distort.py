"""`vggfeat distort`: change a picture in the ways that a layer or a metric notices most and least."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._options import (
    chosen_network,
    device_option,
    network_option,
    output_option,
    preprocessing_options,
    quiet_option,
    refuse_unless,
    refuse_with,
    result_option,
    size_option,
    weights_option,
)
from ._outputs import picture_output, save_picture
from ._progress import report, tell
from ._signals import load_torch, saving, uninterrupted

if TYPE_CHECKING:
    from torch import Tensor

    from vggfeat.transfer.distortions import Distortions

_OF_LAYER = ("network", "weights", "mean", "std", "input_order")
_OF_METRIC = ("hold", "noise")

# The root mean square of an eigendistortion, as it is added to the picture to be seen.
_SHOWN = 0.08


@click.command()
@click.argument("image", type=click.Path())
@click.option("-l", "--layer", metavar="NAME", help="Show what this layer, such as relu3_3, notices most and least.")
@click.option("--metric", metavar="NAME", help="Instead: make this metric large and small, such as lpips-vgg.")
@click.option("--hold", default="mse", metavar="NAME", help="With --metric: the metric that stays the same.")
@click.option("--noise", type=float, default=0.1, help="With --metric: standard deviation of the noise at the start.")
@output_option("IMAGE-distort.png")
@size_option(160, "Long side to which IMAGE is shrunk.")
@click.option("--steps", type=int, default=60, help="The most steps.")
@network_option
@weights_option
@preprocessing_options("--input-order")
@click.option("--seed", type=int, default=0, help="Seed of the noise at the start.")
@device_option
@quiet_option
@result_option
def command(
    image: str,
    *,
    layer: str | None,
    metric: str | None,
    output: str | None,
    size: int,
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Change IMAGE in the ways that a layer or a metric notices most and least.

    With --layer: the two changes of equal size that change the layer's response most and least (eigendistortions).

    With --metric: two pictures that --hold finds equally far from IMAGE, and --metric as far and as near as possible
    (maximum differentiation). Metrics: mse, ssim, and those of `vggfeat compare` that read a network.

    The page shows the pictures, and below them only the changes, amplified. Ctrl-C saves the page as it is.
    """
    if (layer is None) == (metric is None):
        raise click.UsageError("give --layer NAME or --metric NAME, one of them")
    target = picture_output(output, f"{Path(image).stem}-distort.png", [image])
    load_torch()
    from vggfeat.pictures import images
    from vggfeat.transfer.distortions import eigendistortions, maximum_differentiation

    picture = images.flatten(images.read_picture(image))
    picture = images.resize(picture, *images.fit(picture.shape[2], picture.shape[3], size))
    if layer is not None:
        refuse_unless("--metric", _OF_METRIC)
        chosen = {name: value for name, value in options.items() if name not in _OF_METRIC}
        chosen["network"] = chosen_network(options)
        run: Distortions = eigendistortions(picture, layer, **chosen)
    else:
        refuse_with("--metric", _OF_LAYER)
        chosen = {name: value for name, value in options.items() if name not in _OF_LAYER}
        run = maximum_differentiation(picture, metric or "", **chosen)
    judge = f"{layer} of {chosen_network(options)}" if layer else f"{metric}, at equal {options['hold']}"

    def save() -> bool:
        if not run.values:
            return False
        settings = {"image": Path(image).name, "layer": layer, "metric": metric, "size": size, **chosen}
        save_picture(target, _page(run, Path(image).name, judge), text={"vggfeat-distort": json.dumps(settings)})
        return True

    def save_interrupted() -> bool:
        tell(f"interrupted: saving '{target}' as it is")
        return save()

    with saving(save_interrupted):
        for _ in report(run, quiet=quiet):
            pass
    with uninterrupted():
        save()
    if as_json:
        click.echo(json.dumps({"output": str(target), **run.values}))
    else:
        click.echo(str(target))
        click.echo(f"{judge}: most {run.values['most']:.4g}, least {run.values['least']:.4g}")


def _page(run: "Distortions", name: str, judge: str) -> "Tensor":
    """The picture and its two distortions, and below them the changes, amplified around grey."""
    import torch

    from vggfeat.explore.pages.variations import grid
    from vggfeat.transfer.distortions import Eigendistortions

    picture, changes = run.picture.cpu(), run.changes.cpu()
    if isinstance(run, Eigendistortions):
        changes = changes * (_SHOWN * picture.numel() ** 0.5)
    cells: dict[tuple[int, int], Tensor | str] = {(0, 0): picture, (1, 0): torch.full_like(picture, 0.5)}
    for column, change in enumerate(changes[:, None], 1):
        cells[0, column] = (picture + change).clamp(0, 1)
        # All but the strongest hundredth of the values fit into the range.
        strong = change.abs().flatten().kthvalue(max(1, int(0.99 * change.numel()))).values.clamp_min(1e-12)
        cells[1, column] = (0.5 + 0.5 * change / strong).clamp(0, 1)
    labels = [f"{word} {run.values.get(word, float('nan')):.3g}" for word in ("most", "least")]
    height, width = picture.shape[2:]
    scale = max(1, round(320 / max(height, width)))
    return grid(
        cells,
        ["with it", "amplified"],
        ["original", *labels],
        names=("change", "noticed"),
        title=name,
        facts=f"the changes that are noticed most and least by {judge}",
        sources={},
        size=(height * scale, width * scale),
    )
