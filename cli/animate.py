"""`vggfeat animate`: how a picture is painted, as an animation."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._files import check_spares, unused
from ._painting import How, run_options
from ._progress import keeping, report, tell, uninterrupted
from ._recipes import chosen_recipe, recipe_files, recipe_options

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
@run_options("seconds", "device", "precision", "memory_limit", "quiet", "as_json")
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
    **options: Any,  # noqa: ANN401 (the run's, and the recipe's fields)
) -> None:
    """Paint CONTENT in the manner of STYLE, and write the way there as an animation.

    Every frame has the size of the last one, which is held. Ctrl-C writes the frames that there are. MP4 needs the
    extra `video`.
    """
    from vggfeat.pictures.animation import check_animation, frame, write_animation
    from vggfeat.transfer.run import stylize

    how = How.taken(options)
    chosen = chosen_recipe("preview", options)
    target = Path(output) if output is not None else unused(Path(f"{Path(content).stem}-{Path(style).stem}.gif"))
    check_animation(target)
    inputs = [content, style, *(name for _, name in recipe_files(chosen))]
    check_spares(target, inputs)
    run = stylize(content, style, chosen, **how.arguments())
    height, width = run.stages[-1].height, run.stages[-1].width
    every = every or max(1, sum(stage.steps for stage in run.stages) // _FRAMES)
    frames: list[Image.Image] = [frame(run.image, height, width)]
    last = 0

    def write() -> None:
        check_spares(target, inputs)
        write_animation(target, frames, fps=fps, hold=hold)

    def keep() -> bool:
        if last:
            write()
            tell(f"interrupted: '{target}' holds {len(frames)} frames")
        return bool(last)

    how.hold()
    with keeping(keep):
        for last, progress in enumerate(report(run, quiet=how.quiet), 1):
            if last % every == 0:
                frames.append(frame(progress.image, height, width))
        if last % every:
            frames.append(frame(run.image, height, width))
        with uninterrupted():
            write()
    if how.as_json:
        facts = {"output": str(target), "width": width, "height": height, "frames": len(frames), "fps": fps}
        click.echo(json.dumps({**facts, "recipe": chosen.as_dict()}, allow_nan=False))
    elif not how.quiet:
        click.echo(str(target))
