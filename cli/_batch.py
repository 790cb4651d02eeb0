"""Paint one content or many with the same options."""

import os
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import click

from vggfeat import files
from vggfeat.errors import VggfeatError
from vggfeat.transfer.recipe import Recipe

from ._options import SOME_FAILED
from ._outputs import check_paths
from ._painting import PaintingFiles, RunOptions, paint
from ._progress import tell
from ._recipes import recipe_files
from ._signals import load_torch

if TYPE_CHECKING:
    from torch import Tensor

    from vggfeat.transfer.run import Stylization
    from vggfeat.transfer.steady import Steady


# Names of skipped files that are told.
_MOST_NAMED = 5


class Painter(Protocol):
    """Paints contents one after the other with the same options."""

    options: RunOptions

    @property
    def read(self) -> Sequence[Path]:
        """Files that must not be overwritten, besides the inputs."""
        ...

    def inputs(self) -> list[tuple[str, str]]:
        """Every input except the content, as (role, name)."""
        ...

    def paint(self, content: str, output: str | Path | None, default: str = "", partial: Path | None = None) -> None:
        """Paint `content`."""
        ...


@dataclass
class Styling:
    """The arguments of `vggfeat.stylize` except the content.

    Args:
        read: other files that must not be overwritten.
        steady: what remembers the frames before, if the contents are frames.
    """

    styles: Sequence[str]
    recipe: Recipe
    weights: Sequence[float] | None
    masks: Sequence[str | None]
    style_masks: Sequence[str | None]
    keep: str | None
    compiled: bool
    options: RunOptions
    read: Sequence[Path] = ()
    steady: "Steady | None" = None
    _last: "Stylization | None" = field(default=None, repr=False)

    def inputs(self) -> list[tuple[str, str]]:
        """Every input except the content, as (role, name)."""
        return [
            *(("style", name) for name in self.styles),
            *(("mask", name) for name in self.masks if name),
            *(("style mask", name) for name in self.style_masks if name),
            *([("keep", self.keep)] if self.keep else []),
            *recipe_files(self.recipe),
        ]

    @property
    def settings(self) -> dict[str, Any]:
        """What a painting depends on, except the content and the inputs."""
        regions = [[mask is not None for mask in masks] for masks in (self.masks, self.style_masks)]
        return {"recipe": self.recipe.as_dict(), "weights": self.weights, "masks": regions}

    @property
    def facts(self) -> dict[str, Any]:
        """What the summary of a clip says of its style."""
        return {"recipe": self.recipe.as_dict()}

    def painting_size(self, height: int, width: int) -> tuple[int, int]:
        """The height and width of the painting of a content of `height` x `width` pixels."""
        from vggfeat.pictures import images

        return images.fit(height, width, self.recipe.size, enlarge=self.recipe.enlarge)

    def frame(self, content: "Tensor") -> "Generator[float, None, Tensor]":
        """Paint a frame of a clip, (1, 3, H, W): yield the share that is done, and return the painting."""
        run = self.begin(content)
        for progress in run:
            yield progress.done
        return run.image

    def begin(self, content: "Tensor") -> "Stylization":
        """Begin to paint `content`. Style targets of the previous run are reused."""
        from vggfeat.transfer.run import stylize
        from vggfeat.transfer.steady import later

        before = None if self.steady is None else self.steady.before(content)
        recipe = self.recipe if before is None else later(self.recipe, *content.shape[2:])
        self._last = stylize(
            content,
            self.styles,
            recipe,
            weights=self.weights,
            masks=self.masks,
            style_masks=self.style_masks,
            keep=self.keep,
            before=before,
            resume=self.options.resume,
            after=self._last,
            compiled=self.compiled,
            **self.options.arguments(),
        )
        return self._last

    def paint(self, content: str, output: str | Path | None, default: str = "", partial: Path | None = None) -> None:
        """Paint the picture `content` and write it."""
        from vggfeat.pictures import images
        from vggfeat.transfer.record import record

        roles = [("content", content), *self.inputs()]
        painting = PaintingFiles(output, default, roles, self.options, read=self.read, partial=partial)
        picture = images.read_picture(content)
        run = self.begin(images.flatten(picture))
        text = record(self.recipe, painting.inputs).text()
        paint(painting, run, text=text, facts=lambda: {"recipe": self.recipe.as_dict()}, like=picture)


