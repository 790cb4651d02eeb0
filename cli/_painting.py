"""Paint one picture as a command does: options of the run, checks of its files, and saving if it is interrupted."""

import json
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import click

from ._options import (
    Command,
    Decorator,
    device_option,
    megapixels_option,
    precision_option,
    quiet_option,
    summary_option,
)
from ._outputs import check_paths, check_text_file, chosen_output, save_picture
from ._progress import report, tell
from ._signals import load_torch, saving, uninterrupted

if TYPE_CHECKING:
    from torch import Tensor

    from vggfeat.pictures.images import Metadata, Picture
    from vggfeat.transfer.loop import Progress, Run
    from vggfeat.transfer.run import Stylization

_FILE = click.Path(path_type=Path)
_OPTIONS: dict[str, Decorator] = {
    "seconds": click.option("--seconds", type=float, help="Time limit of the optimisation, instead of steps."),
    "device": device_option,
    "precision": precision_option("auto"),
    "memory_limit": click.option(
        "--memory",
        "memory_limit",
        metavar="4GB",
        help="Memory limit of a step; larger pictures are computed in blocks.  [default: 60% of free memory]",
    ),
    "checkpoint": click.option(
        "--checkpoint", type=_FILE, help="File to resume from; written at intervals, at the end and at Ctrl-C."
    ),
    "checkpoint_every": click.option(
        "--checkpoint-every", type=click.FloatRange(0), default=60.0, help="Seconds between checkpoints."
    ),
    "resume": click.option(
        "--resume", type=click.Path(), help="Continue from a checkpoint of the same pictures, with its recipe."
    ),
    "save_every": click.option(
        "--save-every", type=click.IntRange(1), metavar="STEPS", help="Also save OUTPUT-0001.png and so on."
    ),
    "plot": click.option("--plot", type=_FILE, help="Save a chart of the losses."),
    "max_megapixels": megapixels_option,
    "quiet": quiet_option,
    "as_json": summary_option,
}


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The values of `run_options`; the defaults stand for options that a command does not have."""

    seconds: float | None = None
    device: str = "auto"
    precision: Any = "auto"
    memory_limit: str | None = None
    checkpoint: Path | None = None
    checkpoint_every: float = 60.0
    resume: str | None = None
    save_every: int | None = None
    plot: Path | None = None
    quiet: bool = False
    as_json: bool = False

    @classmethod
    def pop_from(cls, options: dict[str, Any]) -> Self:
        """Remove the run's options from those of a command."""
        return cls(**{field.name: options.pop(field.name) for field in fields(cls) if field.name in options})

    def keep_freed_memory(self) -> None:
        """Without a memory limit, let the allocator keep freed memory: steps become faster and use more."""
        load_torch()
        from vggfeat.features import allocation

        if self.memory_limit is None:
            allocation.hold()

    def arguments(self) -> dict[str, Any]:
        """The arguments that `stylize`, `texture`, `invert`, `dream` and `visualize` have in common."""
        return {name: getattr(self, name) for name in ("seconds", "device", "precision", "memory_limit")}


def run_options(*names: str, without: Sequence[str] = ()) -> Decorator:
    """Add the options of a run in `names`, or by default all except those in `without`."""

    def add(command: Command) -> Command:
        for name in reversed([name for name in names or _OPTIONS if name not in without]):
            command = _OPTIONS[name](command)
        return command

    return add


class PaintingFiles:
    """The files of one painted picture, checked before the run begins.

    Args:
        output: the path of the picture; None stands for `default`, numbered if that exists.
        default: the path to use if `output` is None.
        roles: (role, name) of each input, to record in the picture's metadata. Names that are not files are left out.
        options: the options of the run.
        read: other files that must not be overwritten.
        partial: where to save an interrupted picture; None stands for `output`.
    """

    def __init__(
        self,
        output: str | Path | None,
        default: str,
        roles: Iterable[tuple[str, str]],
        options: RunOptions,
        *,
        read: Iterable[Path] = (),
        partial: Path | None = None,
    ) -> None:
        load_torch()
        from vggfeat.pictures import images

        self.output = chosen_output(None if output is None else str(output), default)
        self.partial = partial or self.output
        self.inputs = [(role, Path(name)) for role, name in roles if Path(name).is_file()]
        self.options = options
        self._protected = [*(path for _, path in self.inputs), *read]
        if options.resume is not None and options.checkpoint != Path(options.resume):
            self._protected.append(Path(options.resume))
        images.check_writable(self.output)
        if options.checkpoint is not None:
            check_text_file(options.checkpoint)
        if options.plot is not None:
            images.check_writable(options.plot)
        others = [("--plot", options.plot), ("--checkpoint", options.checkpoint)]
        self._others = [(role, path) for role, path in others if path is not None]
        check_paths([("the output", self.output), *self._others, *self._numbered()], self._protected)

    def _numbered(self) -> list[tuple[str, Path]]:
        """Inputs and other outputs that --save-every would overwrite."""
        if not self.options.save_every:
            return []
        pattern = re.compile(rf"{re.escape(self.output.stem)}-\d{{4,}}{re.escape(self.output.suffix)}")
        names = {path.name for path in (*self._protected, *(path for _, path in self._others))}
        return [("--save-every", self.output.with_name(name)) for name in names if pattern.fullmatch(name)]

    def intermediate(self, step: int) -> Path:
        """Where --save-every saves the picture after a step."""
        path = self.output.with_stem(f"{self.output.stem}-{step:04}")
        check_paths([*self._others, ("--save-every", path)], self._protected)
        return path


