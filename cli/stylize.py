"""`vggfeat stylize`: paint a picture in the style of another."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from vggfeat.errors import one_of
from vggfeat.pictures.video.names import FAST_STEADINESS, STEADINESS

from ._batch import Styling, expand, paint_all, target_folder
from ._clips import Steadiness, check_clip_options, clip_output, paint_clip
from ._fast import paint_fast
from ._options import flow_option, output_option, parsed, refuse_unless
from ._painting import RunOptions, run_options
from ._progress import tell
from ._recipes import chosen_recipe, files_read, recipe_options


def _distances(text: str) -> tuple[int, ...]:
    """Read how many frames earlier other frames are: `1,10`."""
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or min(found) < 1:
        raise ValueError(f"'{text}' is not a list of whole numbers from 1 on, such as 1,10")
    return found


@click.command()
@click.argument("pictures", nargs=-1, required=True, type=click.Path(), metavar="CONTENT STYLE...")
@click.option(
    "--fast",
    metavar="NAME",
    help="An instant style, in one pass: NAME, FILE.safetensors:NAME from train-style, or a mix NAME:2,NAME:1. "
    "Every argument is a content.",
)
@click.option(
    "--strength",
    type=click.FloatRange(0, 1),
    default=1.0,
    help="With --fast: blends the content (0) with the painting (1).",
)
@click.option(
    "--style",
    "named_styles",
    multiple=True,
    type=click.Path(),
    help="A style. With this option, every argument is a content.",
)
@output_option(
    "CONTENT-STYLE.png",
    "PNG, JPEG, WebP or TIFF; a folder for several contents; for a clip MP4, MOV, MKV, WebM, GIF, WebP or a folder.",
)
@click.option("--mix", metavar="2,1", help="Weights of several styles.  [default: equal]")
@click.option(
    "--mask",
    "masks",
    multiple=True,
    metavar="MASK=STYLE",
    help="A style for the white parts of a mask. With this option, every argument is a content.",
)
@click.option(
    "--style-mask",
    "style_masks",
    multiple=True,
    metavar="MASK=STYLE",
    help="Take the style from the white parts of a mask of STYLE, one of the styles.",
)
@click.option("--keep", type=click.Path(), help="A mask whose white parts keep the content unchanged.")
@click.option("--sequence", is_flag=True, help="The contents are frames of a clip: paint them without flicker.")
@flow_option
@click.option(
    "--steadiness",
    type=click.FloatRange(0),
    help="For clips: weight of the loss that keeps a frame like the one before; with 0, a frame only starts from it."
    f"  [default: {STEADINESS:g}, with --fast {FAST_STEADINESS:g}]",
)
@click.option(
    "--look-back",
    "back",
    metavar="1,10",
    callback=parsed(_distances),
    help="For clips: keep a frame like the ones 1, 10, ... frames earlier, nearest first.  [default: 1]",
)
@click.option("--fps", type=click.FloatRange(0.1, 240), help="For clips: frames per second.  [default: as the content]")
@click.option("--compile", "compiled", is_flag=True, help="Compile the network with torch.compile; for CUDA.")
@run_options()
@recipe_options("default")
def command(
    pictures: tuple[str, ...],
    *,
    fast: str | None,
    strength: float,
    named_styles: tuple[str, ...],
    output: str | None,
    mix: str | None,
    masks: tuple[str, ...],
    style_masks: tuple[str, ...],
    keep: str | None,
    sequence: bool,
    flow: str,
    steadiness: float | None,
    back: tuple[int, ...] | None,
    fps: float | None,
    compiled: bool,
    **options: Any,
) -> None:
    """Paint CONTENT in the style of STYLE. Several styles are mixed.

    CONTENT may be a clip: a video file (extra `video`), an animated GIF or WebP, or a folder of frames if -o is a clip
    such as out.mp4. Each frame starts from the painting of the frame before, warped by the motion of the clip, and is
    kept like it where both show the same things. Frame rate and sound are kept. To continue after an interruption, run
    the same command again.

    With --style or --mask, every argument is a content or a folder of contents, and -o is a folder. Contents that are
    already painted there are skipped. Contents that cannot be painted are reported and skipped (exit code 3).

    Ctrl-C saves the picture as it is; if -o is a folder, as NAME.partial.png.

    With --fast, a small network paints CONTENT in one pass, in a style that it was trained for, at the content's own
    size unless --size is given; each frame of a clip is blended with the one before. Of the other options, only
    --strength, --size, --memory and those about clips and output apply.
    """
    run_with = RunOptions.pop_from(options)
    if fast is not None:
        paint_fast(
            fast,
            pictures,
            output,
            strength=strength,
            size=options["size"],
            options=run_with,
            steadiness=Steadiness(flow, FAST_STEADINESS if steadiness is None else steadiness, back or (1,)),
            fps=fps,
            sequence=sequence,
        )
        return
    refuse_unless("--fast", ("strength",))
    contents, styles, places = _arguments(pictures, named_styles, masks)
    clip = clip_output(contents, output, Path(styles[0]).stem)
    found, many = (contents, False) if clip else expand(contents, quiet=run_with.quiet)
    check_clip_options(clip=clip is not None, sequence=sequence, many=many)
    if (many or clip) and (run_with.checkpoint or run_with.resume or run_with.plot or run_with.save_every):
        raise click.UsageError("--checkpoint, --resume, --plot and --save-every are for a single picture")
    chosen = chosen_recipe("default", options, run_with.resume)
    styling = Styling(
        styles=styles,
        recipe=chosen,
        weights=_weights(mix, len(styles)),
        masks=places,
        style_masks=_areas(style_masks, styles),
        keep=keep,
        compiled=compiled,
        options=run_with,
        read=files_read(chosen, options),
    )
    if len(styles) > 1 and not run_with.quiet:
        tell(f"{'contents' if many else repr(contents[0])} in a mix of {len(styles)} styles: {', '.join(styles)}")
    held = Steadiness(flow, STEADINESS if steadiness is None else steadiness, back or (1,))
    if clip:
        paint_clip(styling, contents[0], clip, held, fps)
    elif many:
        folder = target_folder(output, contents)
        styling.steady = held.begin(run_with.device) if sequence else None
        paint_all(styling, found, folder, steady=styling.steady)
    else:
        styling.paint(contents[0], output, f"{Path(contents[0]).stem}-{Path(styles[0]).stem}.png")


def _arguments(
    pictures: Sequence[str], named_styles: Sequence[str], masks: Sequence[str]
) -> tuple[list[str], list[str], list[str | None]]:
    """The contents, the styles, and for each style its mask or None."""
    pairs = _pairs("--mask", masks)
    if not pairs and not named_styles:
        if len(pictures) == 1:
            raise click.UsageError(f"there is no style for '{pictures[0]}': give CONTENT STYLE or --style STYLE")
        return [pictures[0]], list(pictures[1:]), [None] * (len(pictures) - 1)
    styles = [*named_styles, *(style for _, style in pairs)]
    return list(pictures), styles, [*([None] * len(named_styles)), *(mask for mask, _ in pairs)]


def _pairs(option: str, items: Sequence[str]) -> list[tuple[str, str]]:
    """The masks and styles of MASK=STYLE."""
    pairs: list[tuple[str, str]] = []
    for item in items:
        mask, equals, style = item.partition("=")
        if not equals or not mask or not style:
            raise click.UsageError(f"{option} {item} is not MASK=STYLE, such as sky.png=waves.jpg")
        pairs.append((mask, style))
    return pairs


def _areas(items: Sequence[str], styles: Sequence[str]) -> list[str | None]:
    """For each style the mask of --style-mask, or None."""
    areas: dict[str, str] = {}
    for mask, style in _pairs("--style-mask", items):
        one_of("style", style, styles, of="--style-mask")
        areas[style] = mask
    return [areas.get(style) for style in styles]


def _weights(mix: str | None, styles: int) -> list[float] | None:
    if mix is None:
        return None
    try:
        return [float(part) for part in mix.split(",")]
    except ValueError:
        raise click.UsageError(f"--mix {mix} is not a list of {styles} numbers, such as 2,1") from None
