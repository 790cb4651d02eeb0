"""`vggfeat animate`: save the steps of a style transfer as an animation."""

import json
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._options import output_option
from ._outputs import check_paths, chosen_output
from ._painting import RunOptions, run_options
from ._progress import report, tell
from ._recipes import chosen_recipe, files_read, recipe_options
from ._signals import saving, uninterrupted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image
    from torch import Tensor

# The number of frames if --every is not given: about five seconds.
_FRAMES = 60


@click.command()
@click.argument("content", type=click.Path())
@click.argument("style", type=click.Path())
@output_option("CONTENT-STYLE.gif", "GIF, WebP, or a video file such as MP4.")
@click.option("--every", type=click.IntRange(1), metavar="STEPS", help="Steps per frame.  [default: about 60 frames]")
@click.option("--fps", type=click.FloatRange(0.1, 60), default=12.0, help="Frames per second.")
@click.option("--hold", type=click.FloatRange(0, 600), default=2.0, help="Seconds to show the last frame.")
@run_options("seconds", "device", "precision", "memory_limit", "max_megapixels", "quiet", "as_json")
@recipe_options(
    "preview",
    (
        *(
            "size",
            "enlarge",
            "objective",
            "content_weight",
            "style_weight",
            "content_layers",
            "style_layers",
            "style_scale",
        ),
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
    **options: Any,
) -> None:
    """Paint CONTENT in the style of STYLE, and save the steps as an animation.

    All frames have the size of the last one. Ctrl-C saves the frames so far. Video files need the extra `video`.
    """
    from vggfeat.pictures import images
    from vggfeat.pictures.video.writing import check_clip_writable
    from vggfeat.transfer.run import stylize

    run_with = RunOptions.pop_from(options)
    chosen = chosen_recipe("preview", options)
    target = chosen_output(output, f"{Path(content).stem}-{Path(style).stem}.gif")
    check_clip_writable(target)
    check_paths([("the output", target)], files_read(chosen, options, content, style))
    run = stylize(content, style, chosen, **run_with.arguments())
    height, width = run.stages[-1].height, run.stages[-1].width
    check_clip_writable(target, size=(height, width))
    every = every or max(1, sum(stage.steps for stage in run.stages) // _FRAMES)
    frames: list[Image.Image] = []
    last = 0

    def keep(image: "Tensor") -> None:
        frames.append(images.to_pil(images.resize(image, height, width)))

    def save() -> bool:
        if last:
            _write(target, frames, fps, hold)
            tell(f"interrupted: '{target}' holds {len(frames)} frames")
        return bool(last)

    run_with.keep_freed_memory()
    keep(run.image)
    with saving(save):
        for last, progress in enumerate(report(run, quiet=run_with.quiet), 1):
            if last % every == 0:
                keep(progress.image)
        if last % every:
            keep(run.image)
    with uninterrupted():
        _write(target, frames, fps, hold)
    if run_with.as_json:
        facts = {"output": str(target), "width": width, "height": height, "frames": len(frames), "fps": fps}
        click.echo(json.dumps({**facts, "recipe": chosen.as_dict()}, allow_nan=False))
    elif not run_with.quiet:
        click.echo(str(target))


def _write(target: Path, frames: "Sequence[Image.Image]", fps: float, hold: float) -> None:
    from vggfeat.errors import ImageError
    from vggfeat.pictures import images
    from vggfeat.pictures.video.writing import write_clip

    held = [frames[-1]] * round(hold * fps)
    try:
        write_clip(target, map(images.from_pil, [*frames, *held]), fps=fps)
    except ImageError as error:
        raise ImageError(str(error), _saved_instead(target, frames, fps)) from error


def _saved_instead(target: Path, frames: "Sequence[Image.Image]", fps: float) -> Path | None:
    """Save frames as an animated PNG beside `target`, which cannot be written, or where that is possible."""
    from vggfeat import files

    name = target.with_suffix(".png")
    for wanted in (name, *(folder.resolve() / name.name for folder in (Path(), Path(tempfile.gettempdir())))):
        spare = chosen_output(None, str(wanted))
        with suppress(OSError):
            with files.replacing(spare) as unfinished:
                frames[0].save(
                    unfinished, "PNG", save_all=True, append_images=frames[1:], duration=round(1000 / fps), loop=0
                )
            return spare
    return None
