"""What a command was asked to paint, and painting it for many contents."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vggfeat.errors import VggfeatError
from vggfeat.transfer.recipe import Recipe

from ._painting import How, Job, paint
from ._progress import tell
from ._recipes import recipe_files

if TYPE_CHECKING:
    from vggfeat.transfer.run import Stylization


@dataclass
class Order:
    """The styles, the recipe and the other arguments of `vggfeat.stylize`, for one content or for many."""

    styles: Sequence[str]
    recipe: Recipe
    weights: Sequence[float] | None
    masks: Sequence[str | None]
    keep: str | None
    compiled: bool
    how: How
    _last: "Stylization | None" = field(default=None, repr=False)

    def paint(self, content: str, output: str | Path | None, otherwise: str = "") -> None:
        """Paint `content`. What the last run found in the styles is used again."""
        from vggfeat.pictures import images
        from vggfeat.transfer.record import record
        from vggfeat.transfer.run import stylize

        roles = [
            ("content", content),
            *(("style", name) for name in self.styles),
            *(("mask", name) for name in self.masks if name),
            *([("keep", self.keep)] if self.keep else []),
            *recipe_files(self.recipe),
        ]
        job = Job(output, otherwise, roles, self.how)
        picture = images.read_picture(content)
        self._last = stylize(
            images.flatten(picture),
            self.styles,
            self.recipe,
            weights=self.weights,
            masks=self.masks,
            keep=self.keep,
            resume=self.how.resume,
            after=self._last,
            compiled=self.compiled,
            **self.how.arguments(),
        )
        text, facts = record(self.recipe, job.read).text(), {"recipe": self.recipe.as_dict()}
        paint(job, self._last, text=text, facts=facts, like=picture)


def paint_all(order: Order, contents: Sequence[str], folder: Path, *, sequence: bool) -> None:
    """Paint every content into `folder`, but for those that are there; exit with 3 where some could not be painted.

    In a `sequence` each starts from the one painted before.
    """
    targets = {name: folder / f"{Path(name).stem}.png" for name in contents}
    twins = [name for name in contents if list(targets.values()).count(targets[name]) > 1]
    if twins:
        raise click.UsageError(f"{', '.join(twins)} would be painted into one file, '{targets[twins[0]]}'")
    folder.mkdir(parents=True, exist_ok=True)
    failed: list[str] = []
    first = order.recipe
    for number, (name, target) in enumerate(targets.items(), 1):
        if not order.how.quiet:
            tell(f"{number}/{len(targets)} {name}{': painted before' if target.exists() else ''}")
        if not target.exists():
            try:
                order.paint(name, target)
            except VggfeatError as error:
                failed.append(name)
                tell(f"{name}: {error}")
                continue
        if sequence:
            order.recipe = replace(first, start=str(target))
    if sequence and not order.how.quiet:
        _tell_flicker([name for name in targets if name not in failed], targets)
    if failed:
        tell(f"{len(failed)} of {len(targets)} could not be painted: {', '.join(failed)}")
        raise click.exceptions.Exit(3)


def _tell_flicker(frames: Sequence[str], targets: Mapping[str, Path]) -> None:
    """How much frames change from one to the next: the contents, and what was painted."""
    from vggfeat.pictures import images

    def change(names: Sequence[str | Path]) -> float:
        pictures = (images.flatten(images.read_picture(name)) for name in names)
        moved: list[float] = []
        last = next(pictures)
        for picture in pictures:
            moved.append(float((picture - images.resize(last, *picture.shape[2:])).abs().mean()))
            last = picture
        return sum(moved) / len(moved)

    if len(frames) > 1:
        contents, painted = change(frames), change([targets[name] for name in frames])
        tell(
            f"from frame to frame a value changes by {contents:.4f} in the contents and {painted:.4f} in the paintings"
        )
