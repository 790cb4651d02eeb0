"""A row of `arch` as a torch module, for training, for classifying, and for exchange with torchvision's checkpoints.

The modules carry torchvision's names: a state dict of its eight networks loads here and the other way round.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn

from vggfeat import files
from vggfeat.errors import InputError, LayerError, WeightsError, near
from vggfeat.networks import arch
from vggfeat.networks import weights as weights_table
from vggfeat.networks.weights import IMAGENET_MEAN, IMAGENET_STD, Triple

Init = Literal["torchvision", "paper", "glorot"]
Config = str | arch.Network | Iterable[int | str | arch.Conv | arch.Pool]

# Krizhevsky et al. (2012), as the paper cites them; torch divides alpha by the size.
_LRN = {"size": 5, "alpha": 5e-4, "beta": 0.75, "k": 2.0}


class VGG(nn.Module):
    """A VGG: `features`, `avgpool` and `classifier`, as torchvision names them.

    It reads normalised images, (N, in_channels, H, W): `(image - mean) / std` for an image in [0, 1]. It returns
    (N, classes) logits, or without a head the features of the last layer. Use `vgg` to build one.

    `classes` are the names of the outputs, numbers where nobody named them. `size` and `resize` say how pictures are
    brought to the network: the shorter side to `resize` pixels, then the middle `size` x `size`.
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
        """What the network reads of images in [0, 1]: (N, in_channels, H, W)."""
        channels = self.network.in_channels
        if images.ndim != 4 or images.shape[1] != channels:
            raise InputError(f"images are {'x'.join(map(str, images.shape))}, not (N, {channels}, H, W)")
        mean, std = (images.new_tensor(values[:channels]).reshape(1, -1, 1, 1) for values in (self.mean, self.std))
        return (images - mean) / std

    def extra_repr(self) -> str:
        """What `print` shows above the modules."""
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
        config: a name of `arch.NETWORKS` (`A-LRN`, `vgg16_bn`), a row as text, or a row: `[64, 64, "M", 128]`.
        batch_norm: normalise every convolution's output.
        activation: `relu` or `leaky_relu`, also in the head.
        slope: of `leaky_relu` below zero; 0.01 where it is left out.
        num_classes: outputs of the head.
        in_channels: of the images; 3 where neither this nor `config` says otherwise.
        head: `paper` (7x7 average pool, two layers of `hidden` units with dropout, one of `num_classes`), `gap` (the
            average over the image and one linear layer), or None.
        hidden: units of each hidden layer of the paper's head.
        dropout: share of those units that training leaves out.
        init: `torchvision` (He et al., fan out; linear layers with a deviation of 0.01), `paper` (normal with a
            variance of 0.01 throughout, section 3.1) or `glorot` (Glorot & Bengio, which the paper's authors found to
            make their pre-training unnecessary); biases are 0.
        seed: of the weights; None draws them from torch's own generator.
        device: where the weights are made; `meta` makes none.

    Raises `LayerError` for a network that does not exist, `InputError` for other options that do not.
    """
    for option, word, known in (
        ("activation", activation, get_args(arch.Activation)),
        ("init", init, get_args(Init)),
        ("head", head, (*get_args(arch.Head), None)),
    ):
        if word not in known:
            raise InputError(f"unknown {option} '{word}': {near(str(word), map(str, known))}")
    if slope is not None and activation == "relu":
        raise InputError("a slope belongs to activation='leaky_relu'")
    if num_classes < 1 or hidden < 1 or not 0 <= dropout < 1:
        raise InputError(
            f"num_classes {num_classes}, hidden {hidden}, dropout {dropout}: at least 1, at least 1, and in [0, 1)"
        )
    if activation == "leaky_relu" and slope is None:
        slope = arch.DEFAULT_SLOPE
    network = arch.row(config, batch_norm=batch_norm, slope=slope, in_channels=in_channels)
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
    """Draw the weights of every convolution and linear layer anew, and reset what is batch-normalised. See `vgg`."""
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
    if module.bias is not None:  # pyright: ignore[reportUnnecessaryComparison] (a Linear may have none)
        nn.init.zeros_(module.bias)


def _activation(slope: float) -> nn.Module:
    return nn.LeakyReLU(slope, inplace=True) if slope else nn.ReLU(inplace=True)


def _module(layer: arch.Layer) -> nn.Module:
    match layer.kind:
        case "conv":
            return nn.Conv2d(layer.in_channels, layer.channels, layer.kernel, layer.step, layer.padding)
        case "bn":
            return nn.BatchNorm2d(layer.channels)
        case "relu":
            return _activation(layer.slope)
        case "lrn":
            return nn.LocalResponseNorm(**cast("dict[str, Any]", _LRN))
        case "pool":
            return nn.MaxPool2d(layer.kernel, layer.step, layer.padding)


def stack_of(model: nn.Module) -> nn.Sequential:
    """The `features` of a VGG of any make, or a bare stack of layers itself. Raises `LayerError` for another module."""
    found = getattr(model, "module", model) if isinstance(model, nn.parallel.DistributedDataParallel) else model
    found = getattr(found, "features", found)
    if not isinstance(found, nn.Sequential):
        raise LayerError(f"a {type(model).__name__} has no `features` that is a torch.nn.Sequential")
    return found


def describe(features: nn.Sequential) -> arch.Network:
    """The row that a stack of modules was built from, such as the outcome of anybody's `make_layers(cfg)`.

    Raises `LayerError` where the stack is not one of convolutions, each with its activation, and of pools.
    """
    plan: list[int | str | arch.Conv | arch.Pool] = []
    slopes: set[float] = set()
    normalised: set[bool] = set()
    in_channels = 0
    kinds = [_kind(index, module) for index, module in enumerate(features)]
    for index, (kind, module) in enumerate(zip(kinds, features, strict=True)):
        follow = kinds[index + 1 : index + 3]
        if isinstance(module, nn.Conv2d):
            in_channels = in_channels or module.in_channels
            if follow[:1] != ["relu"] and follow != ["bn", "relu"]:
                raise LayerError(f"features.{index} is a convolution without an activation: no row describes it")
            normalised.add(follow[0] == "bn")
            (kernel, _), (step, _), (padding, _) = _square(index, module)
            conv = arch.Conv(module.out_channels, kernel, step, padding)
            plan.append(conv.channels if conv == arch.Conv(conv.channels) else conv)
        elif kind == "relu":
            slopes.add(float(getattr(module, "negative_slope", 0.0)))
        elif kind == "lrn":
            plan.append("LRN")
        elif isinstance(module, nn.MaxPool2d | nn.AvgPool2d):
            (kernel, _), (step, _), (padding, _) = _square(index, module)
            pool = arch.Pool(kernel, step, padding)
            plan.append("M" if pool == arch.Pool() else pool)
    if len(slopes) > 1 or len(normalised) > 1:
        raise LayerError("the stack mixes several activations, or normalises some convolutions alone: no row says so")
    return arch.row(plan, batch_norm=True in normalised, slope=next(iter(slopes), 0.0), in_channels=in_channels or None)


_KINDS: tuple[tuple[arch.Kind, tuple[type[nn.Module], ...]], ...] = (
    ("conv", (nn.Conv2d,)),
    ("bn", (nn.BatchNorm2d, nn.SyncBatchNorm)),
    ("relu", (nn.ReLU, nn.LeakyReLU)),
    ("lrn", (nn.LocalResponseNorm,)),
    ("pool", (nn.MaxPool2d, nn.AvgPool2d)),
)


def _kind(index: int, module: nn.Module) -> arch.Kind:
    for kind, types in _KINDS:
        if isinstance(module, types):
            return kind
    raise LayerError(f"features.{index} is a {type(module).__name__}, which no row describes")


def _square(index: int, module: nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d) -> Iterator[tuple[int, int]]:
    """Kernel, stride and padding of a module that treats both sides alike."""
    pairs = [
        (value, value) if isinstance(value, int) else cast("tuple[int, int]", value)
        for value in (module.kernel_size, module.stride, module.padding)
    ]
    plain = getattr(module, "groups", 1) == 1 and getattr(module, "dilation", 1) in (1, (1, 1))
    if not plain or any(isinstance(pair, str) or pair[0] != pair[1] for pair in pairs):
        raise LayerError(f"features.{index} is not square, or dilated or grouped: no row describes it")
    return iter(pairs)


def save(model: VGG, path: str | os.PathLike[str], *, source: str = "") -> None:
    """Write a network as a safetensors file that says what it is; `load` and `weights=PATH` read it. Atomic."""
    from safetensors.torch import save as encode

    state = {key: tensor.detach().cpu().contiguous() for key, tensor in model.state_dict().items()}
    features = {key: state[key].float() for key in arch.state_shapes(model.network)}
    about = {
        "network": model.network.name,
        "weights": Path(path).stem,
        "source": source,
        "licence": "",
        "layers": weights_table.fingerprints(model.network.name, features),
        **_preprocessing(model),
    }
    files.write(path, encode(state, metadata={"vggfeat": json.dumps(about, sort_keys=True)}))


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


def load(path: str | os.PathLike[str], network: str = "auto", *, dropout: float = 0.5) -> VGG:
    """The network that a file holds, in evaluation mode: one of `save`, or a state dict of torchvision's form.

    `network` names it where the file does not. The head is read off the file's tensors. Raises `WeightsError` where
    the file cannot be read or does not fit.
    """
    path = Path(path)
    state = weights_table.decode(weights_table.read_state(path))
    about = weights_table.metadata(path)
    row = arch.network(weights_table.network_for(network, path))
    features, table_row = weights_table.load(row.name, path)
    state = {key.removeprefix("module."): tensor for key, tensor in state.items()}
    classifier = {key: tensor for key, tensor in state.items() if key.startswith("classifier.")}
    head, classes, hidden = _head_of(path, classifier)
    size = int(about.get("size", 224))
    names = [str(name) for name in about.get("classes", ())]
    with torch.device("meta"):
        model = VGG(
            row,
            head=head,
            classes=names if len(names) == classes else [str(number) for number in range(classes)],
            hidden=hidden,
            dropout=dropout,
            mean=table_row.mean,
            std=table_row.std,
            size=size,
            resize=int(about.get("resize", 256)),
        )
    model.to_empty(device="cpu")
    counters = {key: state.get(key, torch.tensor(0)) for key in model.state_dict() if key.endswith("batches_tracked")}
    try:
        model.load_state_dict({**features, **counters, **{k: v.float() for k, v in classifier.items()}})
    except RuntimeError as error:
        reason = " ".join(str(error).partition(":\n")[2].split())
        raise WeightsError(f"'{path}' does not fit {row.name} with the {head} head: {reason}") from error
    return model.eval()


def _head_of(path: Path, classifier: Mapping[str, Tensor]) -> tuple[arch.Head | None, int, int]:
    """Which head the tensors of a classifier make, how many classes it has, and how many hidden units."""
    keys = {key for key in classifier if key.endswith("weight")}
    if not keys:
        return None, 0, 4096
    if keys == {"classifier.0.weight"}:
        return "gap", len(classifier["classifier.0.weight"]), 4096
    if keys == {f"classifier.{index}.weight" for index in (0, 3, 6)}:
        return "paper", len(classifier["classifier.6.weight"]), len(classifier["classifier.0.weight"])
    raise WeightsError(
        f"'{path}' has a head that is neither the paper's nor one linear layer: {', '.join(sorted(keys))}"
    )