def check_output(painting: PaintingFiles, like: "Picture", size: tuple[int, int]) -> None:
    """Refuse an output that cannot hold a picture of (height, width) `size`. Tell what it leaves out of `like`."""
    from vggfeat.pictures import images

    images.check_writable(painting.output, size=size, bits=like.bits, icc=like.icc)
    if not painting.options.quiet:
        for line in images.left_out(painting.output, bits=like.bits, alpha=like.alpha is not None):
            tell(line)


def paint(
    painting: PaintingFiles,
    run: "Run",
    *,
    text: Mapping[str, str],
    facts: Callable[[], Mapping[str, object]],
    like: "Picture | None" = None,
) -> None:
    """Run to the end and write the picture. If the run is interrupted or fails, save what there is.

    Args:
        painting: the files.
        run: the run to iterate over.
        text: the picture's metadata.
        facts: returns what the JSON summary contains besides size, time and losses; called at the end.
        like: the first input as a picture, whose transparency, colour profile, bit depth and metadata the painted one
            gets.
    """
    load_torch()
    from vggfeat.pictures import images

    size = run.stages[-1].height, run.stages[-1].width * len(run.image)
    if like is None:
        images.check_writable(painting.output, size=size)
    else:
        check_output(painting, like, size)
    painting.options.keep_freed_memory()
    metadata = images.read_metadata(painting.inputs[0][1]) if like is not None and painting.inputs else None
    writer = _Writer(painting, run, text, facts, like, metadata)
    with saving(writer.save_interrupted):
        writer.run_to_end()
    with uninterrupted():
        writer.save_finished()


def _side_by_side(images: "Tensor") -> "Tensor":
    """(N, C, H, W) as one picture, (1, C, H, N * W)."""
    return images.permute(1, 2, 0, 3).flatten(2)[None]


@dataclass
class _Writer:
    """Iterates over a run and writes its picture, checkpoints and chart."""

    painting: PaintingFiles
    run: "Run"
    text: Mapping[str, str]
    facts: Callable[[], Mapping[str, object]]
    like: "Picture | None"
    metadata: "Metadata | None"
    latest: "Progress | None" = None
    terms: dict[int, Mapping[str, "Tensor"]] = field(default_factory=dict[int, Mapping[str, "Tensor"]])

    def run_to_end(self) -> None:
        options = self.painting.options
        saved = time.monotonic()
        for found in report(self.run, quiet=options.quiet):
            self.latest = progress = replace(found, image=_side_by_side(found.image))
            if progress.note:
                tell(progress.note)
            if options.plot is not None:
                self.terms[progress.taken] = progress.terms  # read at the end, so that no step waits for a GPU
            if options.save_every and progress.taken % options.save_every == 0:
                self._write(self.painting.intermediate(progress.taken), progress.image)
            if time.monotonic() - saved >= options.checkpoint_every:
                self._save_checkpoint()
                saved = time.monotonic()

    def save_interrupted(self) -> bool:
        if self.latest is None:
            return False
        path, options = self.painting.partial, self.painting.options
        self._save_all(path, self.latest)
        height, width = self.latest.image.shape[2:]
        tell(f"interrupted: '{path}' holds the picture after {self.latest.seconds:.0f} s, {width}x{height}")
        if options.checkpoint is not None:
            tell(f"--resume '{options.checkpoint}' continues from here")
        self._print_summary(path, self.latest, quiet=True)
        return True

    def save_finished(self) -> None:
        assert self.latest is not None  # noqa: S101 (every run has a step)
        self._save_all(self.painting.output, self.latest)
        self._print_summary(self.painting.output, self.latest, quiet=self.painting.options.quiet)

    def _save_all(self, path: Path, progress: "Progress") -> None:
        try:
            self._write(path, progress.image)
        finally:  # whatever happens to the picture, the run can be continued
            self._save_checkpoint()
        if self.painting.options.plot is not None and self.terms:
            self._plot(self.painting.options.plot)

    def _save_checkpoint(self) -> None:
        if self.painting.options.checkpoint is not None:
            cast("Stylization", self.run).save(self.painting.options.checkpoint)  # dreams lack the option

    def _write(self, path: Path, image: "Tensor") -> None:
        from vggfeat.pictures import images

        if self.like is None:
            save_picture(path, image, text=self.text)
            return
        alpha = None if self.like.alpha is None else images.resize(self.like.alpha, *image.shape[2:])
        save_picture(
            path,
            image,
            alpha=alpha,
            icc=self.like.icc,
            text=self.text,
            bits=self.like.bits,
            metadata=self.metadata,
        )

    def _plot(self, path: Path) -> None:
        from vggfeat.explore.plots import line_chart
        from vggfeat.pictures import images
        from vggfeat.transfer.loop import as_numbers

        steps = [as_numbers(terms) for terms in self.terms.values()]
        series = {name: [each[name] for each in steps] for name in steps[0]}
        chart = line_chart(
            series,
            title=str(self.painting.output),
            x_label="step",
            y_label="loss",
            x=list(self.terms),
            log=any(value > 0 for value in steps[0].values()),  # a dream's losses are negative
        )
        images.write_picture(path, images.from_pil(chart).rgb)

    def _print_summary(self, path: Path, progress: "Progress", *, quiet: bool) -> None:
        if self.painting.options.as_json:
            summary = {
                "output": str(path),
                "width": progress.image.shape[3],
                "height": progress.image.shape[2],
                "seconds": round(progress.seconds, 3),
                "losses": progress.losses,
                "blocks": [blocks and blocks._asdict() for blocks in self.run.blocks],
                **self.facts(),
            }
            click.echo(json.dumps(summary, allow_nan=False))
        elif not quiet:
            click.echo(str(path))
