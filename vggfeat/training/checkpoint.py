"""The folder of a run and its checkpoint."""

from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import torch

from vggfeat import files
from vggfeat.errors import InputError, RecipeError
from vggfeat.training.dataset import Data
from vggfeat.training.recipe import TrainingRecipe

CHECKPOINT = "checkpoint.pt"

# The fields that a resumed run may change: how long it continues.
_MAY_CHANGE = ("epochs", "patience")


@contextmanager
def run_folder(folder: Path) -> Generator[None]:
    """Make the folder of a run. If the block fails, remove the folder again unless something is in it.

    Raises `InputError` if it cannot be made.
    """
    made = not folder.exists()
    with files.os_errors_as(InputError, f"cannot write into '{folder}'"):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        if made:
            with suppress(OSError):
                folder.rmdir()
        raise


def read_checkpoint(folder: Path, *, resume: bool) -> Mapping[str, Any] | None:
    """Read the checkpoint of a folder, if there is one, and remove the unfinished files of a killed run.

    Raises `InputError` if there is one that cannot be read, or if it exists and `resume` is false.
    """
    path = folder / CHECKPOINT
    if path.exists() and not resume:
        raise InputError(f"'{folder}' holds a run: resume it, or name another folder")
    for unfinished in filter(Path.is_file, folder.glob(f"{files.PREFIX}*")):
        unfinished.unlink(missing_ok=True)
    return read(path) if path.exists() else None


def write_checkpoint(folder: Path, content: Mapping[str, Any]) -> None:
    """Replace the checkpoint of a folder atomically."""
    write(folder / CHECKPOINT, content)


def read(path: Path) -> Mapping[str, Any]:
    """Read a checkpoint file. Raises `InputError` if it cannot be read."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load lets errors of pickle and zipfile through
        raise InputError(f"the checkpoint '{path}' cannot be read ({type(error).__name__}): delete it") from error
    return cast("Mapping[str, Any]", content)


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Replace a checkpoint file atomically."""
    # Through a stream: given a path, torch stores the name of the file, and equal runs would differ.
    with files.replacing(path) as unfinished, unfinished.open("wb") as file:
        torch.save(content, file)


def check_unchanged(
    before: Mapping[str, Any], now: Mapping[str, Any], may_change: Collection[str], run: str, otherwise: str
) -> None:
    """Raise `RecipeError` if a field of a recipe, outside `may_change`, differs from the one that `run` began with.

    >>> check_unchanged({"seed": 1}, {"seed": 2}, (), "the run in 'out'", "rename it")
    Traceback (most recent call last):
    ...
    vggfeat.errors.RecipeError: the run in 'out' began with seed 1, not 2: resume it with its own options, or rename it
    """
    for key, value in now.items():
        if key not in may_change and before.get(key) != value:
            raise RecipeError(
                f"{run} began with {key.replace('_', ' ')} {before.get(key)!r}, not {value!r}: "
                f"resume it with its own options, or {otherwise}"
            )


def check_resumable(checkpoint: Mapping[str, Any], recipe: TrainingRecipe, data: Data, folder: Path) -> None:
    """Raise `RecipeError` or `InputError` if the checkpoint belongs to another recipe or to other data."""
    # A checkpoint of an earlier version lacks the fields that are newer.
    before = {**TrainingRecipe().as_dict(), **checkpoint["recipe"]}
    check_unchanged(before, recipe.as_dict(), _MAY_CHANGE, f"the run in '{folder}'", "begin in another folder")
    if checkpoint["data"] != data.fingerprint:
        raise InputError(f"the pictures of '{data.name}' are not those that the run in '{folder}' began with")
