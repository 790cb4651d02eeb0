"""Verifies a dump: hashes every file, and recomputes the features of random pictures."""

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from vggfeat import files
from vggfeat.dumps.arrays import FeatureArray
from vggfeat.dumps.manifest import ManifestEntry
from vggfeat.dumps.network import DumpNetwork
from vggfeat.dumps.prepare import Preparation, prepare
from vggfeat.dumps.reading import open_dump
from vggfeat.dumps.sources import Places
from vggfeat.errors import VggfeatError

_REMEDY = "the command that made the dump recomputes it"

# The largest relative difference that rounding may cause: the dump was computed in other batches.
_TOLERANCES = {"float32": 1e-4, "tf32": 4e-3, "float16": 2e-3, "bfloat16": 4e-2}


@dataclass(frozen=True, slots=True)
class Check:
    """The result for one file, or for one picture if `picture` is set. `error` is empty if it is correct.

    `what`: the file within the dump, the picture's path, or `shard N`. `difference`: the largest difference between
    stored and recomputed features, relative to the largest feature. `unchecked`: the dump may be correct, but the
    picture is missing, has changed or needs too much memory; `error` says which.
    """

    what: str
    error: str = ""
    difference: float = 0.0
    picture: bool = False
    unchecked: bool = False


class Verifying:
    """A verification in progress. Iterate over it for each `Check`. The arguments are those of `verify`."""

    def __init__(self, out: str | os.PathLike[str], *, rows: int = 16, seed: int = 0, device: str = "auto") -> None:
        self.dump = open_dump(out)
        self._count = rows
        self._seed = seed
        self._device = device
        self._receipts = self.dump.receipts()

    def __iter__(self) -> Iterator[Check]:
        for number in range(self.dump.shards):
            if number not in self._receipts:
                yield Check(f"shard {number}", f"its receipt or one of its files is missing or truncated: {_REMEDY}")
        for receipt in self._receipts.values():
            for name, about in receipt.files.items():
                yield Check(name, self._check_file(name, about["sha256"]))
        if error := self._check_manifest():
            yield Check("manifest", error)
        if self._chosen:
            digest = self.dump.fingerprint["weights"]["sha256"]
            network = DumpNetwork(self.dump.recipe, digest=digest, device=self._device)
            for entry in self._chosen:
                yield self._recompute(entry, network)

    def _check_file(self, name: str, sha256: str) -> str:
        try:
            digest = files.sha256(self.dump.path / name)
        except OSError as error:
            return f"it cannot be read: {files.reason(error)}"
        return "" if digest == sha256 else f"its sha256 differs from its receipt's: delete it, and {_REMEDY}"

    def _check_manifest(self) -> str:
        manifest = self.dump.manifest
        shards = manifest.numbers["shard"]
        if (np.diff(shards) < 0).any():
            return f"its entries are not in the order of the shards: {_REMEDY}"
        for number, receipt in self._receipts.items():
            start, stop = np.searchsorted(shards, [number, number + 1]).tolist()
            if manifest[start:stop] != receipt.entries:
                return f"its entries of shard {number} differ from the receipt's: {_REMEDY}"
        return ""

    @cached_property
    def _rows(self) -> dict[str, int]:
        """{id: row in the dump's arrays}."""
        return {name: row for row, name in enumerate(self.dump.ids)}

    @cached_property
    def _arrays(self) -> dict[tuple[str, str], FeatureArray]:
        return {output: self.dump[output] for output in self.dump.outputs}

    @cached_property
    def _chosen(self) -> list[ManifestEntry]:
        manifest = self.dump.manifest
        good = np.flatnonzero(manifest.ok & np.isin(manifest.numbers["shard"], list(self._receipts))).tolist()
        generator = random.Random(self._seed)
        chosen = generator.sample(range(len(good)), min(self._count, len(good)))
        return [manifest[good[place]] for place in sorted(chosen)]

    @cached_property
    def _places(self) -> Places:
        texts = self.dump.manifest.texts
        return Places(dict(zip(texts("id"), texts("path"), strict=True)), self.dump.moved)

    def _recompute(self, entry: ManifestEntry, network: DumpNetwork) -> Check:
        recipe = network.recipe
        try:
            stored = {output: np.asarray(array[self._rows[entry.id]]) for output, array in self._arrays.items()}
        except VggfeatError as error:
            return Check(entry.path, str(error), picture=True)
        try:
            item = self._places.item(entry.id)
        except VggfeatError as error:
            return Check(entry.path, str(error), picture=True, unchecked=True)
        found = prepare(item, Preparation.of(recipe))
        if found.pixels is None:
            return Check(entry.path, found.error, picture=True, unchecked=True)
        if found.sha256 != entry.sha256:
            return Check(entry.path, "the file has changed since it was dumped", picture=True, unchecked=True)
        outcome = network(found.pixels[None])
        if isinstance(outcome, str):
            return Check(entry.path, outcome, picture=True, unchecked=True)
        tolerance = max(_TOLERANCES[recipe.dtype], _TOLERANCES[recipe.precision])
        differences = {
            ".".join(output): _difference(stored[output], values[0].cpu().numpy())
            for output, values in outcome.outputs.items()
        }
        error = "; ".join(
            f"{name} differs by {difference:.2g} of its largest value"
            for name, difference in differences.items()
            if not difference <= tolerance  # true of NaN
        )
        return Check(entry.path, error, max(differences.values(), default=0.0), picture=True)


def verify(out: str | os.PathLike[str], *, rows: int = 16, seed: int = 0, device: str = "auto") -> list[Check]:
    """Check the dump in `out`: the hash of every file, and the features of `rows` random pictures, recomputed.

    Each picture is recomputed in a batch of one, so differences due to rounding are tolerated. Returns the checks that
    failed, and those that were impossible (`unchecked`). Raises `StoreError` if there is no complete dump,
    `WeightsError` and `VggfeatError` if its weights are not available.
    """
    return [check for check in Verifying(out, rows=rows, seed=seed, device=device) if check.error]


def _difference(stored: npt.NDArray[Any], computed: npt.NDArray[np.float32]) -> float:
    """The largest relative difference; infinite if the shapes differ, or if infinite or NaN values do."""
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
