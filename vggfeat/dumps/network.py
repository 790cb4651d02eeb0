"""Runs the network of a dump and reduces its features."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from vggfeat.dumps.prepare import Pixels
from vggfeat.dumps.recipe import DumpRecipe
from vggfeat.dumps.reductions import reduce
from vggfeat.dumps.stored import StoredBatch, store_batch
from vggfeat.errors import VggfeatError
from vggfeat.features.device import choose_device, is_out_of_memory
from vggfeat.features.extractor import FeatureExtractor
from vggfeat.networks import weights as weights_table

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """The features of a batch, {layer: (N, C, H, W)}, and its outputs, {(layer, reduction): (N, ...) float32}.

    Both are on the network's device.
    """

    features: Mapping[str, Tensor]
    outputs: Mapping[tuple[str, str], Tensor]


class DumpNetwork:
    """Maps a batch of images to the outputs of a recipe.

    `digest` is the expected `weights_digest`. Raises `VggfeatError` if the weights found here have another one.
    """

    def __init__(self, recipe: DumpRecipe, *, digest: str, device: str = "auto") -> None:
        self.recipe = recipe
        self._device = choose_device(device)
        state, entry = load_weights(recipe)
        if (found := weights_digest(recipe, state)) != digest:
            raise VggfeatError(
                f"the weights of {recipe.network} are not those of the run: {found[:16]}, not {digest[:16]}"
            )
        self._extract = FeatureExtractor(
            recipe.network,
            recipe.layers,
            weights=state,
            mean=entry.mean,
            std=entry.std,
            input_order="rgb",
            precision=recipe.precision,
            pooling=recipe.pooling,
            check="off",
            device=self._device,
        )

    def __call__(self, pixels: Pixels) -> Outcome | str:
        """Run (N, 3, H, W) images in [0, 1]. Returns the reason instead if memory is too small for a single image.

        Raises `VggfeatError` if memory is too small for a batch of several: the batch size is part of what a run
        computes, so it is not reduced here.
        """
        return self._run(pixels, lambda outcome: outcome)

    def stored(self, pixels: Pixels) -> Callable[[], StoredBatch] | str:
        """Run images as `__call__` does. Returns a function that waits for their stored form."""
        return self._run(
            pixels,
            lambda outcome: store_batch(
                outcome.features, outcome.outputs, dtype=self.recipe.dtype, measures=self.recipe.measures
            ),
        )

    def _run(self, pixels: Pixels, finish: Callable[[Outcome], _T]) -> _T | str:
        height, width = pixels.shape[2:]
        try:
            with torch.inference_mode():
                found = self._extract(_moved(torch.as_tensor(pixels), self._device))
                # Linear layers have one position.
                features = {name: x if x.ndim == 4 else x[:, :, None, None] for name, x in found.items()}
                outputs = {
                    (layer, reduction): reduce(features[layer], reduction, layer=layer, seed=self.recipe.seed)
                    for layer, reduction in self.recipe.outputs
                }
                vectors = {(name, "full") for name, x in found.items() if x.ndim == 2}
                outputs = {output: x.flatten(1) if output in vectors else x for output, x in outputs.items()}
                return finish(Outcome(features, outputs))
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if len(pixels) > 1:
                raise VggfeatError(
                    f"out of memory at {len(pixels)} pictures of {width}x{height} pixels: "
                    "begin again with a smaller batch size"
                ) from error
            return f"the network ran out of memory at {width}x{height} pixels"


def _moved(pixels: Tensor, device: torch.device) -> Tensor:
    """`pixels` on `device`. From memory that is not pinned, a copy to CUDA would wait for the batch before."""
    return pixels.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else pixels.to(device)


def load_weights(recipe: DumpRecipe) -> tuple[dict[str, Tensor], weights_table.WeightsEntry]:
    """The weights of a recipe, with the classifier if it is read, and their entry. Raises `WeightsError`."""
    return weights_table.load(
        recipe.network,
        recipe.weights,
        seed=recipe.seed,
        classifier=recipe.reads_classifier,
        **recipe.preprocessing,
    )


def weights_digest(recipe: DumpRecipe, state: Mapping[str, Tensor]) -> str:
    """A sha256 over the fingerprints of all layers, to tell weights apart."""
    prints = weights_table.fingerprints(recipe.network, state)
    for key, x in state.items():
        if key.startswith("classifier."):
            prints[key] = hashlib.sha256(x.contiguous().numpy().tobytes()).hexdigest()[:16]
    return hashlib.sha256(" ".join(f"{layer} {digest}" for layer, digest in prints.items()).encode()).hexdigest()
