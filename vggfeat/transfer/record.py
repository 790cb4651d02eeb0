"""The record that a painted picture carries: its recipe, the versions of the programs, and its inputs.

The record is JSON in the text field `vggfeat` of the picture's metadata.
"""

import json
import os
import platform
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch

from vggfeat import files
from vggfeat.errors import RecipeError
from vggfeat.pictures import images
from vggfeat.transfer.recipe import Recipe, from_values

KEY = "vggfeat"
"""The name of the text field."""

INSTANT = "vggfeat-fast"
"""The name of the text field of a picture in an instant style, which has no recipe."""

_DREAM = "vggfeat-dream"


@dataclass(frozen=True, slots=True)
class Input:
    """A file that was read: its role (`content`, `style`, ...), its name without folders, its SHA-256."""

    role: str
    file: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Record:
    """The recipe of a picture, the versions of the programs that painted it, and the files it was painted from."""

    recipe: Recipe
    versions: Mapping[str, str]
    inputs: tuple[Input, ...]

    def text(self) -> dict[str, str]:
        """The record as the `text` of `images.write_picture`, for `read_record`. Equal records give equal text."""
        values = {
            "recipe": self.recipe.as_dict(),
            "versions": dict(self.versions),
            "inputs": [asdict(item) for item in self.inputs],
        }
        return {"Software": f"vggfeat {self.versions['vggfeat']}", KEY: json.dumps(values)}


def record(recipe: Recipe, inputs: Iterable[tuple[str, str | os.PathLike[str]]]) -> Record:
    """The record of a run with the present versions; `inputs` are pairs of role and file. Raises `OSError`."""
    versions = {
        "vggfeat": version("vggfeat"),
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }
    return Record(recipe, versions, tuple(_hashed(role, Path(path)) for role, path in inputs))


def read_record(path: str | os.PathLike[str]) -> Record:
    """Read the record of a painted picture. Raises `ImageError`, and `RecipeError` if the picture holds none."""
    source = f"the picture '{os.fspath(path)}'"
    texts = images.read_text(path)
    text = texts.get(KEY)
    if text is None and _DREAM in texts:
        raise RecipeError(f"{source} is a dream, which has no recipe: `{_dream_command(texts[_DREAM])}` makes it")
    if text is None and INSTANT in texts:
        raise RecipeError(f"{source} is in an instant style, which has no recipe: `vggfeat stylize --fast` paints it")
    if text is None:
        raise RecipeError(
            f"{source} holds no recipe: `vggfeat stylize` did not write it, or another program stripped it"
        )
    try:
        values: dict[str, Any] = json.loads(text)
        recipe: dict[str, Any] = dict(values["recipe"])
        versions = cast("dict[str, str]", dict(values["versions"]))
        inputs = tuple(Input(**item) for item in values["inputs"])
    except (ValueError, TypeError, KeyError) as error:
        raise RecipeError(f"{source} holds a recipe that is damaged") from error
    return Record(from_values(recipe, source), versions, inputs)


def dream_text(image: str | os.PathLike[str], options: Mapping[str, Any]) -> dict[str, str]:
    """The record of a dream, which has no recipe, as the `text` of `images.write_picture`."""
    given = {name: value for name, value in sorted(options.items()) if value is not None}
    values = {"image": Path(image).name, **given}
    return {"Software": f"vggfeat {version('vggfeat')}", _DREAM: json.dumps(values)}


def _dream_command(text: str) -> str:
    """The command that reproduces a dream."""
    try:
        values: dict[str, object] = dict(json.loads(text))
    except (TypeError, ValueError):
        return "vggfeat dream IMAGE"
    words = ["vggfeat", "dream", str(values.pop("image", "IMAGE"))]
    for name, value in values.items():
        flag = f"--{str(name).replace('_', '-')}"
        if isinstance(value, bool):
            words += [flag] if value else []
        else:
            words += [flag, ",".join(map(str, cast("list[object]", value))) if isinstance(value, list) else str(value)]
    return shlex.join(words)


def _hashed(role: str, path: Path) -> Input:
    return Input(role, path.name, files.sha256(path))
