"""Files of instant styles: one safetensors file with the network, the names of its styles, and where they come from."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Self, cast

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vggfeat import files
from vggfeat.errors import InputError, WeightsError
from vggfeat.transfer.styles.network import StyleNetwork
from vggfeat.transfer.styles.widths import StyleWidths

FORMAT = "vggfeat styles 2"
ENDING = ".safetensors"
_KEY = "vggfeat"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_safe_open: Any = safe_open  # untyped upstream


@dataclass(frozen=True)
class InstantStyles:
    """A network of instant styles as a file holds it. Pass it to `fast_stylize` to paint many pictures.

    `network` is in float32; `licence` and `recipe` say where it comes from; `path` is the file.

    >>> network = StyleNetwork(["waves"], StyleWidths(4, 8, 8, blocks=1))
    >>> InstantStyles(network, licence="MIT").names
    ('waves',)
    """

    network: StyleNetwork
    licence: str = ""
    recipe: Mapping[str, Any] | None = None
    path: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the styles."""
        return self.network.names

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a file in float16. Equal networks give equal bytes. Raises `InputError`, `OSError`."""
        check_names(self.names)
        state = {name: x.detach().cpu().half().contiguous() for name, x in self.network.state_dict().items()}
        if not all(x.isfinite().all() for x in state.values()):
            raise InputError("the network holds values that are not finite in float16")
        about = {
            "format": FORMAT,
            "styles": list(self.names),
            "widths": self.network.widths.as_dict(),
            "licence": self.licence,
            "recipe": dict(self.recipe or {}),
        }
        # One entry: safetensors writes several in a random order, and equal networks would give different files.
        files.write(path, safetensors.torch.save(state, {_KEY: json.dumps(about)}))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a file onto the CPU.

        Raises `WeightsError` if the file is missing, is of another kind, or holds other tensors than its network needs.
        """
        about, state = _read(Path(path))
        names, widths = _described(path, about)
        with torch.device("meta"):
            network = StyleNetwork(names, widths)
        _check_tensors(path, state, network.state_dict())
        network.load_state_dict({name: x.float() for name, x in state.items()}, assign=True)
        return cls(network.eval(), str(about.get("licence", "")), about.get("recipe"), str(path))


def bundled_styles() -> Path:
    """Where the styles that ship with vggfeat are, if they do."""
    return Path(str(resources.files("vggfeat_assets"))) / "styles" / f"styles{ENDING}"


def check_names(names: Sequence[str]) -> None:
    """Raise `InputError` for names that a mix could not hold, that are equal, or of which there are none.

    >>> check_names(["waves", "dots:2"])
    Traceback (most recent call last):
    vggfeat.errors.InputError: 'dots:2' cannot name a style: use letters, digits, and . _ - after the first
    """
    if not names:
        raise InputError("there is no style")
    for name in names:
        if not _NAME.fullmatch(name):
            raise InputError(f"{name!r} cannot name a style: use letters, digits, and . _ - after the first")
    if twins := [name for name in names if names.count(name) > 1]:
        raise InputError(f"two styles are called {twins[0]}: each needs a name of its own")


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The metadata and the tensors of a file."""
    if path.is_dir() or not path.exists():
        what = "it is a folder" if path.is_dir() else f"no such file{files.similar_names(path)}"
        raise WeightsError(f"cannot read the styles '{path}': {what}")
    try:
        with _safe_open(path, framework="pt") as file:
            text: str | None = (file.metadata() or {}).get(_KEY)
            if text is None:
                raise WeightsError(f"'{path}' holds no instant styles: `vggfeat train-style` writes them")
            return _about(path, text), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except OSError as error:
        raise WeightsError(f"cannot read the styles '{path}': {files.reason(error)}") from error
    except SafetensorError as error:
        raise WeightsError(f"'{path}' is not a safetensors file, or is damaged ({error})") from error


def _about(path: Path, text: str) -> dict[str, Any]:
    """The metadata of a file."""
    try:
        about: object = json.loads(text)
    except ValueError:
        about = None
    if not isinstance(about, dict):
        raise WeightsError(f"the styles '{path}' are damaged: their metadata cannot be read")
    found = cast("dict[str, Any]", about)
    if found.get("format") != FORMAT:
        raise WeightsError(f"the styles '{path}' are of another version: {found.get('format')!r}, not {FORMAT!r}")
    return found


def _described(path: str | os.PathLike[str], about: Mapping[str, Any]) -> tuple[list[str], StyleWidths]:
    """The names and widths in the metadata."""
    try:
        names, widths = [str(name) for name in about["styles"]], StyleWidths(**about["widths"])
        check_names(names)
    except InputError as error:
        raise WeightsError(f"the styles '{path}' are damaged: {error}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise WeightsError(f"the styles '{path}' are damaged: their metadata cannot be read") from error
    return names, widths


def _check_tensors(path: str | os.PathLike[str], state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raise `WeightsError` unless the tensors are those of the network, floating and finite."""
    if differing := sorted(state.keys() ^ expected.keys()):
        what = "lack" if differing[0] in expected else "hold an unknown"
        raise WeightsError(f"the styles '{path}' are damaged: they {what} {differing[0]}")
    for name, x in state.items():
        if x.shape != expected[name].shape:
            shapes = ["x".join(map(str, each.shape)) for each in (x, expected[name])]
            raise WeightsError(f"the styles '{path}' are damaged: {name} is {shapes[0]}, not {shapes[1]}")
        if not x.is_floating_point() or not x.isfinite().all():
            raise WeightsError(f"the styles '{path}' are damaged: {name} holds values that are not finite numbers")
