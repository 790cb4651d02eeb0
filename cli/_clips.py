"""Stylize a clip frame by frame, without flicker. An interrupted run resumes at the next frame."""

import hashlib
import json
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import click

from vggfeat import files
from vggfeat.errors import InputError
from vggfeat.pictures.video.names import CLIP_ENDINGS, VIDEO_ENDINGS, is_animated, is_video

from ._batch import Painter
from ._options import refuse_unless
from ._outputs import check_paths, chosen_output
from ._progress import bar, on_terminal, tell
from ._signals import exiting, load_torch, uninterrupted

if TYPE_CHECKING:
    from torch import Tensor

    from vggfeat.pictures.video.clips import Clip, ClipFrame
    from vggfeat.transfer.steady import Steady

_SETTINGS = f"{files.PREFIX}clip.json"
"""Records the inputs and settings of the run that owns a folder of frames."""

_SCENE = "vggfeat-scene"
"""The text in the first frame of a scene."""


class FramePainter(Painter, Protocol):
    """Paints the frames of a clip one after the other; `steady` remembers those before."""

    steady: "Steady | None"

    @property
    def settings(self) -> dict[str, Any]:
        """What a painting depends on, except the content and the inputs."""
        ...

    @property
    def facts(self) -> dict[str, Any]:
        """What the summary of a clip says of its style."""
        ...

    def painting_size(self, height: int, width: int) -> tuple[int, int]:
        """The height and width of the painting of a content of `height` x `width` pixels."""
        ...

    def frame(self, content: "Tensor") -> "Generator[float, None, Tensor]":
        """Paint a frame, (1, 3, H, W): yield the share that is done, and return the painting."""
        ...


@dataclass(frozen=True)
class Steadiness:
    """The options that keep the frames of a clip steady."""

    flow: str
    weight: float
    back: Sequence[int]

    def begin(self, device: str) -> "Steady":
        """Start a run: the object that remembers its last frames."""
        load_torch()
        from vggfeat.features.device import choose_device
        from vggfeat.transfer.steady import Steady

        return Steady(self.flow, weight=self.weight, back=self.back, device=choose_device(device))


def clip_output(contents: Sequence[str], output: str | None, style: str) -> Path | None:
    """Where a clip is painted to: a clip, or a folder for its frames; None if the contents are pictures.

    The content is a clip if it is a video file or an animated picture, or a folder of frames that -o makes a clip.
    `style` is a name for the default output.
    """
    into_clip = output is not None and Path(output).suffix.lower() in CLIP_ENDINGS and not Path(output).is_dir()
    if len(contents) == 1 and Path(contents[0]).is_dir():
        return Path(str(output)) if into_clip else None
    clips = [name for name in contents if is_animated(name)]
    if not clips:
        return None
    if len(contents) > 1:
        raise click.UsageError(f"'{clips[0]}' is a clip: paint one clip at a time")
    suffix = Path(clips[0]).suffix.lower()
    if output is None:
        kind = suffix if suffix in CLIP_ENDINGS else ".mp4" if suffix in VIDEO_ENDINGS else ".webp"
        return chosen_output(None, f"{Path(clips[0]).stem}-{style}{kind}")
    if into_clip or not Path(output).suffix or Path(output).is_dir():
        return Path(output)
    if suffix in VIDEO_ENDINGS:
        raise click.UsageError(f"'{output}' is no clip: choose {', '.join(CLIP_ENDINGS)}, or a folder for the frames")
    tell(f"'{clips[0]}' is animated, and its first frame is painted: -o {Path(output).stem}{suffix} paints all")
    return None


def check_clip_options(*, clip: bool, sequence: bool, many: bool) -> None:
    """Refuse options of clips if there is none. `sequence`: the contents, of which there are `many`, are frames."""
    if not (clip or sequence):
        refuse_unless("a clip or --sequence", ("flow", "steadiness", "back"))
    if not clip:
        refuse_unless("a clip", ("fps",))
    if sequence and not (many or clip):
        raise click.UsageError("--sequence is for several contents, or a folder of frames")


def paint_clip(styling: FramePainter, content: str, output: Path, steadiness: Steadiness, fps: float | None) -> None:
    """Paint the frames of `content`, and write the clip `output`, or its frames into the folder `output`."""
    styling.steady = steadiness.begin(styling.options.device)
    from vggfeat.pictures.video.clips import open_clip
    from vggfeat.pictures.video.writing import check_clip_writable, clip_left_out, write_clip

    clip = open_clip(content)
    whole = output.suffix.lower() in CLIP_ENDINGS and not output.is_dir()
    folder = output.with_name(f"{output.name}.frames") if whole else output
    first = next(iter(clip), None)
    if first is None:
        raise InputError(f"'{content}' holds no frame")
    if whole:
        size = styling.painting_size(*first.picture.rgb.shape[2:])
        check_clip_writable(output, size=size)
        if not styling.options.quiet:
            for line in clip_left_out(output, size=size, alpha=first.picture.alpha is not None):
                tell(line)
    read = [clip.path, *(Path(name) for _, name in styling.inputs() if Path(name).is_file()), *styling.read]
    check_paths([("the output", output), *([("the folder of its frames", folder)] if whole else [])], read)
    painting = _Painting(styling, styling.steady, clip, folder, same_size=whole)
    if whole and fps is not None and is_video(clip.path) and not styling.options.quiet:
        tell("--fps changes how long the clip takes: its sound is left out")
    painting.prepare({"flow": steadiness.flow, "steadiness": steadiness.weight, "back": list(steadiness.back)})
    began = time.monotonic()
    with exiting(f"interrupted: the frames so far are in '{folder}', and the same command continues with the next one"):
        painting.run()
        if whole:
            sound = clip.path if is_video(clip.path) and fps is None else None
            write_clip(output, painting.painted(), fps=fps, sound=sound)
            with uninterrupted():
                painting.clean()
    if styling.options.as_json:
        facts = {"output": str(output), "frames": len(painting.paths), "scenes": painting.scenes}
        seconds = round(time.monotonic() - began, 3)
        click.echo(json.dumps({**facts, "seconds": seconds, **styling.facts}, allow_nan=False))
    elif not styling.options.quiet:
        click.echo(str(output))


