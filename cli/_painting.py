"""Paint one picture as a command does: its options, the files it is made from, what is kept whatever ends it."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

import click

from ._files import check_spares, check_text_file, unused
from ._progress import keeping, report, tell, uninterrupted

if TYPE_CHECKING:
    from torch import Tensor

    from vggfeat.pictures.images import Picture
    from vggfeat.transfer.run import Progress, Run, Stylization

_Function = TypeVar("_Function", bound=Callable[..., None])

_FILE = click.Path(path_type=Path)
_OPTIONS = {
    "seconds": click.option("--seconds", type=float, help="Time for the optimisation, instead of steps."),
    "device": click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 or mps."),
    "precision": click.option(
        "--precision",
        type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
        default="auto",
        show_default=True,
        help="Of the network; auto takes bfloat16 where it is fast.",
    ),
    "memory_limit": click.option(
        "--memory",
        "memory_limit",
        metavar="4GB",
        help="What a step may take; above it, in blocks.  [default: 0.6 of what is free]",
    ),
    "checkpoint": click.option(
        "--checkpoint", type=_FILE, help="A file to resume from, written now and then, and at Ctrl-C."
    ),
    "checkpoint_every": click.option(
        "--checkpoint-every", type=click.FloatRange(0), default=60.0, show_default=True, help="In seconds."
    ),
    "resume": click.option(
        "--resume", type=click.Path(), help="Go on from a checkpoint of the same pictures, with its recipe."
    ),
    "save_every": click.option(
        "--save-every", type=click.IntRange(1), metavar="STEPS", help="Also save OUTPUT-0001.png and so on."
    ),
    "plot": click.option("--plot", type=_FILE, help="Draw the losses of the steps into a PNG."),
    "quiet": click.option("--quiet", is_flag=True, help="No progress."),
    "as_json": click.option("--json", "as_json", is_flag=True, help="Print a summary as JSON."),
}


@dataclass(frozen=True, kw_only=True)
class How:
    """What the options of `run_options` say; what a command has no option for is as here."""

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
    def taken(cls, options: dict[str, Any]) -> Self:
        """Take out of a command's options what is of the run."""
        return cls(**{field.name: options.pop(field.name) for field in fields(cls) if field.name in options})

    def hold(self) -> None:
        """Hold on to freed memory where no limit is given: steps are faster so, and take more of it."""
        from vggfeat.features import allocation

        if self.memory_limit is None:
            allocation.hold()

    def arguments(self) -> dict[str, Any]:
        """Those of every function that makes a run."""
        return {name: getattr(self, name) for name in ("seconds", "device", "precision", "memory_limit")}


def run_options(*names: str, without: Sequence[str] = ()) -> Callable[[_Function], _Function]:
    """The options of a run: all of them, or these, or all but those."""

    def add(command: _Function) -> _Function:
        for name in reversed([name for name in names or _OPTIONS if name not in without]):
            command = _OPTIONS[name](command)
        return command

    return add


class Job:
    """One picture to paint: the files that it is made from, and those that are written, which are checked.

    Args:
        output: the picture; None is `otherwise`, with a number where that exists.
        otherwise: a name for it.
        roles: what it is made from, by role; what is no file is left out.
        how: what the options say.
    """

    def __init__(self, output: str | Path | None, otherwise: str, roles: Sequence[tuple[str, str]], how: How) -> None:
        from vggfeat.pictures import images

        self.target = Path(output) if output is not None else unused(Path(otherwise))
        self.read = [(role, Path(name)) for role, name in roles if Path(name).is_file()]
        self.how = how
        images.check_writable(self.target)
        self.check(self.target)
        if how.checkpoint is not None:
            check_text_file(how.checkpoint)
        if how.plot is not None:
            images.check_writable(how.plot)
        for path in filter(None, (how.checkpoint, how.plot)):
            check_spares(path, [self.target])
            self.check(path)

    def check(self, path: Path) -> None:
        """Refuse to write over what the picture is made from."""
        check_spares(path, [name for _, name in self.read])


