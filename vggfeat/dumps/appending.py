"""Appends pictures and layers to a complete dump.

New pictures come after those that the dump holds. For full shards, only the new arrays are computed. The result has the
same bytes as a dump made at once of all pictures, in this order, with all layers and the sizes of run.json. This is why
a partly filled last shard is computed again when pictures are added: its batches change. So at most the pictures of one
shard are read twice.

The steps:

1. Compute the new arrays of full shards, and the new shards. The dump can still be read as it was.
2. Delete the manifest and replace run.json: from here on the dump is incomplete.
3. Compute the partly filled shard, write the manifest and delete append.json.

`append.json` records an append that is not finished: the same command continues it, and the command that made the dump
drops it.
"""

import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from vggfeat import files
from vggfeat.dumps.errors import StoreError, store_errors
from vggfeat.dumps.manifest import FORMATS, ManifestEntry
from vggfeat.dumps.receipts import Receipt
from vggfeat.dumps.recipe import DumpRecipe, differences
from vggfeat.dumps.request import DumpRequest, Run
from vggfeat.dumps.shards import shard_name
from vggfeat.dumps.sources import Item, Move, Places, fingerprint, numbered, printable
from vggfeat.dumps.store import APPEND, Store
from vggfeat.dumps.work import DumpJob, ShardTask
from vggfeat.errors import InputError, VggfeatError
from vggfeat.networks import arch

# The fields of a fingerprint that an append may change.
_OPEN = ("layers", "reductions", "inputs")


@dataclass(frozen=True, slots=True)
class Base:
    """The dump before the append: its run.json, and the entries of its last shard if that is partly filled."""

    run: Run
    last: tuple[ManifestEntry, ...]

    @property
    def count(self) -> int:
        """The number of its inputs."""
        return self.run["fingerprint"]["inputs"]["count"]

    @property
    def size(self) -> int:
        """Inputs per shard."""
        return self.run["fingerprint"]["shard_size"]

    @property
    def full(self) -> int:
        """The number of full shards."""
        return self.count // self.size

    @property
    def outputs(self) -> set[tuple[str, str]]:
        """The (layer, reduction) of its arrays."""
        reductions: Mapping[str, list[str]] = self.run["fingerprint"]["reductions"]
        return {(layer, reduction) for layer, wanted in reductions.items() for reduction in wanted}


