"""FeatureExtractor: images -> {layer: features}, in one pass that ends at the deepest requested layer."""

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, Unpack

import torch
from torch import Tensor, nn

from vggfeat.errors import check_number, one_of
from vggfeat.features import steps
from vggfeat.features.device import Precision, choose_device, resolve_precision
from vggfeat.features.info import FeatureInfo
from vggfeat.features.trunk import Check, Trunk
from vggfeat.networks import arch
from vggfeat.networks import weights as weights_table
from vggfeat.pictures.ranges import InputRange

if TYPE_CHECKING:
    from vggfeat.features.tap import Tap


# On CPU, split the batch so that the largest activation fits in this many bytes (at least one image). The allocator
# reuses such blocks; it takes larger ones from the system, which clears them, at up to a third of the time. The limit
# does not depend on the number of threads, because results must not either.
_REUSED_BYTES = 16 * 2**20

# The weights of each kind of layer, in state-dict order.
_FIELDS: Mapping[arch.Kind, tuple[str, ...]] = {
    "conv": ("weight", "bias"),
    "bn": ("weight", "bias", "running_mean", "running_var"),
    "fc": ("weight", "bias"),
}


class FeatureExtractor(Trunk):
    """Computes the named activations of a frozen VGG network.

    Args:
        network: a name of `arch.NETWORKS` such as `vgg16`; a plan as text such as `64,64,M,128,M`; or `auto` for the
            network that a file written by `vggfeat train` records.
        layers: the layers to return: names (`relu3_3`), `features` indices (`15`, `features.15`) or globs (`relu*_1`).
            Of a whole network also `avgpool`, `fc6`, `relu6`, `fc7`, `relu7` and `fc8`, or `classifier.N`: (N, C)
            features of the linear layers. Images of any size are pooled for them to 7x7 positions, as in torchvision,
            which a VGG-16 has by itself at 224 pixels.
        weights: `default`, the name of an entry of `weights.TABLE`, a file, a state dict, or None for random weights
            drawn from `seed`. An entry sets `mean` and `std`.
        seed: seed of random weights.
        input_range: the range of the images: `unit` [0, 1], `signed` [-1, 1] or `byte` [0, 255].
        precision: of the network: `float32`, `tf32`, `bfloat16`, `float16`, or `auto` for bfloat16 if `device` is fast
            at it, else float32. See `device.choose_precision`. The attribute `precision` is the one that was chosen.
        pooling: `max` as trained, `avg`, or the `l2` pooling of DISTS.
        check: `raise` refuses NaN, and values outside the range by more than a quarter of its width. `warn` warns once,
            and checks only the first 64 batches. `off` reads no values. Each check waits for a GPU once. Unless `off`,
            images in a wider range that appear to be in [0, 1] cause one warning. Compiled graphs check no values.
        channels_last: use torch's channels_last layout, and Winograd's algorithm if it is faster than torch's own
            convolutions. False gives results equal to other tools' to the last bit.
        positions: refuse images for which the deepest layer has fewer positions a side.
        device: the device of the weights; `.to()` moves them later.
        preprocessing: `mean` and `std` per RGB channel for images in [0, 1], and `input_order`, `rgb` or `bgr`, if your
            weights need others than their file or entry names: see `weights.Preprocessing`. The images stay RGB.

    Raises `LayerError` for unknown names, `InputError` for values that are not allowed, and `WeightsError` for weights
    that cannot be loaded or do not fit. See `Trunk` for what frozen means.

    >>> extract = FeatureExtractor("vgg16", ["relu1_2", "relu3_3"])
    >>> features = extract(torch.rand(1, 3, 64, 64))
    >>> {name: tuple(x.shape) for name, x in features.items()}
    {'relu1_2': (1, 64, 64, 64), 'relu3_3': (1, 256, 16, 16)}
    >>> extract.feature_info.channels(), extract.feature_info.reduction()
    ([64, 256], [1, 4])
    """

    weights_entry: weights_table.WeightsEntry

    @staticmethod
    def of(model: nn.Module, layers: str | Iterable[str], *, frozen: bool = True, **options: Any) -> "Tap":
        """The named activations of an existing VGG: ours, torchvision's, or a `make_layers` stack. See `tap.Tap`.

        `options` are `mean`, `std`, `input_range` and `check`; by default the model's own are used.

        >>> from vggfeat import vgg
        >>> model = vgg("8,M,16", head="gap", num_classes=2, seed=0)
        >>> FeatureExtractor.of(model, "relu2_1")(torch.rand(1, 3, 8, 8))["relu2_1"].shape
        torch.Size([1, 16, 4, 4])
        """
        from vggfeat.features.tap import Tap

        return Tap(model, layers, frozen=frozen, **options)

    def __init__(
        self,
        network: str,
        layers: str | Iterable[str],
        *,
        weights: str | PathLike[str] | Mapping[str, Tensor] | None = "default",
        seed: int = 0,
        input_range: InputRange = "unit",
        precision: Precision = "float32",
        pooling: arch.Pooling = "max",
        check: Check = "raise",
        channels_last: bool = True,
        positions: int = 1,
        device: str | torch.device | None = None,
        **preprocessing: Unpack[weights_table.Preprocessing],
    ) -> None:
        one_of("pooling", pooling, ("max", "avg", "l2"))
        check_number("positions", positions, 1)
        place = choose_device(device)
        dtype = resolve_precision(precision, place)
        network = weights_table.network_for(network, weights)
        taps = arch.find_layers(network, layers, pooling=pooling, head="paper")
        classifier = arch.reads_classifier(taps)
        with torch.inference_mode(mode=False):  # tensors made in inference mode cannot take part in a graph
            depth = None if taps[-1].fixed_side else taps[-1].index + 1
            state, entry = weights_table.load(
                network, weights, seed=seed, depth=depth, classifier=classifier, **preprocessing
            )
        head, classes, hidden = arch.head_of({key: tuple(x.shape) for key, x in state.items()}, "the state dict")
        if classifier is None:  # the pool of a network whose classifier is not known
            head = head or "paper"
        if classifier is not False:
            taps = arch.find_layers(network, layers, pooling=pooling, head=head, classes=classes, hidden=hidden)
        stack = arch.layers(network, pooling=pooling)[: taps[-1].index + 1]
        super().__init__(
            [tap.name for tap in taps],
            mean=entry.mean,
            std=entry.std,
            input_range=input_range,
            check=check,
            minimum=arch.minimum_side(stack, positions) if positions > 1 else taps[-1].minimum_size,
            arithmetic="tf32" if precision == "tf32" else "float32",
        )
        self.weights_entry = entry
        self.network = network
        self.pooling: arch.Pooling = pooling
        self.feature_info = FeatureInfo(taps)
        self._stack = stack
        after = (
            arch.head_layers(network, head, classes, hidden=hidden, pooling=pooling) if classifier is not False else ()
        )
        self._head = tuple(layer for layer in after if layer.index <= taps[-1].index)
        self._steps, self._head_steps = (
            steps.steps(stack, self.layers, pooling=pooling, plain=not channels_last, arithmetic=self.arithmetic)
            for stack in (self._stack, self._head)
        )
        self.channels_last = channels_last
        self.dtype = dtype
        for layer in (*self._stack, *self._head):
            for field in _FIELDS.get(layer.kind, ()):
                with torch.inference_mode(mode=False):
                    tensor = state[f"{layer.module}.{field}"].to(place, dtype)
                    if tensor.ndim == 4 and channels_last:
                        tensor = tensor.contiguous(memory_format=torch.channels_last)
                self.register_buffer(f"{layer.name}_{field}", tensor, persistent=False)
            if layer.kind == "pool" and pooling == "l2":
                with torch.inference_mode(mode=False):
                    self.register_buffer(f"{layer.name}_window", steps.hann_window(place), persistent=False)
        self._set_normalisation(place)

    @property
    def name(self) -> str:
        """The network's name, for messages."""
        return self.network

    def run(self, x: Tensor) -> dict[str, Tensor]:
        """The features of normalised images in the extractor's precision."""
        x = x.contiguous(memory_format=torch.channels_last if self.channels_last else torch.contiguous_format)
        features, last = self._features(x)
        return features | self.run_steps(self._head_steps, last)[0] if self._head_steps else features

    def _features(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The requested features before the head, and the activation that the head reads, of normalised images."""
        pieces = self._pieces(x)
        if len(pieces) == 1:
            return self.run_steps(self._steps, x)
        features: dict[str, Tensor] = {}
        start = 0
        for piece in pieces:
            parts, last = self.run_steps(self._steps, piece)
            # Linear layers read hundreds of megabytes of weights, so the head runs once for the whole batch.
            for name, found in {**parts, **({self._stack[-1].name: last} if self._head_steps else {})}.items():
                if not start:
                    features[name] = torch.empty(
                        (len(x), *found.shape[1:]),
                        dtype=found.dtype,
                        device=found.device,
                        memory_format=torch.channels_last,
                    )
                features[name][start : start + len(piece)] = found
            start += len(piece)
        last = features[self._stack[-1].name] if self._head_steps else x
        return {name: features[name] for name in self.layers if name in features}, last

    def _pieces(self, x: Tensor) -> tuple[Tensor, ...]:
        """The batch, split into pieces that are computed one after the other."""
        if (
            not self.channels_last
            or x.device.type != "cpu"
            or not steps.is_eager(x)
            or (torch.is_grad_enabled() and x.requires_grad)
        ):
            return (x,)
        widest = max(layer.channels / layer.stride**2 for layer in self._stack)
        images = max(1, int(_REUSED_BYTES / (widest * x.shape[2] * x.shape[3] * x.element_size())))
        return x.tensor_split(max(1, -(-len(x) // images)))

    def run_steps(self, taken: Sequence[steps.Step], x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Compute consecutive steps. Returns the requested features among them, and the last activation."""
        features: dict[str, Tensor] = {}
        for step in taken:
            x = step(x, self._tensors(step.layers[0]))
            if step.name in self.layers:
                features[step.name] = x
        return features, x

    def parts(self) -> tuple["Part", ...]:
        """The network divided as `arch.parts` does, for running it part by part."""
        return tuple(
            Part(self, [step for step in self._steps if step.layers[0] in part]) for part in arch.parts(self._stack)
        )

    def _tensors(self, layer: arch.Layer) -> list[Tensor]:
        fields = ("window",) if layer.kind == "pool" and self.pooling == "l2" else _FIELDS.get(layer.kind, ())
        return [self.get_buffer(f"{layer.name}_{field}") for field in fields]

    def extra_repr(self) -> str:
        """The description in `print`: weights, layers, and the deepest layer's receptive field."""
        return (
            f"{self.weights_entry}, layers={','.join(self.layers)}, input_range={self.input_range}, "
            f"pooling={self.pooling}, receptive_field={(*self._stack, *self._head)[-1].receptive_field}"
        )


class Part:
    """Consecutive layers of an extractor, up to and including a pool or the deepest layer.

    `stack`: its layers. `last`: the last of them. `layers`: the requested ones. `stride`: pixels of the image between
    neighbouring positions of its input. `halo`: the distance from an output to the furthest input that it depends on,
    in positions of the input, rounded up to an even number.

    >>> first, second = FeatureExtractor("vgg16", "relu2_1").parts()
    >>> first.last.name, second.stride, [layer.name for layer in second.layers]
    ('pool1', 2, ['relu2_1'])
    """

    def __init__(self, extract: FeatureExtractor, taken: Sequence[steps.Step]) -> None:
        self._extract, self._steps = extract, taken
        self.stack = tuple(layer for step in taken for layer in step.layers)
        self.last = self.stack[-1]
        self.stride = self.stack[0].stride // self.stack[0].step
        reach = sum(layer.kernel // 2 for layer in self.stack if layer.kernel % 2)
        self.halo = reach + reach % 2
        self.layers = tuple(step.layers[-1] for step in taken if step.name in extract.layers)

    def __call__(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Compute the part. Returns {name: features} of `layers`, and the activation of the last layer.

        `x` is the last activation of the part before; for the first part, the result of `FeatureExtractor.normalised`.
        """
        return self._extract.run_steps(self._steps, x)
