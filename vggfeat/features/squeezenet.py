"""The SqueezeNet 1.1 of torchvision as a frozen trunk, which LPIPS is defined on too."""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Self

import torch
from torch import Tensor
from torchvision.models import squeezenet1_1  # pyright: ignore[reportMissingTypeStubs] (untyped upstream)

from vggfeat.errors import WeightsError
from vggfeat.features.device import Precision, choose_device, resolve_precision
from vggfeat.features.trunk import Check, Trunk
from vggfeat.networks import weights as weights_table
from vggfeat.networks.weights import WeightsLike
from vggfeat.pictures.ranges import InputRange

# Three poolings by 2, rounded up, after a convolution of stride 2 without padding.
_SQUEEZE_MINIMUM = 17


class SqueezeNet(Trunk):
    """torchvision's SqueezeNet 1.1, which torchvision also downloads, tapped at numbers of its `features`."""

    def __init__(
        self,
        layers: Sequence[str],
        *,
        weights: WeightsLike,
        precision: Precision,
        device: str | torch.device | None,
        mean: weights_table.Triple = weights_table.IMAGENET_MEAN,
        std: weights_table.Triple = weights_table.IMAGENET_STD,
        input_range: InputRange,
        check: Check,
    ) -> None:
        super().__init__(layers, mean=mean, std=std, input_range=input_range, check=check, minimum=_SQUEEZE_MINIMUM)
        place = choose_device(device)
        self.dtype = resolve_precision(precision, place)
        features = squeezenet1_1(weights=None).features.requires_grad_(requires_grad=False)
        features.load_state_dict(_squeezenet_state(weights))
        # Out of this module's children, so that a parent sees neither its parameters nor its keys.
        self._features = [features.to(place, self.dtype)]
        self._set_normalisation(place)

    @property
    def name(self) -> str:
        """The network, for messages."""
        return "squeezenet1_1"

    def run(self, x: Tensor) -> dict[str, Tensor]:
        """The features of images that are checked, normalised and of the trunk's precision."""
        found: dict[str, Tensor] = {}
        for index, module in enumerate(self._features[0]):
            x = module(x)
            if f"features.{index}" in self.layers:
                found[f"features.{index}"] = x
        return found

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._features[0]._apply(fn, recurse)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage, reportUnknownMemberType]
        return super()._apply(fn, recurse)


def _squeezenet_state(weights: WeightsLike) -> dict[str, Tensor]:
    """The `features` of a SqueezeNet state dict: torchvision's, a file's, a mapping's, or random ones for None."""
    from torchvision.models import SqueezeNet1_1_Weights  # pyright: ignore[reportMissingTypeStubs] (untyped upstream)

    if weights is None:
        return squeezenet1_1(weights=None).features.state_dict()
    if isinstance(weights, Mapping):
        state = weights
    elif weights in ("default", "imagenet1k_v1"):
        state = weights_table.read_state(_torchvisions_file(SqueezeNet1_1_Weights.IMAGENET1K_V1.url))
    else:
        state = weights_table.read_state(Path(weights))
    return {key.removeprefix("features."): x for key, x in state.items() if key.startswith("features.")}


def _torchvisions_file(url: str) -> Path:
    """The file that torchvision downloads from `url`, where torchvision keeps it: downloaded if it is not there yet.

    torchvision's own way there prints on standard output.
    """
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    file = folder / PurePath(url).name
    net, _, digits = file.stem.partition("-")
    try:
        if not file.exists():
            folder.mkdir(parents=True, exist_ok=True)
            # A process may be started without a standard error.
            shown = sys.stderr is not None and sys.stderr.isatty()  # pyright: ignore[reportUnnecessaryComparison]
            torch.hub.download_url_to_file(url, str(file), digits, progress=shown)  # pyright: ignore[reportUnknownMemberType] (untyped upstream)
    except (OSError, RuntimeError) as error:
        raise WeightsError(
            f"the weights of {net} are not bundled and could not be downloaded ({error}); those of vgg and alex are; "
            f"or put torchvision's {file.name} into '{folder}', or in Python pass a file's path as weights"
        ) from error
    return file
