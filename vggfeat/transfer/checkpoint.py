"""Checkpoints: the state of a run in one safetensors file, written atomically."""

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
_safe_open: Any = safe_open  # untyped upstream


class Checkpoint(NamedTuple):
    """The state of a run: facts as plain values for JSON, and tensors by name."""

    facts: dict[str, Any]
    tensors: dict[str, Tensor]


def save(path: str | os.PathLike[str], facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write a checkpoint. If that fails, an older file at `path` stays as it was."""
    own = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    data = safetensors.torch.save(own, {"format": _FORMAT, "facts": json.dumps(facts)})
    files.write(path, data)


def load(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint onto the CPU. Raises `InputError` if there is no file, or another kind of file."""
    with _opened(path) as (file, facts):
        names: list[str] = list(file.keys())
        return Checkpoint(facts, {name: file.get_tensor(name) for name in names})


def load_facts(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the facts of a checkpoint without its tensors. Raises `InputError` like `load`."""
    with _opened(path) as (_, facts):
        return facts


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Generator[tuple[Any, dict[str, Any]]]:
    """The open file and the facts in its header."""
    try:
        with _safe_open(path, framework="pt") as file:
            about: dict[str, str] = file.metadata() or {}
            if about.get("format") != _FORMAT:
                raise InputError(f"'{path}' is not a checkpoint of this version of stylize")
            yield file, json.loads(about["facts"])
    except FileNotFoundError:
        raise InputError(f"there is no checkpoint '{path}'") from None
    except (SafetensorError, OSError) as error:
        raise InputError(f"'{path}' is not a checkpoint: {error}") from error