@dataclass
class Dreaming:
    """The arguments of `vggfeat.dream` except the picture."""

    arguments: Mapping[str, Any]
    options: RunOptions
    read = ()

    def inputs(self) -> list[tuple[str, str]]:
        """Every input except the picture, as (role, name)."""
        return [(role, str(self.arguments[role])) for role in ("weights", "guide") if self.arguments.get(role)]

    def paint(self, content: str, output: str | Path | None, default: str = "", partial: Path | None = None) -> None:
        """Dream of `content`."""
        from vggfeat.pictures import images
        from vggfeat.transfer.dreams import dream
        from vggfeat.transfer.record import dream_text

        roles = [("content", content), *self.inputs()]
        painting = PaintingFiles(output, default, roles, self.options, partial=partial)
        picture = images.read_picture(content)
        run = dream(images.flatten(picture), **self.arguments, **self.options.arguments())
        paint(painting, run, text=dream_text(content, self.arguments), facts=lambda: self.arguments, like=picture)


def expand(contents: Sequence[str], *, quiet: bool = False) -> tuple[list[str], bool]:
    """The contents, with folders replaced by their pictures in natural order; and whether there may be several.

    Unless `quiet`, it tells which files of a folder are skipped.
    """
    found: list[str] = []
    for name in contents:
        if not Path(name).is_dir():
            found.append(name)
            continue
        inside = list(map(str, files.pictures_in(Path(name))))
        others = (path for path in Path(name).iterdir() if path.is_file() and not files.is_picture(path))
        skipped = sorted((path.name for path in others), key=files.natural_order)
        if skipped and inside and not quiet:
            more = f" and {len(skipped) - _MOST_NAMED} more" if len(skipped) > _MOST_NAMED else ""
            tell(f"skipped in '{name}', as hidden or not a picture: {', '.join(skipped[:_MOST_NAMED])}{more}")
        if not inside:
            raise click.UsageError(f"there is no picture in '{name}'")
        found += inside
    return found, len(contents) > 1 or found != list(contents)


def target_folder(output: str | None, contents: Sequence[str]) -> Path:
    """The folder that several contents are painted into. Refuses a file, and the folder of the contents."""
    if output is None:
        raise click.UsageError("several contents need -o DIR, the folder that they are painted into")
    folder = Path(output)
    named = output.endswith(("/", os.sep)) or folder.is_dir()
    if folder.is_file() or (folder.suffix.lower() in files.picture_endings() and not named):
        raise click.UsageError(f"several contents are painted into a folder, not into a file such as '{output}'")
    if any(Path(name).is_dir() and folder.resolve() == Path(name).resolve() for name in contents):
        raise click.UsageError(f"'{output}' is the folder of the contents: paint them into another one")
    return folder


def paint_all(styling: Painter, contents: Sequence[str], folder: Path, *, steady: "Steady | None" = None) -> None:
    """Paint every content into `folder`, except those already there. Exit with 3 if some could not be painted.

    With `steady`, which must be that of `styling`, the contents are the frames of a clip, and each is kept close to the
    frame before. A picture whose run is interrupted is saved as `NAME.partial.png`: the next run paints it again.
    """
    load_torch()
    from vggfeat.pictures import images

    targets = {name: folder / f"{Path(name).stem}.png" for name in contents}
    paths = list(targets.values())
    _check_targets(styling, targets)
    folder.mkdir(parents=True, exist_ok=True)
    failed: list[str] = []
    quiet = styling.options.quiet
    for number, (name, target) in enumerate(targets.items(), 1):
        if not quiet:
            tell(f"{number}/{len(targets)} {name}{': already painted' if target.exists() else ''}")
        known = target.exists()
        if not known:
            partial = _partial(target)
            try:
                styling.paint(name, target, partial=partial)
            except VggfeatError as error:
                failed.append(name)
                tell(f"{name}: {error}")
                if steady is not None:
                    steady.skip()
                continue
            partial.unlink(missing_ok=True)
        if steady is not None:
            content, painted = (images.flatten(images.read_picture(path)) for path in (name, target))
            if known and not all(other.exists() for other in paths[number : number + steady.reach]):
                steady.before(content)  # finds out whether it begins a scene, so that a resumed run paints the same
            steady.add(content, painted)
    if failed:
        tell(f"{len(failed)} of {len(targets)} could not be painted: {', '.join(failed)}")
        raise click.exceptions.Exit(SOME_FAILED)


def _check_targets(styling: Painter, targets: Mapping[str, Path]) -> None:
    """Refuse two contents with the same output file, and an output that is also an input."""
    counts = Counter(targets.values())
    twins = [name for name, target in targets.items() if counts[target] > 1]
    if twins:
        raise click.UsageError(f"{', '.join(twins)} would be painted into one file, '{targets[twins[0]]}'")
    read = [*targets, *(name for _, name in styling.inputs() if Path(name).is_file()), *styling.read]
    outputs = [("the output", target) for target in targets.values()]
    check_paths([*outputs, *(("an interrupted picture", _partial(target)) for target in targets.values())], read)


def _partial(target: Path) -> Path:
    """Where the picture of an interrupted run is saved."""
    return target.with_suffix(".partial.png")
