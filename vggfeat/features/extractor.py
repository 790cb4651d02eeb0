"""FeatureExtractor: images -> {layer: features}, in one pass that ends at the deepest layer asked for."""

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vggfeat.errors import one_of
from vggfeat.features import steps
from vggfeat.features.device import Precision, choose_device, resolve_precision
from vggfeat.features.trunk import Check, Trunk
from vggfeat.networks import arch
from vggfeat.networks import weights as weights_table
from vggfeat.networks.weights import Triple
from vggfeat.pictures.ranges import InputRange

if TYPE_CHECKING:
    from vggfeat.features.tap import Tap


# On CPU, split the batch so that the largest activation fits in this many bytes (at least one image): the system hands
# out larger blocks anew for each layer, and clearing them takes up to a third of the time. The limit does not depend on
# the number of threads, because results must not either.
_RECYCLED_BYTES = 16 * 2**20

# The tensors that each kind of layer reads, in the order of its state dict.
_FIELDS: Mapping[arch.Kind, tuple[str, ...]] = {
    "conv": ("weight", "bias"),
    "bn": ("weight", "bias", "running_mean", "running_var"),
}


class FeatureExtractor(Trunk):
    """The named activations of a VGG network.

    Args:
        network: a name of `arch.NETWORKS`, such as `vgg16`; a row as text, such as `64,64,M,128,M`; or `auto` for the
            one that a file of `vggfeat train` names.
        layers: what to return: names (`relu3_3`), `features` indices (`15`, `features.15`) or globs (`relu*_1`).
        weights: `default`, the name of a row of `weights.TABLE`, a file, a state dict, or None for random weights
            drawn from `seed`. A row brings its own mean and std.
        mean, std: per RGB channel for images in [0, 1], where weights of your own were trained on others.
        input_range: what the images hold: `unit` [0, 1], `signed` [-1, 1] or `byte` [0, 255].
        precision: of the network's arithmetic; `auto` takes bfloat16 where `device` is fast at it, else float32.
        pooling: `max` as trained, `avg`, or the `l2` pooling of DISTS.
        check: `raise` refuses NaN and images that leave the range by more than a quarter of its width; `warn` says
            so once, and looks at the first few batches alone; `off` reads no value, and so never waits for a GPU.
            Images that stay within a wider range but look like [0, 1] are warned of once either way. In a graph
            compiled by torch no value is read.
        channels_last: compute in torch's channels_last layout, and by Winograd's algorithm where that is faster than
            torch's own convolutions. False keeps to these, for results that equal other tools' to the last bit.
        device: where the weights are put; `.to()` moves them later.

    The extractor is frozen, as a `Trunk` is. Raises `LayerError` for unknown names, `WeightsError` for weights that
    cannot be had or do not fit.
    """

    weights_entry: weights_table.WeightsEntry

    @staticmethod
    def of(model: nn.Module, layers: str | Iterable[str], *, frozen: bool = True, **options: Any) -> "Tap":  # noqa: ANN401 (Tap's)
        """The named activations of a live VGG, of ours, torchvision's or anybody's `make_layers`: see `tap.Tap`.

        `options` are `mean`, `std`, `input_range` and `check`; what is left out comes from the model.
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
        mean: Triple | None = None,
        std: Triple | None = None,
        input_range: InputRange = "unit",
        precision: Precision = "float32",
        pooling: arch.Pooling = "max",
        check: Check = "raise",
        channels_last: bool = True,
        device: str | torch.device | None = None,
    ) -> None:
        one_of("pooling", pooling, ("max", "avg", "l2"))
        place = choose_device(device)
        dtype = resolve_precision(precision, place)
        network = weights_table.network_for(network, weights)
        taps = arch.find_layers(network, layers, pooling=pooling)
        with torch.inference_mode(mode=False):  # what is made inside inference mode could never take part in a graph
            state, row = weights_table.load(network, weights, seed=seed)
        super().__init__(
            [tap.name for tap in taps],
            mean=mean or row.mean,
            std=std or row.std,
            input_range=input_range,
            check=check,
            minimum=taps[-1].minimum_size,
        )
        self.weights_entry = row
        self.network = network
        self.pooling: arch.Pooling = pooling
        self._stack = arch.layers(network, pooling=pooling)[: taps[-1].index + 1]
        self._steps = steps.steps(self._stack, self.layers, pooling=pooling, plain=not channels_last)
        self.channels_last = channels_last
        self.dtype = dtype
        for layer in self._stack:
            for field in _FIELDS.get(layer.kind, ()):
                with torch.inference_mode(mode=False):
                    tensor = state[f"features.{layer.index}.{field}"].to(place, dtype)
                    if tensor.ndim == 4 and channels_last:
                        tensor = tensor.contiguous(memory_format=torch.channels_last)
                self.register_buffer(f"{layer.name}_{field}", tensor, persistent=False)
        self._set_normalisation(place)

    @property
    def name(self) -> str:
        """The network, for messages."""
        return self.network

    def run(self, x: Tensor) -> dict[str, Tensor]:
        """The features of images that are checked, normalised and of the extractor's precision."""
        x = x.contiguous(memory_format=torch.channels_last if self.channels_last else torch.contiguous_format)
        pieces = self._pieces(x)
        if len(pieces) == 1:
            return self.run_steps(self._steps, x)[0]
        features: dict[str, Tensor] = {}
        start = 0
        for piece in pieces:
            for name, found in self.run_steps(self._steps, piece)[0].items():
                if not start:
                    features[name] = torch.empty(
                        (len(x), *found.shape[1:]),
                        dtype=found.dtype,
                        device=found.device,
                        memory_format=torch.channels_last,
                    )
                features[name][start : start + len(piece)] = found
            start += len(piece)
        return features

    def _pieces(self, x: Tensor) -> tuple[Tensor, ...]:
        """The batch in pieces that are computed one after the other."""
        if (
            torch.compiler.is_compiling()
            or torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage] (documented)
            or not self.channels_last
            or x.device.type != "cpu"
            or (torch.is_grad_enabled() and x.requires_grad)
            or not steps.has_memory(x)
        ):
            return (x,)
        widest = max(layer.channels / layer.stride**2 for layer in self._stack)
        together = max(1, int(_RECYCLED_BYTES / (widest * x.shape[2] * x.shape[3] * x.element_size())))
        return x.tensor_split(max(1, -(-len(x) // together)))

    def run_steps(self, taken: Sequence[steps.Step], x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Some consecutive steps: what of theirs is handed out, and the last one's activation."""
        features: dict[str, Tensor] = {}
        for step in taken:
            x = step(x, self._tensors(step.layers[0]))
            if step.name in self.layers:
                features[step.name] = x
        return features, x

    def parts(self) -> tuple["Part", ...]:
        """The network in parts that end with a pooling, for those who run it piece by piece."""
        groups: list[list[steps.Step]] = [[]]
        for step in self._steps:
            groups[-1].append(step)
            if step.layers[0].kind == "pool" and step is not self._steps[-1]:
                groups.append([])
        return tuple(Part(self, group) for group in groups)

    def _tensors(self, layer: arch.Layer) -> list[Tensor]:
        return [self.get_buffer(f"{layer.name}_{field}") for field in _FIELDS.get(layer.kind, ())]

    def extra_repr(self) -> str:
        """What `print` shows: the weights, the layers and how far the deepest one sees."""
        return (
            f"{self.weights_entry}, layers={','.join(self.layers)}, input_range={self.input_range}, pooling={self.pooling}, "
            f"receptive_field={self._stack[-1].receptive_field}"
        )


class Part:
    """Consecutive layers of an extractor: the last one's activation, and on the way those that are handed out.

    `stride`: pixels of the image between two positions of its input. `halo`: how many positions of its input lie
    between an output and the furthest input that it sees, rounded up to an even number.
    """

    def __init__(self, extract: FeatureExtractor, taken: Sequence[steps.Step]) -> None:
        self._extract, self._steps = extract, taken
        every = [layer for step in taken for layer in step.layers]
        self.last = every[-1]
        self.stride = every[0].stride // every[0].step
        reach = sum(layer.kernel // 2 for layer in every if layer.kernel % 2)
        self.halo = reach + reach % 2
        self.layers = tuple(step.layers[-1] for step in taken if step.name in extract.layers)

    def __call__(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Of the activation before it, {name: features} of `layers` and the activation of the last layer.

        Before the first part: what `FeatureExtractor.normalised` returns.
        """
        return self._extract.run_steps(self._steps, x)
