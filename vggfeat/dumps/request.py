"""The request for a run, and whether it agrees with the dump that is already in the folder."""

import os
import platform
from collections.abc import Container, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib.metadata import version
from typing import Any, cast

import torch

from vggfeat.dumps.errors import StoreError
from vggfeat.dumps.estimate import USUAL_SIDE, cost
from vggfeat.dumps.network import load_weights, weights_digest
from vggfeat.dumps.recipe import DumpRecipe, differences
from vggfeat.dumps.sources import Item, Move, fingerprint, first_difference, is_within, printable
from vggfeat.dumps.store import Store
from vggfeat.dumps.work import DumpJob, ShardTask
from vggfeat.errors import InputError
from vggfeat.features import algorithms
from vggfeat.features.device import describe, resolve_precision
from vggfeat.networks import arch

# The limits of one shard. A kill loses at most a shard.
_SHARD_BYTES = 256 * 2**20
_SHARD_PICTURES = 256

_CPU_BATCH = 16
_GPU_BATCH = 64

# Values that a fingerprint leaves out.
_DEFAULTS: Mapping[str, Any] = {"interpolation": "bilinear"}

Run = Mapping[str, Any]
"""The content of run.json."""


@dataclass(frozen=True, kw_only=True)
class DumpRequest:
    """The recipe, inputs, device and sizes of a run. A size of None is taken from run.json or chosen by a rule."""

    recipe: DumpRecipe
    items: tuple[Item, ...]
    device: torch.device
    batch_size: int | None = None
    shard_size: int | None = None
    moved: Move | None = None

    def located(self, root: str | None, store: Store) -> "DumpRequest":
        """Give sources that have moved to `root` the paths under which the dump in `store` knows them.

        If `root` is None, the move that the dump records applies. Raises `InputError` if these are other sources.
        """
        run = store.run()
        known = Move.of(run)
        if root is None and (known is None or not all(is_within(item.path, known.new) for item in self.items)):
            return self
        where = os.path.abspath(root) if root is not None else cast("Move", known).new  # noqa: PTH100 (keeps links)
        receipt = next(store.each_receipt(), None)
        if run is None or receipt is None:
            raise InputError(
                f"root is for a dump whose sources have moved: nothing of '{printable(store.path)}' is computed"
            )
        first = receipt.shard * run["fingerprint"]["shard_size"]
        if first >= len(self.items):
            raise InputError(f"the sources in '{printable(where)}' have {len(self.items)} pictures: too few")
        move = Move.between(receipt.entries[0].path, self.items[first], where)
        return self if move is None else replace(self, items=tuple(map(move.begun, self.items)), moved=move)

    def agree(self, store: Store) -> Run:
        """The content of the store's run.json, or what to write to it if there is none.

        Raises `StoreError` if run.json describes another run.
        """
        found = store.run()
        theirs: Run = {} if found is None else found["fingerprint"]
        ours = self._fingerprint(theirs)
        if found is None:
            return self.content(theirs)
        if different := differences({**_DEFAULTS, **theirs}, {**_DEFAULTS, **ours}):
            if theirs["inputs"] != ours["inputs"] and (changed := self._changed(store, theirs["shard_size"])):
                different = [*(text for text in different if not text.startswith("inputs.sha256")), changed]
            raise StoreError(
                f"'{printable(store.path)}' was begun with {'; '.join(different)}: "
                "ask for the same, or name another folder" + self._way_to_append(store, theirs)
            )
        rest = {name: value for name, value in found.items() if name != "moved"}
        return rest if self.moved is None else rest | {"moved": asdict(self.moved)}

    def content(self, theirs: Run) -> Run:
        """The run.json of this request. Sizes of None are taken from the fingerprint `theirs`."""
        ours = self._fingerprint(theirs)
        shards = -(-len(self.items) // ours["shard_size"])
        return {"fingerprint": ours, "shards": shards, "weights": self.recipe.weights, "machine": self._machine()}

    def _way_to_append(self, store: Store, theirs: Run) -> str:
        """A hint on appending, for an error: empty if this request adds nothing to the dump."""
        if store.appends:
            return "; an append to it was interrupted, which the same command continues"
        more = len(self.items) > theirs["inputs"]["count"] or not {*self.recipe.layers} <= {*theirs["layers"]}
        return ", or append what is new (append, --append)" if more else ""

    def _changed(self, store: Store, shard_size: int) -> str:
        """The first picture that differs from those of the dump's complete shards, for an error; empty if none does."""
        known = (
            (receipt.shard * shard_size + place, entry.id, entry.path)
            for receipt in store.each_receipt()
            for place, entry in enumerate(receipt.entries)
        )
        changed = first_difference(known, self.items)
        return f"other pictures ({changed} now; if its folder has moved, name the folder with root)" if changed else ""

    def tasks(self, run: Run, done: Container[int]) -> list[ShardTask]:
        """The shards that are not `done`."""
        size: int = run["fingerprint"]["shard_size"]
        return [
            ShardTask(number, self.items[number * size : (number + 1) * size])
            for number in range(run["shards"])
            if number not in done
        ]

    def job(self, run: Run, store: Store) -> DumpJob:
        """The job for the workers."""
        about = run["fingerprint"]
        return DumpJob(
            out=str(store.path.absolute()),
            recipe=self.recipe,
            batch_size=about["batch_size"],
            device=str(self.device),
            digest=about["weights"]["sha256"],
            moved=self.moved,
        )

    def _fingerprint(self, theirs: Run) -> dict[str, Any]:
        # A dump of an earlier version does not record the preprocessing.
        known = theirs.get("weights")
        batch = self.batch_size or theirs.get("batch_size") or self._default_batch()
        return self.recipe.as_dict() | {
            "weights": {name: value for name, value in self._weights.items() if name in (known or self._weights)},
            "device": self.device.type,
            "batch_size": batch,
            "shard_size": self.shard_size or theirs.get("shard_size") or self._default_shard(batch),
            "inputs": {"count": len(self.items), "sha256": fingerprint(self.items)},
            "versions": {name: version(name) for name in ("vggfeat", "torch", "pillow")},
        }

    @cached_property
    def _weights(self) -> dict[str, Any]:
        recipe = self.recipe
        state, entry = load_weights(recipe)
        return {
            "name": entry.name,
            "sha256": weights_digest(recipe, state),
            "mean": list(entry.mean),
            "std": list(entry.std),
            "input_order": entry.input_order,
        }

    @property
    def _side(self) -> tuple[int, int]:
        return self.recipe.fixed_side or (USUAL_SIDE, USUAL_SIDE)

    def _default_batch(self) -> int:
        height, width = self._side
        usual = _CPU_BATCH if self.device.type == "cpu" else _GPU_BATCH
        return max(1, min(usual, usual * USUAL_SIDE**2 // (height * width)))

    def _default_shard(self, batch: int) -> int:
        size, _ = cost(self.recipe, [self._side])
        pictures = max(1, min(_SHARD_PICTURES, _SHARD_BYTES // max(1, size)))
        return max(batch, pictures // batch * batch)

    def _machine(self) -> dict[str, Any]:
        """The machine that begins the dump: versions, processor or card. Recorded, not compared.

        Other processors may round differently. `algorithms`: {convolution: its algorithm}, for images of the recipe's
        size, or of 224x224 pixels if sizes differ.
        """
        recipe = self.recipe
        stack = arch.layers(recipe.network, pooling=recipe.pooling)
        deepest = [layer.index for layer in stack if layer.name in recipe.layers]
        last = stack[-1].index if recipe.reads_classifier is not False else max(deepest)
        dtype = resolve_precision(recipe.precision, self.device)
        chosen = algorithms.by_layer(stack[: last + 1], *self._side, dtype=dtype, device=self.device)
        # The fingerprint holds the device and the version of torch.
        about = {name: text for name, text in describe(self.device).items() if name not in {"device", "torch"}}
        return {"python": platform.python_version(), **about, "algorithms": {**chosen}}
