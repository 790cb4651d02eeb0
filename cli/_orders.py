"""What a command was asked to paint, and painting it for many contents."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vggfeat.errors import VggfeatError
from vggfeat.transfer.recipe import Recipe

from ._files import check_spares
from ._painting import Job, paint
from ._progress import tell

if TYPE_CHECKING:
    from vggfeat.transfer.run import Stylization


@dataclass
class Order:
    """The styles, the recipe and the other arguments of `vggfeat.stylize`, for one content or for many."""

    styles: Sequence[str]
    recipe: Recipe
    options: Mapping[str, Any]
    quiet: bool = False
    as_json: bool = False
    _last: "Stylization | None" = field(default=None, repr=False)

    def job(self, content: str, target: Path) -> Job:
        """What paints `content` into `target`. What the last job found in the styles is used again."""
        from vggfeat import images
        from vggfeat.transfer.record import record
        from vggfeat.transfer.run import stylize

        images.check_writable(target)
        keep: str | None = self.options["keep"]
        roles: list[tuple[str, str]] = [
            ("content", content),
            *(("style", name) for name in self.styles),
            *(("mask", name) for name in self.options["masks"] if name),
            *([("keep", keep)] if keep else []),
            ("start", self.recipe.start),
            ("weights", self.recipe.weights),
        ]
        read = [(role, Path(name)) for role, name in roles if Path(name).is_file()]
        inputs = [path for _, path in read]
        check_spares(target, inputs)
        picture = images.read_picture(content)
        text = record(self.recipe, read).text()
        run = stylize(images.flatten(picture), self.styles, self.recipe, after=self._last, **self.options)
        self._last = run
        return Job(
            run=run,
            content=picture,
            target=target,
            inputs=inputs,
            text=text,
            recipe=self.recipe,
            quiet=self.quiet,
            as_json=self.as_json,
        )


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
        if not order.quiet:
            tell(f"{number}/{len(targets)} {name}{': painted before' if target.exists() else ''}")
        if not target.exists():
            try:
                paint(order.job(name, target))
            except VggfeatError as error:
                failed.append(name)
                tell(f"{name}: {error}")
                continue
        if sequence:
            order.recipe = replace(first, start=str(target))
    if sequence and not order.quiet:
        _tell_flicker([name for name in targets if name not in failed], targets)
    if failed:
        tell(f"{len(failed)} of {len(targets)} could not be painted: {', '.join(failed)}")
        raise click.exceptions.Exit(3)


def _tell_flicker(frames: Sequence[str], targets: Mapping[str, Path]) -> None:
    """How much frames change from one to the next: the contents, and what was painted."""
    from vggfeat import images

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
