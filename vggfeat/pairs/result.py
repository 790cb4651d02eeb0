"""The result of a comparison, also as JSON and CSV."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from vggfeat.files import csv_text
from vggfeat.pairs.match import Pair, path_text


@dataclass(frozen=True, slots=True)
class PairResult:
    """The metrics of a pair of pictures of `width` x `height` pixels.

    `values` is {metric: value}. With layers it also has {"lpips-vgg/relu1_2": value}, which add up to their metric.
    """

    pair: Pair
    width: int
    height: int
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Failure:
    """A pair that could not be compared, and the reason."""

    pair: Pair
    reason: str


@dataclass(frozen=True)
class Comparison:
    """The result of `compare`: the metrics of each pair, sorted by name.

    `metadata` is what the values depend on, such as the network, version and weights of each metric. `failures` are the
    pairs that could not be compared. `unmatched` is {picture without a counterpart: reason}. `complete` is false if the
    comparison was interrupted before the last pair.

    Example:
        >>> from pathlib import Path
        >>> from vggfeat import Comparison
        >>> from vggfeat.pairs.match import Pair
        >>> from vggfeat.pairs.result import PairResult
        >>> pairs = [Pair(name, Path("a", name), Path("b", name)) for name in ("one.png", "two.png")]
        >>> rows = tuple(PairResult(pair, 64, 48, {"psnr": psnr}) for pair, psnr in zip(pairs, (30.0, float("inf"))))
        >>> result = Comparison(rows, metadata={})
        >>> result.mean, result.infinite
        ({'psnr': 30.0}, {'psnr': 1})
        >>> print(result.as_csv().splitlines()[1])
        one.png,a/one.png,b/one.png,64,48,30.0,,
    """

    rows: tuple[PairResult, ...]
    metadata: Mapping[str, Any] = field(repr=False)
    failures: tuple[Failure, ...] = ()
    unmatched: Mapping[str, str] = field(default_factory=dict[str, str])
    complete: bool = True

    @cached_property
    def mean(self) -> dict[str, float]:
        """{metric: mean of its finite values}, infinite if none is finite. Empty if there are no pairs."""
        means: dict[str, float] = {}
        for name in self.rows[0].values if self.rows else ():
            finite = [one.values[name] for one in self.rows if math.isfinite(one.values[name])]
            means[name] = sum(finite) / len(finite) if finite else math.inf
        return means

    @property
    def signatures(self) -> dict[str, str]:
        """{metric: a line to cite beside its values}: loss, network, weights, input range, resizing and precision."""
        return {name: about["signature"] for name, about in self.metadata.get("metrics", {}).items()}

    @cached_property
    def infinite(self) -> dict[str, int]:
        """{metric: number of infinite values, which its mean leaves out}.

        PSNR is infinite for equal pictures, and a metric of clips for frames that share no visible pixel.
        """
        counts = {name: sum(math.isinf(one.values[name]) for one in self.rows) for name in self.mean}
        return {name: count for name, count in counts.items() if count}

    def as_json(self) -> str:
        """`complete`, `metadata`, `pairs`, `mean`, `infinite`, `unmatched` and `failed` as JSON.

        JSON has no infinity, so infinite values are null. `infinite` counts such values.
        """
        pairs = [
            {**_named(one.pair), "width": one.width, "height": one.height, **_finite(one.values)} for one in self.rows
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
        """One row for each pair and a last row with the means, as CSV. A failed pair has an `error` and no values.

        The column `metadata` is filled in the last row only, with the metadata, `infinite` and `complete` as JSON.
        Names are not escaped: a spreadsheet may read a name that begins with `=`, `+`, `-` or `@` as a formula.
        """
        columns = ["pair", "a", "b", "width", "height", *self.mean, "error", "metadata"]
        about = {**self.metadata, "infinite": self.infinite, "complete": self.complete}
        lines: list[dict[str, object]] = [
            *({**_named(one.pair), "width": one.width, "height": one.height, **one.values} for one in self.rows),
            *({**_named(failure.pair), "error": failure.reason} for failure in self.failures),
            {"pair": "mean", **self.mean, "metadata": json.dumps(about)},
        ]
        return csv_text(columns, [map(line.get, columns) for line in lines])


def _named(pair: Pair) -> dict[str, str]:
    return {"pair": pair.name, "a": path_text(pair.a), "b": path_text(pair.b)}


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in values.items()}
