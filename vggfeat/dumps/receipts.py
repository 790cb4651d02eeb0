"""The receipt of a shard: the file that says the shard is complete."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vggfeat.dumps.manifest import COLUMNS, ManifestEntry

_COLUMNS = [name for name in COLUMNS if name != "shard"]


@dataclass(frozen=True, slots=True)
class Receipt:
    """The entries, files and counts of a complete shard.

    `files`: {name within the dump: its `sha256` and `bytes`}. `clipped` and `not_finite`: {array: number of values}
    that were clipped to float16's range, and that are infinite or NaN. `kept` is not written to disk: if a shard was
    due to be recomputed and kept as it was, it is the reason.
    """

    shard: int
    entries: tuple[ManifestEntry, ...]
    files: Mapping[str, Mapping[str, Any]]
    clipped: Mapping[str, int]
    not_finite: Mapping[str, int] = field(default_factory=dict[str, int])
    kept: str = ""

    @property
    def failed(self) -> int:
        """The number of inputs that failed."""
        return sum(not entry.ok for entry in self.entries)

    def as_json(self) -> str:
        """The text of the receipt's file."""
        further = list(dict.fromkeys(name for entry in self.entries for name in entry.columns))
        content = {
            "shard": self.shard,
            "files": self.files,
            "clipped": self.clipped,
            "columns": [*_COLUMNS, *further],
            "rows": [
                [*(getattr(entry, name) for name in _COLUMNS), *(entry.columns.get(name, "") for name in further)]
                for entry in self.entries
            ],
        }
        optional = {"not_finite": self.not_finite, "kept": self.kept}
        content |= {name: value for name, value in optional.items() if value}
        return json.dumps(content, indent=None, separators=(",", ":")) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Receipt":
        """Parse the text that `as_json` returns. Raises ValueError, LookupError, TypeError or AttributeError."""
        content: dict[str, Any] = json.loads(text)
        columns: list[str] = content["columns"]
        number: int = content["shard"]
        return cls(
            shard=number,
            entries=tuple(_entry(number, dict(zip(columns, row, strict=True))) for row in content["rows"]),
            files=dict(content["files"].items()),
            clipped=dict(content["clipped"].items()),
            not_finite=dict(content.get("not_finite", {}).items()),
            kept=content.get("kept", ""),
        )


def _entry(shard: int, values: dict[str, Any]) -> ManifestEntry:
    own = {name: values.pop(name) for name in _COLUMNS}
    return ManifestEntry(shard=shard, **own, columns={name: text for name, text in values.items() if text})
