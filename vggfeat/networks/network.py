"""A network as a trainable torch module, and its files.

The submodules have torchvision's names, so state dicts of its eight VGGs can be exchanged in both directions.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, Unpack, get_args

import torch
from torch import Tensor, nn

from vggfeat.errors import InputError, LayerError, WeightsError, check_number, one_of
from vggfeat.networks import arch, checkpoints
from vggfeat.networks import weights as weights_table
from vggfeat.networks.naming import with_torchvision_keys
from vggfeat.networks.weights import IMAGENET_MEAN, IMAGENET_STD, Triple

Init = Literal["torchvision", "paper", "glorot"]
Config = str | arch.Network | Iterable[int | str | arch.Conv | arch.Pool]


class VGG(nn.Module):
    """A VGG: `features`, `avgpool` and `classifier`, as torchvision names them.

    It maps normalised images, (N, in_channels, H, W), to (N, classes) logits, or without a head to the activation of
    the last layer. Normalised means `(image - mean) / std` for an image in [0, 1]; see `normalise`. Use `vgg` to build
    one.

    `classes` are the names of the outputs, or their numbers as text. `size` and `resize` are the preprocessing of
    pictures: resize the shorter side to `resize` pixels, then crop the central `size` x `size`.

    >>> model = vgg("8,M,16", head="gap", num_classes=3, seed=0)
    >>> model(model.normalise(torch.rand(2, 3, 32, 32))).shape
    torch.Size([2, 3])
    >>> model.network.name, model.classes
    ('8,M,16', ('0', '1', '2'))
    """

    def __init__(
        self,
        network: arch.Network,
        *,
        head: arch.Head | None,
        classes: Sequence[str],
        hidden: int,
        dropout: float,
        mean: Triple = IMAGENET_MEAN,
        std: Triple = IMAGENET_STD,
        size: int = 224,
        resize: int = 256,
    ) -> None:
        super().__init__()
        self.network = network
        self.head: arch.Head | None = head
        self.classes = tuple(classes)
        self.hidden = hidden
        self.mean, self.std = mean, std
        self.size, self.resize = size, resize
        self.features = nn.Sequential(*(_module(layer) for layer in arch.layers(network)))
        self.avgpool = nn.Identity()
        self.classifier = nn.Sequential()
        shapes = arch.head_shapes(network, head, len(classes), hidden=hidden)
        linear = [nn.Linear(shape[1], shape[0]) for key, shape in shapes.items() if key.endswith("weight")]
        if head == "paper":
            self.avgpool = nn.AdaptiveAvgPool2d(arch.HEAD_SIDE)
            first, second, last = linear
            for layer in (first, second):
                self.classifier.extend([layer, _activation(network.slope), nn.Dropout(dropout)])
            self.classifier.append(last)
        elif head == "gap":
            self.avgpool = nn.AdaptiveAvgPool2d(1)
            self.classifier.extend(linear)

    def forward(self, x: Tensor) -> Tensor:
        """The logits of normalised images: (N, in_channels, H, W) -> (N, classes)."""
        x = self.features(x)
        return x if self.head is None else self.classifier(torch.flatten(self.avgpool(x), 1))

    def normalise(self, images: Tensor) -> Tensor:
        """Normalise images in [0, 1]: (N, in_channels, H, W). Raises `InputError` for other shapes."""
        channels = self.network.in_channels
        if images.ndim != 4 or images.shape[1] != channels:
            raise InputError(f"images are {'x'.join(map(str, images.shape))}, not (N, {channels}, H, W)")
        mean, std = (_per_channel(values[:channels], images) for values in (self.mean, self.std))
        return (images - mean) / std

    def extra_repr(self) -> str:
        """The text that `print` shows after the class name."""
        return f"{self.network.name}, head={self.head}, classes={len(self.classes)}"


def vgg(
    config: Config = "D",
    *,
    batch_norm: bool = False,
    activation: arch.Activation = "relu",
    slope: float | None = None,
    num_classes: int = 1000,
    in_channels: int | None = None,
    head: arch.Head | None = "paper",
    hidden: int = 4096,
    dropout: float = 0.5,
    init: Init = "torchvision",
    seed: int | None = None,
    device: str | torch.device | None = None,
) -> VGG:
    """Build a VGG with new weights.

    Args:
        config: a name of `arch.NETWORKS` (`A-LRN`, `vgg16_bn`), or a plan: `[64, 64, "M", 128]` or `64,64,M,128`.
        batch_norm: normalise the output of every convolution.
        activation: `relu` or `leaky_relu`, also in the head.
        slope: the negative slope of `leaky_relu`; 0.01 by default.
        num_classes: outputs of the head.
        in_channels: channels of the images; by default those of `config`, normally 3.
        head: `paper` (7x7 average pool, two layers of `hidden` units with dropout, one of `num_classes`), `gap` (the
            average over the image and one linear layer), or None.
        hidden: units of each hidden layer of the paper's head.
        dropout: probability of dropping a unit of the hidden layers during training.
        init: `torchvision` (He et al., fan out; linear layers with a standard deviation of 0.01), `paper` (normal with
            a variance of 0.01 throughout, section 3.1) or `glorot` (Glorot & Bengio; with it, the paper's authors found
            pre-training unnecessary). Biases are 0.
        seed: seed of the weights; None uses torch's global generator.
        device: device of the weights; `meta` allocates none.

    Raises `LayerError` for an unknown network, `InputError` for other invalid options.

    >>> model = vgg("D", device="meta")
    >>> sum(parameter.numel() for parameter in model.parameters())
    138357544
    """
    one_of("activation", activation, get_args(arch.Activation))
    one_of("init", init, get_args(Init))
    if head is not None:
        one_of("head", head, get_args(arch.Head))
    if slope is not None and activation == "relu":
        raise InputError("slope needs activation='leaky_relu'")
    check_number("num_classes", num_classes, 1)
    check_number("hidden", hidden, 1)
    if not 0 <= dropout < 1:
        raise InputError(f"dropout is {dropout:g}: it must be in [0, 1)")
    if activation == "leaky_relu" and slope is None:
        slope = arch.DEFAULT_SLOPE
    network = arch.network(config, batch_norm=batch_norm, slope=slope, in_channels=in_channels)
    if head == "paper" and not arch.is_vgg(network):
        raise LayerError("alexnet is not a VGG, and its head is not the paper's: pass head='gap' or None")
    with torch.device("meta"):
        model = VGG(network, head=head, classes=[str(n) for n in range(num_classes)], hidden=hidden, dropout=dropout)
    place = torch.device(device) if device is not None else torch.get_default_device()
    if place.type != "meta":
        model.to_empty(device=place)
        initialise(model, init, seed=seed)
    return model


def initialise(model: nn.Module, init: Init = "torchvision", *, seed: int | None = None) -> None:
    """Draw new weights for all convolutions and linear layers, and reset batch normalisation. See `vgg`.

    >>> model = vgg("8,M", head=None, seed=1)
    >>> initialise(model, "glorot", seed=0)
    """
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
        elif isinstance(module, nn.Conv2d | nn.Linear):
            generator = None
            if seed is not None:
                generator = torch.Generator(module.weight.device).manual_seed(seed)
                seed += 1
            _draw(module, init, generator)


def _draw(module: nn.Conv2d | nn.Linear, init: Init, generator: torch.Generator | None) -> None:
    if init == "paper":
        nn.init.normal_(module.weight, std=0.1, generator=generator)
    elif init == "glorot":
        nn.init.xavier_uniform_(module.weight, generator=generator)
    elif isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)
    else:
        nn.init.normal_(module.weight, std=0.01, generator=generator)
    if module.bias is not None:
        nn.init.zeros_(module.bias)


def _per_channel(values: Sequence[float], images: Tensor) -> Tensor:
    """(1, C, 1, 1) on the device of `images`, and filled there: a copy from the CPU would wait for the GPU."""
    return torch.cat([images.new_full((1, 1, 1, 1), value) for value in values], dim=1)


def _activation(slope: float) -> nn.Module:
    # Not in place: that would overwrite what a forward hook on the convolution keeps, and forbid backward hooks.
    return nn.LeakyReLU(slope) if slope else nn.ReLU()


def _module(layer: arch.Layer) -> nn.Module:
    match layer.kind:
        case "conv":
            return nn.Conv2d(layer.in_channels, layer.channels, layer.kernel, layer.step, layer.padding)
        case "bn":
            return nn.BatchNorm2d(layer.channels)
        case "relu":
            return _activation(layer.slope)
        case "lrn":
            return nn.LocalResponseNorm(*arch.LRN)
        case "pool":
            return nn.MaxPool2d(layer.kernel, layer.step, layer.padding)
        case "avgpool" | "fc":
            raise LayerError(f"{layer.name} is part of a head, not of the features")


def save(model: VGG, path: str | os.PathLike[str], *, source: str = "") -> None:
    """Write a network as a safetensors file with its description, which `load` and `weights=PATH` read. Atomic.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     save(vgg("8,M", head="gap", num_classes=2, seed=0), f"{folder}/own.safetensors")
    ...     load(f"{folder}/own.safetensors").classes
    ('0', '1')
    """
    state = {key: tensor.detach().cpu().contiguous() for key, tensor in model.state_dict().items()}
    features = {key: state[key].float() for key in arch.state_shapes(model.network)}
    about = {"weights": Path(path).stem, "source": source, "licence": "", **_preprocessing(model)}
    checkpoints.write(Path(path), model.network.name, features, state, **about)


def _preprocessing(model: VGG) -> dict[str, Any]:
    return {
        "head": model.head,
        "hidden": model.hidden,
        "classes": list(model.classes),
        "mean": list(model.mean),
        "std": list(model.std),
        "size": model.size,
        "resize": model.resize,
    }


def load(
    path: str | os.PathLike[str],
    network: str = "auto",
    *,
    dropout: float = 0.5,
    **preprocessing: Unpack[weights_table.Preprocessing],
) -> VGG:
    """Load a network in evaluation mode, from a file that `save` wrote, or a state dict with torchvision's keys.

    `network` is the network's name; `auto` takes the one that the file records. The head is derived from the tensors.
    `preprocessing` replaces the mean, std and order of colours that the file records, see `weights.Preprocessing`; the
    network reads RGB. Raises `WeightsError` if the file cannot be read or does not fit. See `save` for an example.
    """
    path = Path(path)
    stored, about = checkpoints.read(path)
    state = with_torchvision_keys(checkpoints.decode(stored))
    known = arch.network(weights_table.network_for(network, path))
    features, entry = weights_table.load(known.name, path, **preprocessing)
    classifier = {key: tensor for key, tensor in state.items() if key.startswith("classifier.")}
    head, classes, hidden = arch.head_of({key: tuple(x.shape) for key, x in classifier.items()}, f"'{path}'")
    size = int(about.get("size", 224))
    names = [str(name) for name in about.get("classes", ())]
    with torch.device("meta"):
        model = VGG(
            known,
            head=head,
            classes=names if len(names) == classes else [str(number) for number in range(classes)],
            hidden=hidden,
            dropout=dropout,
            mean=entry.mean,
            std=entry.std,
            size=size,
            resize=int(about.get("resize", 256)),
        )
    model.to_empty(device="cpu")
    counters = {
        key: state.get(key, torch.tensor(0, device="cpu"))
        for key in model.state_dict()
        if key.endswith("batches_tracked")
    }
    try:
        model.load_state_dict({**features, **counters, **{k: v.float() for k, v in classifier.items()}})
    except RuntimeError as error:
        reason = " ".join(str(error).partition(":\n")[2].split())
        raise WeightsError(f"'{path}' does not fit {known.name} with the {head} head: {reason}") from error
    return model.eval()
