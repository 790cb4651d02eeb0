"""`vggfeat show`: what the layers of a network make of a picture, as one page."""

import re
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from ._files import check_spares, unused
from ._networks import chosen_network, network_option


def _parse_channels(_context: click.Context, _option: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    if not re.fullmatch(r"\s*\d+\s*(,\s*\d+\s*)*", text):
        raise click.BadParameter(f"'{text}' is not a list of channels such as 3,17")
    return tuple(dict.fromkeys(int(word) for word in text.split(",")))


def _parse_at(_context: click.Context, _option: click.Parameter, text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    if not (found := re.fullmatch(r"\s*(\d+)\s*,\s*(\d+)\s*", text)):
        raise click.BadParameter(f"'{text}' is not a pixel X,Y such as 120,80")
    return int(found[1]), int(found[2])


@click.command()
@click.argument("image", type=click.Path(), required=False)
@click.option(
    "-l",
    "--layer",
    "layers",
    multiple=True,
    required=True,
    metavar="NAME,...",
    help="Such as relu3_3, relu*_1; a row each.",
)
@click.option(
    "-o", "--output", type=click.Path(), metavar="FILE", help="PNG, JPEG, WebP or TIFF.  [default: IMAGE-show.png]"
)
@click.option(
    "--dump", type=click.Path(), metavar="OUT", help="Instead of IMAGE: what of a dump excites --channel most."
)
@click.option("--channel", type=click.IntRange(0), metavar="N", help="Of --dump.")
@network_option
@click.option("--weights", default="default", show_default=True, help="A name of `vggfeat weights`, or a file.")
@click.option("--channels", callback=_parse_channels, metavar="N,...", help="Only these channels.  [default: all]")
@click.option("--top", type=click.IntRange(1), metavar="K", help="Only the K most active channels, or pictures.")
@click.option("--at", callback=_parse_at, metavar="X,Y", help="Also what the position at this pixel of IMAGE sees.")
@click.option(
    "--scale",
    type=click.Choice(["channel", "layer"]),
    default="channel",
    show_default=True,
    help="What the colours span: the values of each channel, or of the layer.",
)
@click.option(
    "--size",
    type=click.IntRange(1),
    default=512,
    show_default=True,
    help="Long side at which IMAGE is seen; never enlarges.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 or mps.")
def command(
    image: str | None,
    *,
    layers: tuple[str, ...],
    output: str | None,
    dump: str | None,
    channel: int | None,
    channels: tuple[int, ...] | None,
    top: int | None,
    at: tuple[int, int] | None,
    scale: Any,  # noqa: ANN401 (click has checked it)
    **options: Any,  # noqa: ANN401 (those of view.look)
) -> None:
    """Show what the layers of a network make of IMAGE: heat map, principal components, channels.

    Several layers make one page, a row each. Numbers beneath a channel are its own and its largest value.

    With --dump OUT --layer relu4_3 --channel 12, a dump made with --statistics: the pictures that excite a channel
    most, each cut to what its strongest position sees.
    """
    if dump is not None:
        _show_patches(dump, layers, channel, output=output, top=top)
        return
    if image is None or channel is not None:
        raise click.UsageError("give an IMAGE, or --dump OUT with --channel N")
    from vggfeat.explore.pages.layers import sheet
    from vggfeat.explore.view import look
    from vggfeat.pictures import images

    target = Path(output) if output is not None else unused(Path(f"{Path(image).stem}-show.png"))
    images.check_writable(target)
    check_spares(target, [image])
    options["network"] = chosen_network(options["network"], options["weights"])
    page = sheet(look(image, layers, **options), channels=channels, top=top, at=at, scale=scale)
    images.write_picture(target, page)
    click.echo(str(target))


def _show_patches(
    dump: str, layers: tuple[str, ...], channel: int | None, *, output: str | None, top: int | None
) -> None:
    """Write the page of the patches that excite a channel most. The dump says how its pictures are seen."""
    if given := [
        name for name in ("image", "network", "weights", "channels", "at", "scale", "size") if _is_given(name)
    ]:
        raise click.UsageError(f"--dump does not go with {'an IMAGE' if given[0] == 'image' else f'--{given[0]}'}")
    if channel is None or len(layers) != 1:
        raise click.UsageError("--dump needs one --layer and a --channel")
    from vggfeat.dumps.reading import open_dump
    from vggfeat.explore.pages.patches import sheet
    from vggfeat.explore.patches import most_activating
    from vggfeat.networks import arch
    from vggfeat.pictures import images

    name = layers[0]
    target = Path(output) if output is not None else unused(Path(f"{Path(dump).resolve().name}-{name}-{channel}.png"))
    images.check_writable(target)
    device = click.get_current_context().params["device"]
    patches = most_activating(dump, name, channel, top=top, device=device)
    about = open_dump(dump).fingerprint
    layer = arch.find_layers(about["network"], name, pooling=about["pooling"])[0]
    images.write_picture(target, sheet(patches, layer, channel, title=f"'{Path(dump).resolve().name}'"))
    click.echo(str(target))


def _is_given(name: str) -> bool:
    return click.get_current_context().get_parameter_source(name) is ParameterSource.COMMANDLINE
