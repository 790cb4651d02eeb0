"""Check a dump: its files against their hashes, and random rows against what is computed anew."""

import hashlib
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from vggfeat import files
from vggfeat.dumps.prepare import Preparation, prepare
from vggfeat.dumps.reading import open_dump
from vggfeat.dumps.sources import Places
from vggfeat.dumps.store import Row
from vggfeat.dumps.work import Job, Network
from vggfeat.errors import VggfeatError

_MENDS = "the command that made the dump makes it anew"

# The largest difference, as a share of the array's greatest value, that rounding in other batches can explain.
_TOLERANCES = {"float32": 1e-4, "float16": 2e-3, "bfloat16": 4e-2}


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was checked: a file or a picture. `error` says what is wrong, and is empty where nothing is.

    `difference`: of a picture, the largest between what is stored and what is computed, as a share of the greatest.
    """

    what: str
    error: str = ""
    difference: float = 0.0
    picture: bool = False


class Verifying:
    """A verification under way: iterate over it for each `Check`."""

    def __init__(self, out: str | os.PathLike[str], *, rows: int = 16, seed: int = 0, device: str = "auto") -> None:
        self.dump = open_dump(out)
        self._rows = rows
        self._seed = seed
        self._device = device
        self._receipts = self.dump.receipts()

    def __iter__(self) -> Iterator[Check]:
        for number in range(self.dump.shards):
            if number not in self._receipts:
                yield Check(f"shard {number}", f"its receipt or one of its files is missing or cut off: {_MENDS}")
        for receipt in self._receipts.values():
            for name, about in receipt.files.items():
                yield Check(name, self._of_file(name, about["sha256"]))
        if wrong := self._of_manifest():
            yield Check("manifest", wrong)
        if self._chosen:
            network = Network(self._job())
            for row in self._chosen:
                yield self._recomputed(row, network)

    def _of_file(self, name: str, sha256: str) -> str:
        try:
            with (self.dump.path / name).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            return f"it cannot be read: {files.reason(error)}"
        return "" if digest == sha256 else f"its sha256 is not that of its receipt: delete it, and {_MENDS}"

    def _of_manifest(self) -> str:
        rows: dict[int, list[Row]] = {}
        for row in self.dump.manifest:
            rows.setdefault(row.shard, []).append(row)
        for number, receipt in self._receipts.items():
            if tuple(rows.get(number, ())) != receipt.rows:
                return f"its rows of shard {number} are not those of the receipt: {_MENDS}"
        if (order := [row.shard for row in self.dump.manifest]) != sorted(order):
            return f"its rows are not in the order of the shards: {_MENDS}"
        return ""

    @cached_property
    def _places(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self.dump.ids)}

    @cached_property
    def _chosen(self) -> list[Row]:
        good = [row for row in self.dump.manifest if row.ok and row.shard in self._receipts]
        chosen = random.Random(self._seed).sample(range(len(good)), min(self._rows, len(good)))  # noqa: S311 (a sample)
        return [good[place] for place in sorted(chosen)]

    @cached_property
    def _items(self) -> Places:
        return Places({row.id: row.path for row in self.dump.manifest})

    def _recomputed(self, row: Row, network: Network) -> Check:
        recipe = network.recipe
        try:
            item = self._items.item(row.id)
            stored = {output: np.asarray(self.dump[output][self._places[row.id]]) for output in self.dump.outputs}
        except VggfeatError as error:
            return Check(row.path, str(error), picture=True)
        except IndexError:
            return Check(row.path, f"its shard has fewer rows than the manifest says: {_MENDS}", picture=True)
        found = prepare(item, Preparation.of(recipe))
        if found.pixels is None:
            return Check(row.path, found.error, picture=True)
        if found.sha256 != row.sha256:
            return Check(row.path, "the file has changed since it was dumped", picture=True)
        outcome = network(found.pixels[None])
        if isinstance(outcome, str):
            return Check(row.path, outcome, picture=True)
        tolerance = max(_TOLERANCES[recipe.dtype], _TOLERANCES[recipe.precision])
        differences = {
            ".".join(output): _difference(stored[output], values[0]) for output, values in outcome.outputs.items()
        }
        # Also NaN, which is no difference that is tolerated.
        error = "; ".join(
            f"{name} differs by {difference:.2g} of its greatest value"
            for name, difference in differences.items()
            if not difference <= tolerance
        )
        return Check(row.path, error, max(differences.values(), default=0.0), picture=True)

    def _job(self) -> Job:
        return Job(str(self.dump.path), self.dump.recipe, 1, self._device, self.dump.fingerprint["weights"]["sha256"])


def verify(out: str | os.PathLike[str], *, rows: int = 16, seed: int = 0, device: str = "auto") -> list[Check]:
    """Check the dump in `out`: the hash of every file, and `rows` random pictures computed anew.

    A picture is computed alone, while it was dumped in a batch: what rounding makes of that is tolerated. Returns
    what is wrong, nothing where all is well. Raises `StoreError` where there is no complete dump, `WeightsError` and
    `VggfeatError` where its weights cannot be had.
    """
    return [check for check in Verifying(out, rows=rows, seed=seed, device=device) if check.error]


def _difference(stored: npt.NDArray[Any], computed: npt.NDArray[np.float32]) -> float:
    """The largest difference, as a share of the greatest value. What is not finite must be the same in both."""
    if stored.shape != computed.shape:
        return float("inf")
    if stored.dtype == np.float16:
        most = float(np.finfo(np.float16).max)
        computed = np.clip(computed, -most, most)
    finite = np.isfinite(computed)
    a, b = stored.astype(np.float64), computed.astype(np.float64)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return float("inf")
    scale = max(float(np.abs(b[finite]).max(initial=0.0)), 1e-12)
    return float(np.abs(a[finite] - b[finite]).max(initial=0.0)) / scale
