"""Classify pictures with a trained VGG."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor

from vggfeat.errors import InputError, did_you_mean, similar
from vggfeat.explore.cam import CamMethod, class_activation
from vggfeat.features import tensors
from vggfeat.features.device import Precision, choose_device, choose_precision, resolve_precision, settings
from vggfeat.networks import arch, checkpoints, network
from vggfeat.networks import weights as weights_table
from vggfeat.pictures import images, sources
from vggfeat.pictures.ranges import check_range
from vggfeat.pictures.sources import Source


@dataclass(frozen=True, slots=True)
class Prediction:
    """A class with its index, its name and its probability, from 0 to 1."""

    index: int
    name: str
    probability: float


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """Where in a picture the evidence for classes lies.

    Attributes:
        picture: (1, 3, size, size), the square that is classified.
        predictions: the K classes.
        maps: {layer: (K, 1, size, size)}, one map for each class, in [0, 1].
        method: of the maps.
    """

    picture: Tensor
    predictions: tuple[Prediction, ...]
    maps: Mapping[str, Tensor]
    method: CamMethod


class Classifier:
    """Classifies pictures with a VGG and its linear layers.

    Args:
        network: a name of `arch.NETWORKS`; `auto` is the one that the file records or its shapes tell, and `vgg16` for
            `imagenet1k_v1`.
        weights: `imagenet1k_v1`, which is downloaded once (about 550 MB) and checked against its hash; or a file from
            `vggfeat train`, a state dict with torchvision's keys, or a file of Keras or MatConvNet.
        device: `auto` (CUDA, else MPS, else the CPU) or a torch device.
        precision: of the network's arithmetic.
        preprocessing: `mean`, `std` and `input_order` of the weights, see `weights.Preprocessing`.

    A file from `vggfeat train` contains its classes, mean, standard deviation and picture size. A state dict with
    torchvision's keys and 1000 classes is assumed to have those of ImageNet.

    Raises `LayerError`, `WeightsError`, and `InputError` for weights without linear layers.

    >>> import tempfile
    >>> from vggfeat.networks.network import save, vgg
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     model = vgg("4,M,8", head="gap", num_classes=3)
    ...     model.classes, model.size, model.resize = ("cat", "dog", "fox"), 16, 16
    ...     save(model, f"{folder}/pets.safetensors")
    ...     classify = Classifier(weights=f"{folder}/pets.safetensors", device="cpu")
    >>> classify.probabilities(torch.zeros(2, 3, 20, 30)).shape
    torch.Size([2, 3])
    >>> classify.cam(torch.zeros(3, 20, 30), classes=["dog"]).maps["relu2_1"].shape
    torch.Size([1, 1, 16, 16])
    >>> sorted(prediction.name for prediction in classify(torch.zeros(3, 20, 30), top=5))
    ['cat', 'dog', 'fox']
    """

    def __init__(
        self,
        network: str = "auto",
        weights: str | os.PathLike[str] = "imagenet1k_v1",
        *,
        device: str = "auto",
        precision: Precision = "float32",
        **preprocessing: Unpack[weights_table.Preprocessing],
    ) -> None:
        place = choose_device(device)
        self.precision, self.dtype = choose_precision(precision, place), resolve_precision(precision, place)
        self.model = _load(network, weights, preprocessing).to(device=place, dtype=self.dtype)
        self.model.to(memory_format=torch.channels_last)
        self.classes: tuple[str, ...] = self.model.classes

    def cam(
        self,
        picture: Source,
        layers: str | Sequence[str] | None = None,
        *,
        classes: Sequence[str | int] = (),
        top: int = 1,
        method: CamMethod = "grad-cam",
    ) -> "Explanation":
        """Where in a picture the evidence for classes lies, by Grad-CAM or Layer-CAM.

        Args:
            picture: a file, a (1, 3, H, W) or (3, H, W) tensor in [0, 1], or another `sources.Source`.
            layers: layers such as `relu5_3`; None is the last one before the last pooling.
            classes: names or numbers of classes; none means the `top` most probable ones.
            top: the number of classes.
            method: `grad-cam` or `layer-cam`, as in `vggfeat.explore.cam.class_activation`.

        Raises `ImageError`, `LayerError`, and `InputError` for an unknown class.
        """
        square, x = self._prepared(sources.read(picture))
        with torch.inference_mode(), settings(square.device, self.precision):
            [probabilities] = self.model(x).float().softmax(1)
        best = tensors.values(probabilities.topk(min(top, len(self.classes))).indices)
        chosen = [self._number(each) for each in classes] or [int(index) for index in best]
        named = [layers] if isinstance(layers, str) else list(layers or [self._last_layer()])
        maps: dict[str, Tensor] = {}
        for layer in named:
            with settings(square.device, self.precision):
                found = class_activation(self.model, x.expand(len(chosen), -1, -1, -1), layer, chosen, method=method)
            maps[layer] = found.shares(*square.shape[2:]).cpu()
        shares = tensors.values(probabilities)
        predictions = tuple(Prediction(number, self.classes[number], float(shares[number])) for number in chosen)
        return Explanation(square.cpu(), predictions, maps, method)

    def _number(self, name: str | int) -> int:
        """The number of a class, given by number or name."""
        number = int(name) if isinstance(name, int) or name.isdecimal() else -1
        if isinstance(name, str) and name in self.classes:
            number = self.classes.index(name)
        if not 0 <= number < len(self.classes):
            words = similar(str(name), self.classes)
            hint = did_you_mean(words) if words else f"there are 0 to {len(self.classes) - 1}, and their names"
            raise InputError(f"unknown class '{name}': {hint}")
        return number

    def _last_layer(self) -> str:
        known = [layer for layer in arch.layers(self.model.network) if layer.kind in ("relu", "conv")]
        return known[-1].name

    @torch.inference_mode()
    def probabilities(self, pictures: Tensor) -> Tensor:
        """The probability of each class: RGB (N, 3, H, W) in [0, 1] -> float32 (N, classes) on the CPU.

        The shorter side is resized to the network's `resize` pixels, and the central square is classified. Raises
        `InputError` for another shape or range.
        """
        square, x = self._prepared(pictures)
        with settings(square.device, self.precision):
            logits = self.model(x)
        return logits.float().softmax(1).cpu()

    def _prepared(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """The central squares of pictures, (N, 3, size, size) in [0, 1], and the network's input."""
        if pictures.ndim != 4 or pictures.shape[1] != 3 or not pictures.is_floating_point():
            raise InputError(f"pictures are {pictures.dtype} {tuple(pictures.shape)}, not floats (N, 3, H, W)")
        check_range(pictures, "unit")
        place = next(self.model.parameters()).device
        square = images.middle_square(pictures.to(place, torch.float32), self.model.resize, self.model.size)
        x = self.model.normalise(square.mean(1, keepdim=True) if self.model.network.in_channels == 1 else square)
        return square, x.to(self.dtype).contiguous(memory_format=torch.channels_last)

    def __call__(self, picture: Source, *, top: int = 5) -> list[Prediction]:
        """The `top` most probable classes of a picture, most probable first. Raises `ImageError`, `InputError`."""
        [probabilities] = self.probabilities(sources.read(picture))
        best = probabilities.topk(min(top, len(self.classes)))
        return [
            Prediction(int(index), self.classes[int(index)], float(probability))
            for index, probability in zip(tensors.values(best.indices), tensors.values(best.values), strict=True)
        ]


def _load(name: str, weights: str | os.PathLike[str], preprocessing: weights_table.Preprocessing) -> network.VGG:
    path = weights_table.file_of(weights)
    if path is None:
        name = arch.network("vgg16" if name == "auto" else name).name
        path = weights_table.whole(name, str(weights))
    model = network.load(path, name, **preprocessing)
    if model.head is None:
        raise InputError(checkpoints.no_classifier(checkpoints.read_shapes(path), f"'{path}'"))
    numbered = model.classes == tuple(map(str, range(len(model.classes))))
    if numbered and len(model.classes) == 1000:
        from torchvision.models import VGG16_Weights

        model.classes = tuple(map(str, VGG16_Weights.IMAGENET1K_V1.meta["categories"]))
    return model
