"""Check a dump: its files against their hashes, and random rows against what is computed anew."""

import hashlib
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vggfeat.dumps.prepare import Preparation, prepare
from vggfeat.dumps.reading import open_dump
from vggfeat.dumps.recipe import DumpRecipe
from vggfeat.dumps.sources import locate
from vggfeat.dumps.store import Row
from vggfeat.dumps.work import Job, Network

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

    def __len__(self) -> int:
        return sum(len(receipt.files) for receipt in self._receipts.values()) + len(self._chosen)

    def __iter__(self) -> Iterator[Check]:
        for number in range(self.dump.shards):
            if number not in self._receipts:
                yield Check(f"shard {number}", "its receipt or one of its files is missing or cut off")
        for receipt in self._receipts.values():
            for name, about in receipt.files.items():
                with (self.dump.path / name).open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                yield Check(name, "" if digest == about["sha256"] else "its sha256 is not that of its receipt")
        if self._chosen:
            network = Network(self._job())
            for row in self._chosen:
                yield self._recomputed(row, network)

    @cached_property
    def _places(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self.dump.ids)}

    @cached_property
    def _chosen(self) -> list[Row]:
        good = [row for row in self.dump.manifest if row.ok]
        chosen = random.Random(self._seed).sample(range(len(good)), min(self._rows, len(good)))  # noqa: S311 (a sample)
        return [good[place] for place in sorted(chosen)]

    def _recomputed(self, row: Row, network: Network) -> Check:
        recipe = network.recipe
        found = prepare(locate(row.path), Preparation.of(recipe))
        if found.pixels is None:
            return Check(row.path, found.error, picture=True)
        if found.sha256 != row.sha256:
            return Check(row.path, "the file has changed since it was dumped", picture=True)
        outcome = network(found.pixels[None])
        if isinstance(outcome, str):
            return Check(row.path, outcome, picture=True)
        tolerance = max(_TOLERANCES[recipe.dtype], _TOLERANCES[recipe.precision])
        most = np.finfo(recipe.dtype).max
        worst, error = 0.0, ""
        for output, values in outcome.outputs.items():
            stored = np.asarray(self.dump[output][self._places[row.id]], np.float64)
            computed = np.clip(values[0].astype(np.float64), -most, most)
            scale = max(float(np.abs(computed).max()), 1e-12)
            difference = float(np.abs(stored - computed).max()) / scale
            if not difference <= tolerance:  # also NaN
                error = f"{'.'.join(output)} differs by {difference:.2g} of its greatest value"
            worst = max(worst, difference)
        return Check(row.path, error, worst, picture=True)

    def _job(self) -> Job:
        about = self.dump.fingerprint
        resize = about["resize"]
        recipe = DumpRecipe(
            network=about["network"],
            reductions={layer: tuple(about["reductions"][layer]) for layer in about["layers"]},
            weights=self.dump.run["weights"],
            pooling=about["pooling"],
            seed=about["seed"] or 0,
            resize=tuple(resize) if isinstance(resize, list) else resize,  # pyright: ignore[reportUnknownArgumentType] (plain values)
            crop=about["crop"],
            dtype=about["dtype"],
            precision=about["precision"],
            statistics=True,  # where nothing else is stored, there is something to do
        )
        return Job(str(self.dump.path), recipe, 1, self._device, about["weights"]["sha256"])


def verify(out: str | os.PathLike[str], *, rows: int = 16, seed: int = 0, device: str = "auto") -> list[Check]:
    """Check the dump in `out`: the hash of every file, and `rows` random pictures computed anew.

    A picture is computed alone, while it was dumped in a batch: what rounding makes of that is tolerated. Returns
    what is wrong, nothing where all is well. Raises `StoreError` where there is no complete dump, `WeightsError` and
    `VggfeatError` where its weights cannot be had.
    """
    return [check for check in Verifying(out, rows=rows, seed=seed, device=device) if check.error]
