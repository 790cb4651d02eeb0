"""`run.json`: what a dump computes, of which inputs, in which batches."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from vggfeat import files
from vggfeat.dumps.errors import StoreError, store_errors
from vggfeat.dumps.sources import printable

FORMAT = 1
NAME = "run.json"

_FINGERPRINT: Mapping[str, tuple[type, ...]] = {
    "layers": (list,),
    "reductions": (dict,),
    "weights": (dict,),
    "inputs": (dict,),
    "batch_size": (int,),
    "shard_size": (int,),
    "resize": (int, list, type(None)),
    "crop": (int, type(None)),
    "dtype": (str,),
}


def read_run(folder: Path) -> dict[str, Any] | None:
    """The content of run.json; None if there is no such file. Raises `StoreError` if it is damaged."""
    path = folder / NAME
    try:
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise StoreError(f"cannot read '{printable(path)}': {error}") from error
    if isinstance(cast("object", found), dict) and found.get("format") != FORMAT:
        raise StoreError(f"'{printable(path)}' has the format {found.get('format')}, not {FORMAT}")
    if reason := _damage(found):
        raise StoreError(f"'{printable(path)}' is damaged: {reason}")
    return found


def write_run(folder: Path, content: Mapping[str, Any]) -> None:
    """Write run.json. Raises `StoreError`."""
    with store_errors(folder):
        files.write(folder / NAME, json.dumps({"format": FORMAT, **content}, indent=2) + "\n")


def _damage(found: object) -> str:
    """The first thing that is wrong with the content of run.json; empty if nothing is."""
    content = cast("dict[str, Any]", found if isinstance(found, dict) else {})
    fingerprint: Any = content.get("fingerprint")
    if not isinstance(fingerprint, dict) or not isinstance(content.get("shards"), int):
        return "it has no fingerprint or no number of shards"
    fields = cast("dict[str, Any]", fingerprint)
    if wrong := [name for name, kinds in _FINGERPRINT.items() if not isinstance(fields.get(name), kinds)]:
        return f"its fingerprint has no valid {wrong[0]}"
    count, size = fields["inputs"].get("count"), fields["shard_size"]
    if not isinstance(count, int) or size < 1 or content["shards"] != -(-count // size):
        return f"{count} inputs at {size} a shard do not make {content['shards']} shards"
    return ""