class Appending:
    """The plan for adding the pictures and layers of `request` to the dump in `store`. Making it writes nothing.

    Raises `StoreError` if the dump is incomplete or was begun with other options, `InputError` if the pictures that it
    holds cannot be listed again.
    """

    def __init__(self, store: Store, request: DumpRequest) -> None:
        self._store = store
        self._pending = _read_pending(store)
        self.base = self._pending[0] if self._pending else _base(store)
        theirs = self.base.run["fingerprint"]
        recipe = DumpRecipe.from_dict(theirs, self.base.run["weights"])
        _check_same(store, recipe.as_dict(), request.recipe.as_dict())
        moved = Move.of(self.base.run)
        held = self._held()
        union = _union(recipe, request.recipe)
        _check_large_enough(held, union)
        items = _joined(held, request.items, self.base, moved)
        self.request = replace(request, recipe=union, items=items, moved=moved)
        self.run = self.request.content(theirs)
        if self._pending and self._pending[1]["fingerprint"] != self.run["fingerprint"]:
            raise StoreError(
                f"another append to '{printable(store.path)}' was interrupted: finish it with its command, or drop it "
                "with the command that made the dump"
            )
        if moved is not None:
            self.run = {**self.run, "moved": self.base.run["moved"]}
        _check_same(store, theirs, self.run["fingerprint"])

    @property
    def resumed(self) -> bool:
        """Whether this append was begun before."""
        return self._pending is not None

    @property
    def pictures(self) -> int:
        """The number of new pictures."""
        return len(self.request.items) - self.base.count

    @cached_property
    def _new_outputs(self) -> dict[str, tuple[str, ...]]:
        """{layer: reductions} that the dump does not have, in network order."""
        known, layers = self.base.outputs, set(self.base.run["fingerprint"]["layers"])
        wanted = self.request.recipe.reductions
        new = {layer: tuple(word for word in wanted[layer] if (layer, word) not in known) for layer in wanted}
        return {layer: words for layer, words in new.items() if words or layer not in layers}

    def begin(self) -> None:
        """Record what is being appended."""
        if self.resumed:
            return
        last = json.loads(Receipt(self.base.full, self.base.last, {}, {}).as_json())
        content = {"base": self.base.run, "last": last, "run": self.run}
        with store_errors(self._store.path):
            files.write(self._store.path / APPEND, json.dumps(content) + "\n")

    def kept(self) -> set[int]:
        """The shards whose files must stay: those of the dump, and those that this append has computed."""
        had = -(-self.base.count // self.base.size)
        return {*range(had), *(self._done() if self.resumed else ())}

    def tasks(self) -> tuple[list[ShardTask], list[ShardTask], list[ShardTask]]:
        """Three lists of shards to compute: with all arrays, with the new arrays only, and the partly filled one."""
        receipts = self._store.receipts()
        done = self._done() if self.resumed else set[int]()
        whole: list[ShardTask] = []
        further: list[ShardTask] = []
        last: list[ShardTask] = []
        for number in range(self.run["shards"]):
            items = self._items_of(number)
            receipt = receipts.get(number)
            if self._is_old(number):
                if receipt is None:
                    whole.append(ShardTask(number, items))
                elif self._new_outputs and number not in done:
                    further.append(
                        ShardTask(number, _failed_again(items, receipt), receipt, self.request.recipe.layers)
                    )
            elif number not in done:
                partly = number == self.base.full and self.base.last
                (last if partly else whole).append(ShardTask(number, items, receipt if partly else None))
        return whole, further, last

    def further_job(self, job: DumpJob) -> DumpJob:
        """The part of `job` that computes the new arrays only."""
        return replace(job, recipe=replace(job.recipe, reductions=self._new_outputs))

    def unchanged_before(self) -> Sequence[tuple[Item, ManifestEntry]]:
        """The pictures of the partly filled shard that have features. They are read again, and must be the same."""
        if not self.pictures or self.base.full in self._done():
            return ()
        items = self._items_of(self.base.full)
        return [(item, entry) for item, entry in zip(items, self.base.last, strict=False) if entry.ok]

    def _items_of(self, number: int) -> tuple[Item, ...]:
        return self.request.items[number * self.base.size : (number + 1) * self.base.size]

    def _as_it_was(self, receipt: Receipt) -> Receipt:
        """`receipt` without arrays of an append that was dropped."""
        names = {".".join(output) for output in self.base.outputs} | {"receipts"}
        return replace(
            receipt,
            files={name: about for name, about in receipt.files.items() if name.partition("/")[0] in names},
            clipped={name: count for name, count in receipt.clipped.items() if name in names},
            not_finite={name: count for name, count in receipt.not_finite.items() if name in names},
        )

    def _is_old(self, number: int) -> bool:
        """Whether a shard holds the same pictures as before."""
        return number < self.base.full or (not self.pictures and number * self.base.size < self.base.count)

    def _done(self) -> set[int]:
        """The shards that are complete with all arrays."""
        return {
            number
            for number, receipt in self._store.receipts().items()
            if [entry.id for entry in receipt.entries] == [item.id for item in self._items_of(number)]
            and self._has_all(receipt)
        }

    def _has_all(self, receipt: Receipt) -> bool:
        if not any(entry.ok for entry in receipt.entries):
            return True
        recipe = self.request.recipe
        found = {name.partition("/")[0] for name in receipt.files}
        if not found.issuperset(".".join(output) for output in recipe.outputs):
            return False
        if not recipe.measures:
            return True
        path = self._store.path / f"receipts/{shard_name(receipt.shard)}.npz"
        try:
            with np.load(path, allow_pickle=False) as partial:
                return set(recipe.layers) <= {name.partition("/")[0] for name in partial.files}
        except (OSError, ValueError) as error:
            raise StoreError(f"cannot read '{printable(path)}': {error}") from error

    def _held(self) -> list[ManifestEntry]:
        """The entries of the dump as it was."""
        entries = [entry for number in range(self.base.full) for entry in self._store.entries(number)]
        return [*entries, *self.base.last]


def _base(store: Store) -> Base:
    run = store.run()
    if run is None:
        raise StoreError(f"'{printable(store.path)}' is not a dump: there is nothing to append to")
    if not any((store.path / f"manifest.{form}").exists() for form in FORMATS):
        raise StoreError(f"'{printable(store.path)}' is not complete: finish it with the command that began it first")
    fingerprint = run["fingerprint"]
    full, rest = divmod(fingerprint["inputs"]["count"], fingerprint["shard_size"])
    return Base(run, store.entries(full) if rest else ())


def _read_pending(store: Store) -> tuple[Base, Run] | None:
    """The dump before an unfinished append, and the run.json after it; None if there is no unfinished append."""
    try:
        content: dict[str, Any] = json.loads((store.path / APPEND).read_text("utf-8"))
        last = Receipt.from_json(json.dumps(content["last"])).entries
        return Base(content["base"], last), content["run"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise StoreError(f"cannot read '{printable(store.path / APPEND)}': {error}") from error


def _check_same(store: Store, theirs: Run, ours: Run) -> None:
    known = {name: value for name, value in theirs.items() if name not in _OPEN}
    wanted = {name: value for name, value in ours.items() if name not in _OPEN}
    if known.get("seed") is None or wanted.get("seed") is None:  # only one of them has a projection, which needs a seed
        known.pop("seed", None)
        wanted.pop("seed", None)
    if different := differences(known, wanted):
        raise StoreError(
            f"'{printable(store.path)}' was made with {'; '.join(different)}: only pictures and layers can be appended"
        )


def _union(old: DumpRecipe, new: DumpRecipe) -> DumpRecipe:
    """The arrays of both recipes."""
    names = [layer.name for layer in arch.find_layers(old.network, [*old.layers, *new.layers], pooling=old.pooling)]
    both = {
        name: tuple(dict.fromkeys((*old.reductions.get(name, ()), *new.reductions.get(name, ())))) for name in names
    }
    return replace(new, reductions=both, weights=old.weights)


def _check_large_enough(held: Sequence[ManifestEntry], recipe: DumpRecipe) -> None:
    least = recipe.minimum_size
    if small := [entry for entry in held if entry.ok and min(entry.height, entry.width) < least]:
        raise InputError(
            f"'{small[0].id}' is {small[0].width}x{small[0].height}, too small for {recipe.layers[-1]}, which needs "
            f"{least} pixels a side: it would lose the features that the dump has of it"
        )


def _joined(held: Sequence[ManifestEntry], given: Sequence[Item], base: Base, moved: Move | None) -> tuple[Item, ...]:
    """The pictures that the dump holds, in its order, then those of `given` that it does not hold."""
    given = given if moved is None else list(map(moved.begun, given))
    named: dict[str, deque[Item]] = {}
    for item in given:
        named.setdefault(item.place, deque()).append(item)
    places = Places({entry.id: entry.path for entry in held}, moved)
    items: list[Item] = []
    for entry in held:
        same = named.get(entry.path)
        item = same.popleft() if same else _listed_again(places, entry, moved)
        items.append(replace(item, id=entry.id, columns=tuple(entry.columns.items())))
    if fingerprint(items) != base.run["fingerprint"]["inputs"]["sha256"]:
        raise InputError(
            "the pictures that the dump holds cannot be listed from its manifest: name its sources too, before the new"
        )
    left = {id(item) for same in named.values() for item in same}
    return tuple(numbered([*items, *(item for item in given if id(item) in left)]))


def _listed_again(places: Places, entry: ManifestEntry, moved: Move | None) -> Item:
    try:
        item = places.item(entry.id)
    except VggfeatError:  # such as an archive that is gone
        return Item(entry.id, entry.path)
    return item if moved is None else moved.begun(item)


def _failed_again(items: Sequence[Item], receipt: Receipt) -> tuple[Item, ...]:
    """`items`, in which those without features keep their errors, so that the rows of new arrays match the old ones."""
    return tuple(
        item if entry.ok else replace(item, error=entry.error or "failed")
        for item, entry in zip(items, receipt.entries, strict=True)
    )
