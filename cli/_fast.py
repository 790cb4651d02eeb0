"""`vggfeat stylize --fast`: paint pictures and clips in an instant style."""

import json
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._batch import expand, paint_all, target_folder
from ._clips import Steadiness, check_clip_options, clip_output, paint_clip
from ._options import refuse_with
from ._outputs import save_picture
from ._painting import PaintingFiles, RunOptions, check_output
from ._signals import exiting, load_torch, uninterrupted

if TYPE_CHECKING:
    from torch import Tensor

    from vggfeat.transfer.steady import Steady
    from vggfeat.transfer.styles.file import InstantStyles

# The options of `stylize` that an instant style has a use for.
_ALLOWED = (
    *("pictures", "fast", "strength", "output", "size", "device"),
    *("memory_limit", "max_megapixels", "quiet", "as_json"),
    *("sequence", "flow", "steadiness", "back", "fps"),
)


@dataclass
class InstantStyling:
    """A mix of instant styles, for painting any number of contents.

    `steady` remembers the frames before, if the contents are frames.
    """

    styles: "InstantStyles"
    weights: Mapping[str, float]
    strength: float
    size: int | None
    options: RunOptions
    steady: "Steady | None" = None
    read = ()

    def inputs(self) -> list[tuple[str, str]]:
        """The file of styles, as (role, name)."""
        return [("styles", self.styles.path)]

    @property
    def name(self) -> str:
        """The styles' names, for the name of a picture."""
        return "-".join(name for name, weight in self.weights.items() if weight)

    @property
    def settings(self) -> dict[str, Any]:
        """What a painting depends on, except the content and the inputs."""
        return {"styles": dict(self.weights), "strength": self.strength, "size": self.size}

    @property
    def facts(self) -> dict[str, Any]:
        """What the summary of a painting says of its style."""
        return {"styles": dict(self.weights)}

    def painting_size(self, height: int, width: int) -> tuple[int, int]:
        """The height and width of the painting of a content of `height` x `width` pixels."""
        from vggfeat.pictures import images

        return (height, width) if self.size is None else images.fit(height, width, self.size)

    def frame(self, content: "Tensor") -> "Generator[float, None, Tensor]":
        """Paint a frame of a clip, (1, 3, H, W): yield the share that is done, and return the painting."""
        yield 0.0
        return self._painted(content)

    def _painted(self, content: "Tensor") -> "Tensor":
        """The painting of a content, blended with those of the frames before."""
        from vggfeat.features.device import choose_device
        from vggfeat.pictures import images
        from vggfeat.transfer.styles.painting import paint

        device = choose_device(self.options.device)
        painted = paint(
            self.styles,
            self.weights,
            images.resize(content, *self.painting_size(*content.shape[2:])),
            strength=self.strength,
            memory_limit=self.options.memory_limit,
            device=device,
        )
        before = None if self.steady is None else self.steady.before(content)
        return painted if before is None else before.blended(painted.to(device)).cpu()

    def paint(self, content: str, output: str | Path | None, default: str = "", partial: Path | None = None) -> None:
        """Paint `content`."""
        from vggfeat.pictures import images
        from vggfeat.transfer.styles.record import record_text

        roles = [("content", content), *self.inputs()]
        painting = PaintingFiles(output, default, roles, self.options, partial=partial)
        began = time.monotonic()
        like = images.read_picture(content)
        check_output(painting, like, self.painting_size(*like.rgb.shape[2:]))
        painted = self._painted(images.flatten(like))
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
            click.echo(json.dumps({**facts, "seconds": seconds, **self.facts}))
        elif not self.options.quiet:
            click.echo(str(painting.output))


def paint_fast(
    mix: str,
    pictures: Sequence[str],
    output: str | None,
    *,
    strength: float,
    size: int | None,
    options: RunOptions,
    steadiness: Steadiness,
    fps: float | None,
    sequence: bool,
) -> None:
    """Paint a clip, or the pictures and the pictures in folders, in a mix of instant styles."""
    names = {parameter.name or "" for parameter in click.get_current_context().command.params}
    refuse_with("--fast", names - set(_ALLOWED))
    load_torch()
    from vggfeat.transfer.styles.mixes import load_mix

    styles, weights = load_mix(mix)
    styling = InstantStyling(styles, weights, strength, size, options)
    clip = clip_output(pictures, output, styling.name)
    contents, many = (pictures, False) if clip else expand(pictures, quiet=options.quiet)
    check_clip_options(clip=clip is not None, sequence=sequence, many=many)
    if clip:
        paint_clip(styling, contents[0], clip, steadiness, fps)
        return
    with exiting("interrupted: the picture is not painted"):
        if many:
            folder = target_folder(output, pictures)
            styling.steady = steadiness.begin(options.device) if sequence else None
            paint_all(styling, contents, folder, steady=styling.steady)
        else:
            styling.paint(contents[0], output, f"{Path(contents[0]).stem}-{styling.name}.png")
