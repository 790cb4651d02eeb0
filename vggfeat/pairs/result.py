"""What a comparison came to, also as JSON and CSV."""

import csv
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

    `metadata`: what the values depend on, of which `metrics` says for each its network, version and weights.
    `failures`: the pairs that are missing from the rows. `unmatched`: {picture: reason} for those that have no
    counterpart. `complete`: whether every pair is among the rows or the failures, which an interruption prevents.
    """

    rows: tuple[Row, ...]
    metadata: Mapping[str, Any] = field(repr=False)
    failures: tuple[Failure, ...] = ()
    unmatched: Mapping[str, str] = field(default_factory=dict[str, str])
    complete: bool = True

    @cached_property
    def mean(self) -> dict[str, float]:
        """The mean of each metric over the rows where it is finite; infinite if there are none, empty without rows."""
        means: dict[str, float] = {}
        for name in self.rows[0].values if self.rows else ():
            finite = [row.values[name] for row in self.rows if math.isfinite(row.values[name])]
            means[name] = sum(finite) / len(finite) if finite else math.inf
        return means

    @cached_property
    def infinite(self) -> dict[str, int]:
        """The number of rows that the mean of a metric leaves out, for the metrics of which it does: PSNR alone."""
        counts = {name: sum(math.isinf(row.values[name]) for row in self.rows) for name in self.mean}
        return {name: count for name, count in counts.items() if count}

    def as_json(self) -> str:
        """`complete`, `metadata`, `pairs`, `mean`, `infinite`, `unmatched` and `failed` as JSON.

        JSON has no infinity: a value of null is infinite, the PSNR of equal pictures. `infinite` counts them.
        """
        pairs = [
            {**_named(row.pair), "width": row.width, "height": row.height, **_finite(row.values)} for row in self.rows
        ]
        content = {
            "complete": self.complete,
            "metadata": self.metadata,
            "pairs": pairs,
            "mean": _finite(self.mean),
            "infinite": self.infinite,
            "unmatched": [{"picture": name, "reason": reason} for name, reason in self.unmatched.items()],
            "failed": [{**_named(failure.pair), "reason": failure.reason} for failure in self.failures],
        }
        return json.dumps(content, indent=2, allow_nan=False) + "\n"

    def as_csv(self) -> str:
        """One row a pair, a failed one without values but with its `error`; the last row is the mean.

        The last column is empty but in the last row, which holds the metadata, `infinite` and `complete` as JSON: a
        line of comment before the header would break readers that expect none. Names stand as they are, so that they
        can be looked up: a spreadsheet may take one that begins with `=`, `+`, `-` or `@` for a formula.
        """
        names = list(self.mean)
        lines = _Lines()
        writer = csv.DictWriter(lines, ["pair", "a", "b", "width", "height", *names, "error", "metadata"])
        writer.writeheader()
        for row in self.rows:
            writer.writerow({**_named(row.pair), "width": row.width, "height": row.height, **row.values})
        for failure in self.failures:
            writer.writerow({**_named(failure.pair), "error": failure.reason})
        about = {**self.metadata, "infinite": self.infinite, "complete": self.complete}
        writer.writerow({"pair": "mean", **self.mean, "metadata": json.dumps(about)})
        return "".join(lines)


class _Lines(list[str]):
    """Rows of CSV that end in a line feed: given that for an end, `csv` would not quote a carriage return in a name."""

    def write(self, row: str) -> None:
        self.append(row.removesuffix("\r\n") + "\n")


def _named(pair: Pair) -> dict[str, str]:
    return {"pair": pair.name, "a": path_text(pair.a), "b": path_text(pair.b)}


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in values.items()}
