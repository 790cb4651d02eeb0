"""The record that a picture in an instant style carries in its metadata."""

import json
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path

from vggfeat import files
from vggfeat.transfer.record import INSTANT


def record_text(
    weights: Mapping[str, float],
    strength: float,
    size: int | None,
    inputs: Iterable[tuple[str, Path]],
) -> dict[str, str]:
    """The styles, the strength and the hashes of the inputs, as the `text` of `images.write_picture`.

    `inputs` are pairs of role and file. Raises `OSError`.
    """
    given = [{"role": role, "file": path.name, "sha256": files.sha256(path)} for role, path in inputs]
    values = {"styles": dict(weights), "strength": strength, "size": size, "inputs": given}
    return {"Software": f"vggfeat {version('vggfeat')}", INSTANT: json.dumps(values)}
