"""What a run is asked to compute, and whether it matches the dump that is already in the folder."""

import platform
from collections.abc import Container, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from typing import Any

import torch

from vggfeat.dumps.errors import StoreError
from vggfeat.dumps.estimate import USUAL_SIDE, cost
from vggfeat.dumps.network import load_weights, weights_digest
from vggfeat.dumps.recipe import DumpRecipe, differences
from vggfeat.dumps.sources import Item, fingerprint, printable
from vggfeat.dumps.store import Store
from vggfeat.dumps.work import DumpJob, ShardTask
from vggfeat.features import algorithms
from vggfeat.features.device import describe, resolve_precision
from vggfeat.networks import arch

# The limits of one shard, which is what a kill costs.
_SHARD_BYTES = 256 * 2**20
_SHARD_PICTURES = 256

_CPU_BATCH = 16
_GPU_BATCH = 64

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

    def agree(self, store: Store) -> Run:
        """The content of the store's run.json, or what to write to it if there is none.

        Raises `StoreError` if run.json describes another run.
        """
        found = store.run()
        theirs: Run = {} if found is None else found["fingerprint"]
        ours = self._fingerprint(theirs)
        if found is None:
            shards = -(-len(self.items) // ours["shard_size"])
            return {"fingerprint": ours, "shards": shards, "weights": self.recipe.weights, "machine": self._machine()}
        if different := differences(theirs, ours):
            raise StoreError(
                f"'{printable(store.path)}' was begun with {'; '.join(different)}: "
                "ask for the same, or name another folder"
            )
        return found

    def tasks(self, run: Run, done: Container[int]) -> list[ShardTask]:
        """The shards that are not `done`."""
        size: int = run["fingerprint"]["shard_size"]
        return [
            ShardTask(number, self.items[number * size : (number + 1) * size])
            for number in range(run["shards"])
            if number not in done
        ]

    def job(self, run: Run, store: Store) -> DumpJob:
        """What the workers need to know."""
        about = run["fingerprint"]
        return DumpJob(
            out=str(store.path.absolute()),
            recipe=self.recipe,
            batch_size=about["batch_size"],
            device=str(self.device),
            digest=about["weights"]["sha256"],
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
        """Where the dump was begun. Recorded but not compared: other processors may round differently.

        On CUDA it names the card, and the versions of CUDA and cuDNN.
        `algorithms` names the algorithm of each convolution, for images of the usual side if the recipe fixes none.
        """
        recipe = self.recipe
        stack = arch.layers(recipe.network, pooling=recipe.pooling)
        deepest = [layer.index for layer in stack if layer.name in recipe.layers]
        last = stack[-1].index if recipe.reads_classifier is not False else max(deepest)
        dtype = resolve_precision(recipe.precision, self.device)
        chosen = algorithms.by_layer(stack[: last + 1], *self._side, dtype=dtype, device=self.device)
        about = {name: text for name, text in describe(self.device).items() if name not in {"device", "torch"}}
        return {
            "python": platform.python_version(),
            **about,
            "algorithms": {**chosen},
        }  # the fingerprint has the others