@dataclass
class _Painting:
    """Paints the frames of a clip into a folder, except those already there."""

    styling: FramePainter
    steady: "Steady"
    clip: "Clip"
    folder: Path
    same_size: bool
    paths: list[Path] = field(default_factory=list[Path])
    scenes: int = 0
    _size: tuple[int, int] | None = None

    def prepare(self, settings: dict[str, Any]) -> None:
        """Make the folder. Refuse one whose frames belong to a run with other pictures or settings."""
        now = {**settings, **self.styling.settings}
        for number, (role, name) in enumerate([("content", str(self.clip.path)), *self.styling.inputs()]):
            now[f"{role} {number}" if number else role] = [Path(name).name, _digest(Path(name))]
        path = self.folder / _SETTINGS
        if path.exists():
            found: dict[str, Any] = json.loads(files.read_text(path))
            differing = [name for name in {**found, **now} if found.get(name) != now.get(name)]
            if differing:
                raise InputError(f"'{self.folder}' holds frames of a run that differs in {', '.join(differing)}: "
                                 "remove it, or choose another output")  # fmt: skip
        elif present := sorted(self.folder.glob("[0-9]" * 6 + ".png")):
            raise InputError(f"'{present[0]}' is not of a clip that vggfeat painted: choose another output")
        self.folder.mkdir(parents=True, exist_ok=True)
        files.write(path, json.dumps(now))

    def run(self) -> None:
        """Paint every frame that is not there."""
        options = self.styling.options
        options.keep_freed_memory()
        lines = not (options.quiet or on_terminal())
        began, painted = time.monotonic(), 0
        with bar("painting", quiet=options.quiet or lines, total=self.clip.count) as update:
            for number, frame in enumerate(self.clip, 1):
                path = self.folder / f"{number:06}.png"
                known = path.exists()
                for share in self._frame(frame, path):
                    update(completed=number - 1 + share, total=max(number, self.clip.count))
                self.paths.append(path)
                painted += not known
                if lines:
                    rest = (self.clip.count - number) * (time.monotonic() - began) / max(painted, 1)
                    state = "already painted" if known else f"about {_duration(rest)} left" if rest > 0 else "painted"
                    tell(f"{number}/{self.clip.count} {frame.name}: {state}")

    def _frame(self, frame: "ClipFrame", path: Path) -> Iterator[float]:
        """Paint a frame, and yield the share of it that is done."""
        from vggfeat.pictures import images

        content = images.flatten(frame.picture)
        height, width = content.shape[2:]
        if self.same_size and self._size not in {None, (height, width)}:
            raise InputError(f"{frame.name} has another size, {width}x{height}, than the frame before: "
                             "a clip has frames of one size")  # fmt: skip
        self._size = height, width
        if not path.exists():
            painted = yield from self.styling.frame(content)
            alpha = frame.picture.alpha
            alpha = None if alpha is None else images.resize(alpha, *painted.shape[2:])
            text = {_SCENE: "begins"} if self.steady.begins else None
            images.write_picture(path, painted, alpha=alpha, text=text)
        # Read back from the file, as a resumed run does, so that both see the same pixels.
        self.steady.add(content, images.read_picture(path).rgb, begins=_SCENE in images.read_text(path))
        self.scenes = self.steady.scenes

    def painted(self) -> Iterator["ClipFrame"]:
        """The painted frames, with the times of the original ones."""
        from vggfeat.pictures import images

        for frame, path in zip(self.clip, self.paths, strict=True):
            yield frame._replace(picture=images.read_picture(path))

    def clean(self) -> None:
        """Remove the frames, and their folder unless something else is in it."""
        for path in (*self.paths, self.folder / _SETTINGS):
            path.unlink(missing_ok=True)
        with suppress(OSError):
            self.folder.rmdir()


def _digest(path: Path) -> str | None:
    """Hash of the content of a file, or of the names, sizes and times of the files in a folder."""
    if path.is_dir():
        facts = [(each.name, each.stat().st_size, each.stat().st_mtime_ns) for each in sorted(path.iterdir())]
        return hashlib.sha256(repr(facts).encode()).hexdigest()
    if not path.is_file():
        return None
    return files.sha256(path)


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if seconds < 100 else f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"
