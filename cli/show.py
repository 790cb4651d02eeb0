"""`vggfeat show`: draw the activations of layers as one page."""

from pathlib import Path
from typing import Any

import click

from ._options import (
    chosen_network,
    device_option,
    megapixels_option,
    network_option,
    output_option,
    parse_channels,
    parse_position,
    parsed,
    preprocessing_options,
    refuse_with,
    size_option,
    weights_option,
    words,
)
from ._outputs import picture_output, save_picture

_ORDERS = ("rgb", "bgr")


@click.command()
@click.argument("image", type=click.Path(), required=False)
@click.option(
    "-l",
    "--layer",
    "layers",
    multiple=True,
    metavar="NAME,...",
    help="Layers such as relu3_3 or relu*_1, one row each.  [default with --cam: the last]",
)
@output_option("IMAGE-show.png")
@click.option("--dump", type=click.Path(), metavar="DUMP", help="Instead of IMAGE: a dump made with --statistics.")
@click.option("--channel", type=click.IntRange(0), metavar="N", help="With --dump: the channel.")
@network_option
@weights_option
@preprocessing_options("--input-order")
@click.option(
    "--channels",
    callback=parsed(lambda text: text if text in _ORDERS else parse_channels(text)),
    metavar="N,...",
    help="Channels to draw; rgb or bgr means --input-order.  [default: all; of fc6 to fc8 the 64 most active]",
)
@click.option("--top", type=click.IntRange(1), metavar="K", help="Draw only the K most active channels or pictures.")
@click.option(
    "--at", callback=parsed(parse_position), metavar="X,Y", help="Also draw the receptive field at this pixel of IMAGE."
)
@click.option(
    "--scale",
    type=click.Choice(["channel", "layer"]),
    default="channel",
    help="Scale the colours to each channel's values, or to the whole layer's.",
)
@click.option("--cam", is_flag=True, help="Instead of features: where a classifier sees its classes.")
@click.option("--class", "classes", multiple=True, metavar="NAME", help="With --cam: class, name or number.")
@click.option(
    "--cam-method", type=click.Choice(["grad-cam", "layer-cam"]), default="grad-cam", help="With --cam: kind of map."
)
@size_option(512, "Long side to which IMAGE is shrunk.")
@megapixels_option
@device_option
def command(
    image: str | None,
    *,
    layers: tuple[str, ...],
    output: str | None,
    dump: str | None,
    channel: int | None,
    channels: tuple[int, ...] | str | None,
    top: int | None,
    at: tuple[int, int] | None,
    scale: Any,
    cam: bool,
    classes: tuple[str, ...],
    cam_method: Any,
    **options: Any,
) -> None:
    """Draw the activations of IMAGE in each layer: heat map, principal components, channels.

    The numbers below a channel are its index and its value of largest magnitude.

    With --dump DUMP --layer relu4_3 --channel 12: draw the pictures that activate a channel most, each cropped to the
    receptive field of its strongest position.

    With --cam: draw where a classifier finds the evidence for the most probable classes (--top, default 3), or those of
    --class. --weights is then as in `vggfeat classify`: imagenet1k_v1, or a file with its linear layers.
    """
    if cam:
        _show_cam(image, layers, output=output, classes=classes, top=top or 3, method=cam_method, options=options)
        return
    if classes:
        raise click.UsageError("--class needs --cam")
    if not layers:
        raise click.UsageError("Missing option '-l' / '--layer': name layers such as relu3_3")
    if dump is not None:
        _show_patches(dump, layers, channel, output=output, top=top, device=options["device"])
        return
    if image is None or channel is not None:
        raise click.UsageError("give an IMAGE, or --dump DUMP with --channel N")
    from vggfeat.explore.pages.layers import sheet
    from vggfeat.explore.view import inspect

    target = picture_output(output, f"{Path(image).stem}-show.png", [image])
    options["network"] = chosen_network(options)
    if isinstance(channels, str):
        if options["input_order"] not in (None, channels):
            raise click.UsageError(f"--channels {channels} contradicts --input-order {options['input_order']}")
        options["input_order"], channels = channels, None
    page = sheet(inspect(image, layers, **options), channels=channels, top=top, at=at, scale=scale)
    save_picture(target, page)
    click.echo(str(target))


def _show_cam(
    image: str | None,
    layers: tuple[str, ...],
    *,
    output: str | None,
    classes: tuple[str, ...],
    top: int,
    method: Any,
    options: dict[str, Any],
) -> None:
    """Draw the class activation maps of IMAGE."""
    refuse_with("--cam", ("dump", "channel", "channels", "at", "scale", "size"))
    if image is None:
        raise click.UsageError("--cam needs an IMAGE")
    from vggfeat.explore.colours import over
    from vggfeat.explore.pages.variations import grid
    from vggfeat.training.classification import Classifier

    target = picture_output(output, f"{Path(image).stem}-cam.png", [image])
    weights = "imagenet1k_v1" if options["weights"] == "default" else options["weights"]
    classify = Classifier(options["network"] or "auto", weights, device=options["device"])
    named = [word for text in layers for word in words(text)]
    found = classify.cam(image, named or None, classes=classes, top=top, method=method)
    cells = {
        (row, column): over(found.picture, maps[column : column + 1])
        for row, maps in enumerate(found.maps.values())
        for column in range(len(found.predictions))
    }
    page = grid(
        cells,
        list(found.maps),
        [f"{each.name} {each.probability:.1%}" for each in found.predictions],
        names=("layer", "class"),
        title=Path(image).name,
        facts=f"{found.method}: the evidence for each class, from least (black) to most (white)",
        sources={"picture": found.picture},
        size=(224, 224),
    )
    save_picture(target, page)
    click.echo(str(target))


def _show_patches(
    dump: str, layers: tuple[str, ...], channel: int | None, *, output: str | None, top: int | None, device: str
) -> None:
    """Draw the patches that activate a channel most. The dump says how its pictures are preprocessed."""
    others = ("image", "network", "weights", "mean", "std", "input_order", "channels", "at", "scale", "size")
    refuse_with("--dump", others)
    if channel is None or len(layers) != 1:
        raise click.UsageError("--dump needs one --layer and a --channel")
    from vggfeat.explore.pages.patches import sheet
    from vggfeat.explore.patches import most_activating

    title = Path(dump).resolve().name
    target = picture_output(output, f"{title}-{layers[0]}-{channel}.png", [])
    patches = most_activating(dump, layers[0], channel, top=top, device=device)
    save_picture(target, sheet(patches, layers[0], channel, title=f"'{title}'"))
    click.echo(str(target))
