"""Options that several commands share, and parsers for the values of options."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from vggfeat.networks.preprocessing import MEAN_HELP, ORDER_HELP, STD_HELP
from vggfeat.pictures.video.names import METHODS

Command = Any
"""A function, before or after click has turned it into a command."""
Decorator = Callable[[Command], Command]
_Value = TypeVar("_Value")

SOME_FAILED = 3
"""The exit code of a command that finished, but failed for some inputs."""

PICTURE_FORMATS = "PNG, JPEG, WebP or TIFF."
PRECISIONS = ("auto", "float32", "tf32", "bfloat16", "float16")

device_option = click.option("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps.")
quiet_option = click.option("--quiet", is_flag=True, help="Show no progress.")
summary_option = click.option("--json", "as_json", is_flag=True, help="Print a summary as JSON.")
result_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
list_option = click.option("--json", "as_json", is_flag=True, help="Print a JSON list of objects.")
csv_option = click.option("--csv", "csv_file", metavar="FILE", help="Write a CSV table; - prints it.")
json_option = click.option("--json", "json_file", metavar="FILE", help="Write results and settings as JSON; - prints.")
weights_option = click.option("--weights", default="default", help="A name from `vggfeat weights`, or a file.")


def _raise_limit(context: click.Context, _option: click.Parameter, millions: float | None) -> None:
    if millions is not None:
        from vggfeat.pictures import images

        context.with_resource(images.pixel_limit(round(millions * 1e6)))


megapixels_option = click.option(
    "--max-megapixels",
    type=click.FloatRange(0, 1e6, min_open=True),
    expose_value=False,
    callback=_raise_limit,
    metavar="N",
    help="Refuse to read larger pictures.  [default: 200]",
)


def arrays_options(command: Command) -> Command:
    """`--layer` and `--reduce`: which arrays of a dump to use, as lists of names or globs, empty for all."""
    for flag, name, metavar, text in (
        ("--reduce", "reductions", "NAME,...", "Reductions.  [default: all]"),
        ("--layer", "layers", "NAME,...", "Layer names or globs.  [default: all]"),
    ):
        command = click.option(
            flag, name, default="", callback=parsed(words), show_default=False, metavar=metavar, help=text
        )(command)
    return command


array_option = click.option(
    "--array", metavar="LAYER.REDUCTION", help="Features to use, such as relu4_3.mean.  [default: the only one]"
)


flow_option = click.option(
    "--flow",
    default="tvl1",
    metavar="NAME|DIR",
    help=f"Optical flow of a clip: a method ({', '.join(METHODS)}), or a folder of .flo files.",
)


class Triple(click.ParamType):  # pyright: ignore[reportMissingTypeArgument] (not generic in older versions of click)
    """Three numbers, one for each colour: `0.485,0.456,0.406`."""

    name = "R,G,B"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        """Parse the text; a tuple is returned as it is."""
        from vggfeat.errors import InputError
        from vggfeat.networks.preprocessing import parse_triple

        try:
            return parse_triple(value) if isinstance(value, str) else value
        except InputError as error:
            self.fail(str(error), param, ctx)


def preprocessing_options(*order: str) -> Decorator:
    """`--mean`, `--std` and the options `order`: how the weights of `--weights` expect pictures."""

    def add(command: Command) -> Command:
        for flags, kind, text in (
            (order, click.Choice(["rgb", "bgr"]), f"{sentence(ORDER_HELP)}  [default: auto]"),
            (("--std",), Triple(), sentence(STD_HELP)),
            (("--mean",), Triple(), sentence(MEAN_HELP)),
        ):
            name = "input_order" if flags == order else flags[0].removeprefix("--")
            command = click.option(*flags, name, type=kind, help=text)(command)
        return command

    return add


def sentence(text: str) -> str:
    """`text` with a capital letter, and a full stop unless it ends in one."""
    return text[0].upper() + text[1:] + ("" if text.endswith(".") else ".")


ORDER_FLAGS = ("--input-order", "--channels")
"""The option for the order of the colours, except where --channels chooses channels to draw."""

_DEFAULT_NETWORK = "vgg16"
network_option = click.option(
    "--network",
    help=f"Such as vgg16 or vgg19_bn.  [default: the one named by the weights file, else {_DEFAULT_NETWORK}]",
)


def chosen_network(options: Mapping[str, Any]) -> str:
    """The value of --network, else the network that the file of --weights names, else the default.

    Raises `WeightsError` for a weights file that cannot be read.
    """
    from vggfeat.networks import weights as weights_table

    return options["network"] or weights_table.named_network(options["weights"]) or _DEFAULT_NETWORK


def refuse_with(option: str, others: Iterable[str]) -> None:
    """Refuse parameters of the running command that `option` makes meaningless, if they were given."""
    for name in given(others):
        raise click.UsageError(f"{option} cannot be combined with {name}")


def refuse_unless(option: str, others: Iterable[str]) -> None:
    """Refuse parameters of the running command that mean something only with `option`, if they were given."""
    for name in given(others):
        raise click.UsageError(f"{name} needs {option}")


def given(names: Iterable[str]) -> list[str]:
    """Those parameters of the running command that were given, as the user writes them."""
    context = click.get_current_context()
    named = {name for name in names if context.get_parameter_source(name) is ParameterSource.COMMANDLINE}
    return [
        parameter.opts[0] if isinstance(parameter, click.Option) else parameter.human_readable_name
        for parameter in context.command.params
        if parameter.name in named
    ]


def output_option(default: str, formats: str = PICTURE_FORMATS) -> Decorator:
    """`--output`: a picture, with the name that it gets if the option is not used."""
    return click.option("-o", "--output", type=click.Path(), help=f"{formats}  [default: {default}]")


def precision_option(default: str = "float32", help_text: str = "") -> Decorator:
    """`--precision`. `help_text` replaces the default help."""
    return click.option(
        "--precision",
        type=click.Choice(PRECISIONS),
        default=default,
        help=help_text or "Precision of the network; auto is bfloat16 where that is faster.",
    )


def size_option(default: int, help_text: str) -> Decorator:
    """`--size`: a long side in pixels."""
    return click.option("--size", type=click.IntRange(1), default=default, help=help_text)


def parsed(parse: Callable[[str], _Value]) -> Callable[..., _Value | None]:
    """A click callback that parses the text of an option. `parse` raises `ValueError` with the message to show."""

    def callback(_context: click.Context, _option: click.Parameter, text: str | None) -> _Value | None:
        try:
            return None if text is None else parse(text)
        except ValueError as error:
            raise click.BadParameter(str(error)) from error

    return callback


def words(text: str) -> list[str]:
    """Split a comma-separated list: `a, b` -> ["a", "b"]."""
    return [word.strip() for word in text.split(",") if word.strip()]


def parse_numbers(text: str) -> list[float]:
    """`0.5,1` -> [0.5, 1.0]."""
    try:
        return [float(word) for word in text.split(",")]
    except ValueError:
        raise ValueError(f"'{text}' is not a list of numbers such as 100,1000") from None


def parse_channels(text: str) -> tuple[int, ...]:
    """`3,17` -> (3, 17), each channel once."""
    if not re.fullmatch(r"\s*\d+\s*(,\s*\d+\s*)*", text):
        raise ValueError(f"'{text}' is not a list of channels such as 3,17")
    return tuple(dict.fromkeys(int(word) for word in text.split(",")))


def parse_position(text: str) -> tuple[int, int]:
    """`120,80` -> (120, 80)."""
    if not (found := re.fullmatch(r"\s*(\d+)\s*,\s*(\d+)\s*", text)):
        raise ValueError(f"'{text}' is not a pixel X,Y such as 120,80")
    return int(found[1]), int(found[2])


def parse_count(**names: str | None) -> Callable[[str], int | str | None]:
    """A parser for a whole number or one of the words in `names`, whose value is returned instead."""

    def parse(text: str) -> int | str | None:
        if text in names:
            return names[text]
        if not text.isdecimal():
            raise ValueError(f"'{text}' is neither a whole number nor {' nor '.join(names)}")
        return int(text)

    return parse
