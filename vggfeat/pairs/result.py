"""What a comparison came to, also as JSON and CSV."""

import csv
import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from vggfeat.pairs.match import Pair, path_text


@dataclass(frozen=True, slots=True)
class Row:
    """What a pair came to at `width` x `height` pixels.

    `values`: {metric: value}; with layers also {"lpips-vgg/relu1_2": value}, which add up to their metric.
    """

    pair: Pair
    width: int
    height: int
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Failure:
    """A pair that could not be compared, and why."""

    pair: Pair
    reason: str


@dataclass(frozen=True)
class Comparison:
    """The outcome of comparing: a row for each pair, in the order of their names.

    `mean`: of each metric over the rows, empty where there is none. `metadata`: what the values depend on, of which
    `metrics` says for each its network, version and weights. `failures`: the pairs that are missing from the rows.
    `unmatched`: {picture: reason} for those that have no counterpart.
    """

    rows: tuple[Row, ...]
    metadata: Mapping[str, Any] = field(repr=False)
    failures: tuple[Failure, ...] = ()
    unmatched: Mapping[str, str] = field(default_factory=dict[str, str])

    @cached_property
    def mean(self) -> dict[str, float]:
        """The mean of each metric over the rows."""
        names = self.rows[0].values if self.rows else ()
        return {name: sum(row.values[name] for row in self.rows) / len(self.rows) for name in names}

    def as_json(self) -> str:
        """`metadata`, `pairs`, `mean`, `unmatched` and `failed` as JSON, which has no infinity: that is null."""
        pairs = [
            {**_named(row.pair), "width": row.width, "height": row.height, **_finite(row.values)} for row in self.rows
        ]
        content = {
            "metadata": self.metadata,
            "pairs": pairs,
            "mean": _finite(self.mean),
            "unmatched": [{"picture": name, "reason": reason} for name, reason in self.unmatched.items()],
            "failed": [{**_named(failure.pair), "reason": failure.reason} for failure in self.failures],
        }
        return json.dumps(content, indent=2, allow_nan=False) + "\n"

    def as_csv(self) -> str:
        """One row a pair, a failed one without values but with its `error`; the last row is the mean.

        The last column is empty but in the last row, which holds the metadata as JSON: a line of comment before the
        header would break readers that expect none.
        """
        names = list(self.mean)
        text = io.StringIO()
        writer = csv.DictWriter(
            text, ["pair", "a", "b", "width", "height", *names, "error", "metadata"], lineterminator="\n"
        )
        writer.writeheader()
        for row in self.rows:
            writer.writerow({**_named(row.pair), "width": row.width, "height": row.height, **row.values})
        for failure in self.failures:
            writer.writerow({**_named(failure.pair), "error": failure.reason})
        writer.writerow({"pair": "mean", **self.mean, "metadata": json.dumps(self.metadata)})
        return text.getvalue()


def _named(pair: Pair) -> dict[str, str]:
    return {"pair": pair.name, "a": path_text(pair.a), "b": path_text(pair.b)}


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in values.items()}