def paint(
    job: Job,
    run: "Run",
    *,
    text: Mapping[str, str],
    facts: Mapping[str, object],
    like: "Picture | None" = None,
) -> None:
    """Run to the end and write the picture; write what there is where the run is ended before.

    Args:
        job: where to.
        run: what paints.
        text: what the picture's metadata say.
        facts: what the summary says besides size, time and losses.
        like: a picture whose transparency, profile and depth the painted one gets.
    """
    job.how.hold()
    painter = _Painter(job, run, text, facts, like)
    with keeping(painter.keep):
        painter.run_through()
        with uninterrupted():
            painter.finish()


@dataclass
class _Painter:
    job: Job
    run: "Run"
    text: Mapping[str, str]
    facts: Mapping[str, object]
    like: "Picture | None"

    def __post_init__(self) -> None:
        self.latest: Progress | None = None
        self.losses: dict[int, dict[str, float]] = {}

    def run_through(self) -> None:
        how, target = self.job.how, self.job.target
        saved = time.monotonic()
        for progress in report(self.run, quiet=how.quiet):
            self.latest = progress
            if progress.note:
                tell(progress.note)
            if how.plot is not None:
                self.losses[progress.taken] = progress.losses
            if how.save_every and progress.taken % how.save_every == 0:
                self.write(target.with_stem(f"{target.stem}-{progress.taken:04}"), progress.image)
            if time.monotonic() - saved >= how.checkpoint_every:
                self.save()
                saved = time.monotonic()

    def keep(self) -> bool:
        if self.latest is None:
            return False
        self.write(self.job.target, self.latest.image)
        self.plot()
        self.save()
        height, width = self.latest.image.shape[2:]
        tell(f"interrupted: '{self.job.target}' holds the picture after {self.latest.seconds:.0f} s, {width}x{height}")
        if self.job.how.checkpoint is not None:
            tell(f"--resume '{self.job.how.checkpoint}' goes on from here")
        self.tell_result(self.latest, quiet=True)
        return True

    def finish(self) -> None:
        assert self.latest is not None  # noqa: S101 (every run has something to show)
        self.write(self.job.target, self.latest.image)
        self.plot()
        self.save()
        self.tell_result(self.latest, quiet=self.job.how.quiet)

    def save(self) -> None:
        if self.job.how.checkpoint is not None:
            cast("Stylization", self.run).save(self.job.how.checkpoint)  # dreams have no such option

    def write(self, path: Path, image: "Tensor") -> None:
        from vggfeat.pictures import images

        self.job.check(path)
        if self.like is None:
            images.write_picture(path, image, text=self.text)
            return
        alpha = None if self.like.alpha is None else images.resize(self.like.alpha, *image.shape[2:])
        images.write_picture(path, image, alpha=alpha, icc=self.like.icc, text=self.text, bits=self.like.bits)

    def plot(self) -> None:
        if self.job.how.plot is None or not self.losses:
            return
        from vggfeat.explore.plots import line_chart
        from vggfeat.pictures import images

        steps = list(self.losses.values())
        series = {name: [each[name] for each in steps] for name in steps[0]}
        chart = line_chart(
            series,
            title=str(self.job.target),
            x_label="step",
            y_label="loss",
            x=list(self.losses),
            log=any(value > 0 for value in steps[0].values()),  # a dream's are not
        )
        images.write_picture(self.job.how.plot, images.from_pil(chart).rgb)

    def tell_result(self, progress: "Progress", *, quiet: bool) -> None:
        if self.job.how.as_json:
            summary = {
                "output": str(self.job.target),
                "width": progress.image.shape[3],
                "height": progress.image.shape[2],
                "seconds": round(progress.seconds, 3),
                "losses": progress.losses,
                "blocks": [blocks and blocks._asdict() for blocks in self.run.blocks],
                **self.facts,
            }
            click.echo(json.dumps(summary, allow_nan=False))
        elif not quiet:
            click.echo(str(self.job.target))
