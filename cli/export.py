"""`vggfeat export`: write a network or a metric as an ONNX file, to run without vggfeat."""

from typing import TYPE_CHECKING, Any

import click

from ._options import ORDER_FLAGS, parsed, preprocessing_options, weights_option, words
from ._signals import exiting, load_torch

if TYPE_CHECKING:
    from vggfeat.pictures.ranges import InputRange


@click.command()
@click.argument("what")
@click.option(
    "--layers",
    default="",
    show_default=False,
    metavar="NAME,...",
    callback=parsed(words),
    help="Layers of a network: the outputs.",
)
@weights_option
@preprocessing_options(*ORDER_FLAGS)
@click.option(
    "--input-range",
    type=click.Choice(["unit", "signed", "byte"]),
    default="unit",
    help="Range of the images: [0, 1], [-1, 1] or [0, 255].",
)
@click.option("--opset", type=click.IntRange(18, 23), default=18, help="Version of ONNX's operators.")
@click.option("--check/--no-check", default=True, help="Compare the file with the module, by onnxruntime.")
@click.option("-o", "--output", type=click.Path(), help="The file.  [default: WHAT.onnx]")
def command(
    what: str,
    *,
    layers: list[str],
    weights: str,
    input_range: "InputRange",
    opset: int,
    check: bool,
    output: str | None,
    **preprocessing: Any,
) -> None:
    """Write WHAT, a network such as vgg16 or a metric such as lpips-vgg, as an ONNX file.

    A network has the input `images` and an output for each of --layers; a metric has the inputs `prediction` and
    `target`, and the output `value`, one for each pair. Images are RGB, (batch, 3, height, width), of any size.
    Needs the extra `onnx`.
    """
    load_torch()
    from vggfeat.losses.onnx import export_onnx, named

    module = named(what, layers=layers, weights=weights, input_range=input_range, **preprocessing)
    with exiting("interrupted: nothing is written"):
        file = export_onnx(module, output or f"{what}.onnx", opset=opset, check=check)
    for shape, difference in file.differences.items():
        click.echo(f"{'x'.join(map(str, shape))}: differs by {difference:.1e} of the largest value")
    click.echo(f"{', '.join(file.inputs)} -> {', '.join(file.outputs)}")
    click.echo(file.about)
    click.echo(f"{file.path}: opset {file.opset}, {file.path.stat().st_size / 1e6:.1f} MB")
