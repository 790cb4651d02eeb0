"""The network of a run, and the evaluation of an objective within the memory there is."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from vggfeat.features.device import Precision, is_out_of_memory
from vggfeat.features.extractor import FeatureExtractor
from vggfeat.losses.base import Features
from vggfeat.transfer.blocks import Blockwise, Whole
from vggfeat.transfer.objective import Term, WeightedLoss
from vggfeat.transfer.optimise import LossAndGradient
from vggfeat.transfer.recipe import Edges, Recipe
from vggfeat.transfer.tiles import Blocks

_LEAST_SIDE = 64


def extractor(
    recipe: Recipe, layers: Iterable[str], device: torch.device, precision: Precision = "float32"
) -> FeatureExtractor:
    """The recipe's network up to the deepest of `layers`; it checks no values."""
    return FeatureExtractor(
        recipe.network,
        layers,
        weights=recipe.weights,
        pooling=recipe.pooling,
        precision=precision,
        check="off",
        device=device,
        **recipe.preprocessing,
    )


class Evaluator:
    """Evaluates an objective on the whole picture or in blocks, and halves the blocks when memory runs out.

    Args:
        extract: the network.
        margin: pixels added around a picture, as in `Recipe`.
        edges: what the margin holds, as in `Recipe`.
        blocks: how to divide the picture; None evaluates it whole.
    """

    def __init__(
        self, extract: FeatureExtractor, margin: int, edges: Edges = "mirror", blocks: Blocks | None = None
    ) -> None:
        self._extract = extract
        self._margin = margin
        self._edges: Edges = edges
        self._method = self._divided(blocks)

    @property
    def blocks(self) -> Blocks | None:
        """How the picture is divided at present; None if it is not."""
        return self._method.blocks

    def features(self, image: Tensor) -> Features:
        """The features of `image` (1, 3, H, W) that the losses read."""
        return self._method.features(image)

    def sizes(self, image: Tensor) -> dict[str, tuple[int, int]]:
        """{layer: (height, width)} of those features."""
        return self._method.sizes(image)

    def targets(self, image: Tensor, losses: Sequence[WeightedLoss], masks: Features | None = None) -> list[Features]:
        """The target of each loss, computed from `image` (1, 3, H, W).

        `masks`: {layer: how much each position counts, (1, 1, h, w) in [0, 1]}; None counts all positions.
        """
        return self._method.targets(image, losses, masks)

    def evaluate(self, terms: Sequence[Term], image: Tensor) -> LossAndGradient:
        """The objective at `image` (1, 3, H, W) and its gradient.

        When memory runs out, this and all later calls use smaller blocks. Raises the error of running out of memory
        if the smallest blocks do not fit.
        """
        while True:
            try:
                return self._method.evaluate(terms, image)
            except (MemoryError, RuntimeError) as error:
                smaller = _smaller(self.blocks, image)
                if not is_out_of_memory(error) or smaller.side < _LEAST_SIDE:
                    raise
            # Outside the handler, whose traceback would keep the tensors alive.
            if image.is_cuda:
                torch.cuda.empty_cache()
            self._method = self._divided(smaller)

    def _divided(self, blocks: Blocks | None) -> Whole:
        if blocks is None:
            return Whole(self._extract, self._margin, self._edges)
        return Blockwise(self._extract, self._margin, blocks, self._edges)


def _smaller(blocks: Blocks | None, image: Tensor) -> Blocks:
    """The next smaller blocks to try: every part in tiles, at first of half the long side."""
    if blocks is None:
        return Blocks(max(image.shape[2:]) // 2)
    return Blocks(blocks.side // 2 if blocks.tiled is None else blocks.side)
