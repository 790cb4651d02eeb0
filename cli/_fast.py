"""`vggfeat stylize --fast`: paint pictures in an instant style."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ._batch import expand, paint_all, target_folder
from ._options import refuse_with
from ._outputs import save_picture
from ._painting import PaintingFiles, RunOptions, check_output
from ._signals import exiting, load_torch, uninterrupted

if TYPE_CHECKING:
    from vggfeat.transfer.styles.file import InstantStyles

# The options of `stylize` that an instant style has a use for.
_ALLOWED = (
    *("pictures", "fast", "strength", "output", "size", "device"),
    *("memory_limit", "max_megapixels", "quiet", "as_json"),
)


@dataclass
class InstantStyling:
    """A mix of instant styles, for painting any number of contents."""

    styles: "InstantStyles"
    weights: Mapping[str, float]
    strength: float
    size: int | None
    options: RunOptions
    read: Sequence[Path] = ()

    def inputs(self) -> list[tuple[str, str]]:
        """The file of styles, as (role, name)."""
        return [("styles", self.styles.path)]

    @property
    def name(self) -> str:
        """The styles' names, for the name of a picture."""
        return "-".join(name for name, weight in self.weights.items() if weight)

    def paint(self, content: str, output: str | Path | None, default: str = "", partial: Path | None = None) -> None:
        """Paint `content`."""
        from vggfeat.features.device import choose_device
        from vggfeat.pictures import images
        from vggfeat.transfer.styles.painting import paint
        from vggfeat.transfer.styles.record import record_text

        roles = [("content", content), *self.inputs()]
        painting = PaintingFiles(output, default, roles, self.options, partial=partial)
        began = time.monotonic()
        like = images.read_picture(content)
        picture = images.flatten(like)
        if self.size is not None:
            picture = images.resize(picture, *images.fit(picture.shape[2], picture.shape[3], self.size))
        check_output(painting, like, (picture.shape[2], picture.shape[3]))
        painted = paint(
            self.styles,
            self.weights,
            picture,
            strength=self.strength,
            memory_limit=self.options.memory_limit,
            device=choose_device(self.options.device),
        )
        alpha = None if like.alpha is None else images.resize(like.alpha, *painted.shape[2:])
        text = record_text(self.weights, self.strength, self.size, painting.inputs)
        with uninterrupted():
            save_picture(
                painting.output,
                painted,
                alpha=alpha,
                icc=like.icc,
                text=text,
                bits=like.bits,
                metadata=images.read_metadata(content),
            )
        if self.options.as_json:
            height, width = painted.shape[2:]
            facts = {"output": str(painting.output), "width": width, "height": height}
            seconds = round(time.monotonic() - began, 3)
            click.echo(json.dumps({**facts, "seconds": seconds, "styles": dict(self.weights)}))
        elif not self.options.quiet:
            click.echo(str(painting.output))


def paint_fast(
    mix: str, pictures: Sequence[str], output: str | None, *, strength: float, size: int | None, options: RunOptions
) -> None:
    """Paint the pictures, and the pictures in folders, in a mix of instant styles."""
    names = {parameter.name or "" for parameter in click.get_current_context().command.params}
    refuse_with("--fast", names - set(_ALLOWED))
    load_torch()
    from vggfeat.pictures.video.clips import is_animated
    from vggfeat.transfer.styles.mixes import load_mix

    styles, weights = load_mix(mix)
    contents, many = expand(pictures, quiet=options.quiet)
    if clips := [name for name in contents if is_animated(name)]:
        raise click.UsageError(f"--fast paints pictures, and '{clips[0]}' is a clip: paint a folder of its frames")
    styling = InstantStyling(styles, weights, strength, size, options)
    with exiting("interrupted: the picture is not painted"):
        if many:
            paint_all(styling, contents, target_folder(output, pictures))
        else:
            styling.paint(contents[0], output, f"{Path(contents[0]).stem}-{styling.name}.png")
