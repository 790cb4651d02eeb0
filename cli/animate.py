"""`vggfeat animate`: how a picture is painted, as an animation."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._files import check_spares, unused
from ._progress import report, tell, uninterrupted
from ._runs import chosen_recipe, recipe_options, run_options

if TYPE_CHECKING:
    from PIL import Image

# How many frames there are where nobody says: about five seconds.
_FRAMES = 60


@click.command()
@click.argument("content", type=click.Path())
@click.argument("style", type=click.Path())
@click.option("-o", "--output", type=click.Path(), help="GIF, WebP or MP4.  [default: CONTENT-STYLE.gif]")
@click.option(
    "--every", type=click.IntRange(1), metavar="STEPS", help="A frame each so many steps.  [default: about 60]"
)
@click.option("--fps", type=click.FloatRange(0.1, 60), default=12.0, show_default=True, help="Frames a second.")
@click.option(
    "--hold", type=click.FloatRange(0, 600), default=2.0, show_default=True, help="Seconds that the last frame stays."
)
@click.option(
    "--recipe", "recipe_name", default="preview", show_default=True, help="A name, a .toml file, or a painted picture."
)
@run_options
@recipe_options(
    "preview",
    (
        *("size", "objective", "content_weight", "style_weight", "content_layers", "style_layers", "style_scale"),
        *("color", "start", "steps", "first_size", "growth", "seed"),
    ),
)
def command(
    content: str,
    style: str,
    *,
    output: str | None,
    every: int | None,
    fps: float,
    hold: float,
    recipe_name: str,
    seconds: float | None,
    device: str,
    precision: Any,  # noqa: ANN401 (click has checked it)
    quiet: bool,
    as_json: bool,
    **options: Any,  # noqa: ANN401 (the recipe's fields)
) -> None:
    """Paint CONTENT in the manner of STYLE, and write the way there as an animation.

    Every frame has the size of the last one, which is held. Ctrl-C writes the frames that there are. MP4 needs the
    extra `video`.
    """
    from vggfeat.animation import check_animation, frame, write_animation
    from vggfeat.transfer.run import stylize

    chosen = chosen_recipe(recipe_name, options)
    target = Path(output) if output is not None else unused(Path(f"{Path(content).stem}-{Path(style).stem}.gif"))
    check_animation(target)
    inputs = [content, style, chosen.start, chosen.weights]
    check_spares(target, inputs)
    run = stylize(content, style, chosen, seconds=seconds, device=device, precision=precision)
    height, width = run.stages[-1].height, run.stages[-1].width
    every = every or max(1, sum(stage.steps for stage in run.stages) // _FRAMES)
    frames: list[Image.Image] = [frame(run.image, height, width)]
    kept = 0
    try:
        for kept, progress in enumerate(report(run, quiet=quiet), 1):
            if kept % every == 0:
                frames.append(frame(progress.image, height, width))
    except BaseException as error:
        if kept:
            with uninterrupted():
                check_spares(target, inputs)
                write_animation(target, frames, fps=fps, hold=hold)
                tell(f"interrupted: '{target}' holds {len(frames)} frames")
        elif isinstance(error, KeyboardInterrupt):
            tell("interrupted before the first step: nothing was saved")
        if isinstance(error, KeyboardInterrupt):
            raise click.exceptions.Exit(130) from None
        raise
    if kept % every:
        frames.append(frame(run.image, height, width))
    with uninterrupted():
        check_spares(target, inputs)
        write_animation(target, frames, fps=fps, hold=hold)
        if as_json:
            facts = {"output": str(target), "width": width, "height": height, "frames": len(frames), "fps": fps}
            click.echo(json.dumps({**facts, "recipe": chosen.as_dict()}, allow_nan=False))
        elif not quiet:
            click.echo(str(target))
