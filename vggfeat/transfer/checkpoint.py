"""Checkpoints: a run's tensors and facts in one file that is either the old one or the new one, never a part."""

import json
import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vggfeat import files
from vggfeat.errors import InputError

_FORMAT = "vggfeat checkpoint 3"


class Checkpoint(NamedTuple):
    """What a run can go on from: facts that JSON can hold, and tensors by name."""

    facts: dict[str, Any]
    tensors: dict[str, Tensor]


def save(path: str | os.PathLike[str], facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write a checkpoint: to a temporary file beside `path`, synced, then renamed."""
    own = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    data = safetensors.torch.save(own, {"format": _FORMAT, "facts": json.dumps(facts)})
    files.write(path, data)


def load(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint. Raises `InputError` where the file is none."""
    with _opened(path) as file:
        names: list[str] = list(file.keys())
        return Checkpoint(_facts(file, path), {name: file.get_tensor(name) for name in names})


def load_facts(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the facts of a checkpoint, without its tensors. Raises as `load` does."""
    with _opened(path) as file:
        return _facts(file, path)


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Generator[Any]:
    try:
        with safe_open(path, framework="pt") as file:  # pyright: ignore[reportUnknownVariableType] (untyped upstream)
            yield file
    except FileNotFoundError:
        raise InputError(f"there is no checkpoint '{path}'") from None
    except (SafetensorError, OSError) as error:
        raise InputError(f"'{path}' is no checkpoint: {error}") from error


def _facts(file: Any, path: str | os.PathLike[str]) -> dict[str, Any]:  # noqa: ANN401 (untyped upstream)
    about: dict[str, str] = file.metadata() or {}
    if about.get("format") != _FORMAT:
        raise InputError(f"'{path}' is no checkpoint of this version of stylize")
    return json.loads(about["facts"])
