"""FeatureExtractor: images -> {layer: features}, in one pass that ends at the deepest layer asked for."""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from torch import Tensor, nn

from vggfeat import arch, functional
from vggfeat import weights as weights_table
from vggfeat.errors import InputError, near, users_line
from vggfeat.features import algorithms, steps
from vggfeat.weights import Triple

if TYPE_CHECKING:
    from vggfeat.tap import Tap

InputRange = Literal["unit", "signed", "byte"]
Precision = Literal["float32", "bfloat16", "float16", "auto"]
Check = Literal["raise", "warn", "off"]

RANGES: Mapping[str, tuple[float, float]] = {"unit": (0.0, 1.0), "signed": (-1.0, 1.0), "byte": (0.0, 255.0)}
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

# Share of a range's width by which values may leave it: resampling and generators without a last clamp overshoot by
# less, another range by far more.
_TOLERANCE = 0.25

# Batches that `check="warn"` looks at: a range does not change later, and each look waits for the GPU.
_LOOKS = 64

# On a CPU so many pictures go through the network at once that its largest activation takes at most this, or one: what
# is larger is fetched from the system anew for each layer, and to clear it takes up to a third of the time. What is
# computed must not depend on the number of threads, so that this does not either.
_RECYCLED_BYTES = 16 * 2**20

# The tensors that each kind of layer reads, in the order of its state dict.
_FIELDS: Mapping[arch.Kind, tuple[str, ...]] = {
    "conv": ("weight", "bias"),
    "bn": ("weight", "bias", "running_mean", "running_var"),
}


class Trunk(nn.Module):
    """What every frozen network shares: it checks images, normalises them, and stays as it is.

    It has no parameters, adds no key to a parent's `state_dict()` and stays in evaluation mode. Inside autocast it
    keeps its own precision. A child computes features in `run`, and offers what it reads as buffers that are not
    persistent.
    """

    offset: Tensor
    scale: Tensor

    def __init__(
        self,
        layers: Sequence[str],
        *,
        mean: Sequence[float],
        std: Sequence[float],
        input_range: InputRange,
        check: Check,
        minimum: int,
    ) -> None:
        super().__init__()
        _choose("input_range", input_range, RANGES)
        _choose("check", check, ("raise", "warn", "off"))
        self.layers = tuple(layers)
        self.input_range: InputRange = input_range
        self.check: Check = check
        self._looks_left = _LOOKS
        self._warned = False
        self.minimum_size = minimum
        self.dtype = torch.float32
        self._mean_std = mean, std
        self._set_normalisation(torch.get_default_device())
        super().train(mode=False)

    def run(self, x: Tensor) -> dict[str, Tensor]:
        """The features of images that are checked, normalised and of the trunk's precision."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """The features of `images`: (N, 3, H, W), RGB, floating point, in `input_range`.

        Returns {name: (N, C, h, w)} in the order of the network, in the trunk's precision. What is returned is the
        caller's: no later operation overwrites it. Gradients flow to `images`.

        Raises `InputError` for a wrong shape or type, a side below `minimum_size`, and, if `check` is `raise`, for NaN
        and for values in another range.
        """
        self._check_shape(images)
        if self.check != "off" and not torch.compiler.is_compiling():
            self._check_values(images)
        with functional.without_autocast(images.device.type):
            return self.run(self.normalised(images))

    def _check_values(self, images: Tensor) -> None:
        try:
            suspicion = check_range(images, self.input_range)
        except InputError as error:
            if self.check == "raise":
                raise
            suspicion = str(error)
        if suspicion and not self._warned:
            self._warned = True
            warnings.warn(f"{suspicion} (said once)", RangeWarning, stacklevel=users_line())
        if self.check == "warn":
            self._looks_left -= 1
            if self._warned or not self._looks_left:
                self.check = "off"

    def normalised(self, images: Tensor) -> Tensor:
        """Centre and scale in float32 at least, then take on the trunk's precision."""
        work = torch.promote_types(images.dtype, torch.float32)
        return ((images.to(work) - self.offset.to(work)) / self.scale.to(work)).to(self.dtype)

    def _set_normalisation(self, place: torch.device) -> None:
        low, high = RANGES[self.input_range]
        with torch.inference_mode(mode=False):
            mean, std = (torch.tensor(values, dtype=torch.float64) for values in self._mean_std)
            for name, values in (("offset", mean * (high - low) + low), ("scale", std * (high - low))):
                self.register_buffer(name, values.float().reshape(1, -1, 1, 1).to(place), persistent=False)

    def _check_shape(self, images: Tensor) -> None:
        if images.ndim != 4:
            hint = ": a single image is images[None]" if images.ndim == 3 else ""
            raise InputError(f"images are {'x'.join(map(str, images.shape))}, not (N, 3, H, W){hint}")
        channels = self.offset.shape[1]
        if images.shape[1] != channels:
            hint = {1: ": a grey image is images.expand(-1, 3, -1, -1)", 4: ": alpha is not read, take images[:, :3]"}
            came = images.shape[1]
            raise InputError(
                f"images have {came} channels, not {channels}{hint.get(came, '') if channels == 3 else ''}"
            )
        if not images.is_floating_point():
            low, high = RANGES[self.input_range]
            raise InputError(f"images are {images.dtype}: pass floating point in [{low:g}, {high:g}]")
        if min(images.shape[2:]) < self.minimum_size:
            raise InputError(
                f"images of {images.shape[2]}x{images.shape[3]} pixels are too small for {self.layers[-1]} of "
                f"{self.name}: it needs at least {self.minimum_size} a side"
            )

    @property
    def name(self) -> str:
        """The network, for messages."""
        return type(self).__name__

    def train(self, mode: bool = True) -> Self:  # noqa: ARG002 (the base class's signature)
        """Stay in evaluation mode: a parent's `train()` does not reach the frozen network."""
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # A parent's .half() means the network's arithmetic: a mean of three digits would shift every colour.
        super()._apply(fn, recurse)  # pyright: ignore[reportUnknownMemberType] (untyped upstream)
        self.dtype = fn(torch.empty(0, dtype=self.dtype)).dtype
        self._set_normalisation(self.offset.device)
        return self


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

    row: weights_table.Weights

    @staticmethod
    def of(model: nn.Module, layers: str | Iterable[str], *, frozen: bool = True, **options: Any) -> "Tap":  # noqa: ANN401 (Tap's)
        """The named activations of a live VGG, of ours, torchvision's or anybody's `make_layers`: see `tap.Tap`.

        `options` are `mean`, `std`, `input_range` and `check`; what is left out comes from the model.
        """
        from vggfeat.tap import Tap

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
        _choose("pooling", pooling, ("max", "avg", "l2"))
        place = choose_device(device)
        dtype = resolve_precision(precision, place)
        network = weights_table.network_for(network, weights)
        taps = arch.find(network, layers, pooling=pooling)
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
        self.row = row
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
            f"{self.row}, layers={','.join(self.layers)}, input_range={self.input_range}, pooling={self.pooling}, "
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


class RangeWarning(UserWarning):
    """Images that do not look like the range that was named for them."""


def resolve_precision(precision: Precision, device: torch.device) -> torch.dtype:
    """The dtype that `precision` means on `device`.

    `auto` is bfloat16 where that is faster: on CUDA from Ampere on, and on CPUs with AMX or AVX512-BF16; float32
    elsewhere.
    """
    _choose("precision", precision, (*_DTYPES, "auto"))
    if precision != "auto":
        return _DTYPES[precision]
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    elif device.type == "cpu":
        fast = algorithms.bfloat16_is_faster()
    else:
        fast = False
    return torch.bfloat16 if fast else torch.float32


def check_range(images: Tensor, input_range: InputRange) -> str | None:
    """Refuse NaN and images outside `input_range`; return what is suspicious about images inside it, if anything.

    Values may leave the range by a quarter of its width. Bytes that are all at most 1 look like [0, 1], and so do
    signed images without a single value below 0: both can be right, of a dark or a bright picture. Raises `InputError`.
    """
    if not images.numel():
        return None
    try:
        lowest, highest = (value.item() for value in torch.aminmax(images.detach()))
    except RuntimeError:  # meta tensors, fake ones, and those under torch.func have no values to look at
        return None
    if lowest != lowest:  # noqa: PLR0124 (NaN differs from itself)
        raise InputError("images hold NaN")
    low, high = RANGES[input_range]
    slack = _TOLERANCE * (high - low)
    span = f"images reach from {lowest:.4g} to {highest:.4g}"
    if not (low - slack <= lowest and highest <= high + slack):
        wider = [name for name, (a, b) in RANGES.items() if a <= lowest and highest <= b]
        hint = f": is it input_range='{wider[0]}'?" if wider else ""
        raise InputError(f"{span}, outside [{low:g}, {high:g}] of input_range='{input_range}'{hint}")
    if input_range != "unit" and -0.01 <= lowest < highest <= 1.01:
        return f"{span}, which looks like input_range='unit', not '{input_range}'"
    return None


def choose_device(name: str | torch.device | None) -> torch.device:
    """The torch device called `name`: None is torch's default, `auto` CUDA, else MPS, else the CPU.

    Raises `InputError` for a device that does not exist here.
    """
    if name is None:
        return torch.get_default_device()
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"unknown device '{name}': pass auto, cpu, cuda, cuda:1 or mps") from None
    if device.type in ("cpu", "meta"):
        return device
    count = torch.accelerator.device_count()
    present = torch.accelerator.current_accelerator() if count else None
    if present is None or present.type != device.type or (device.index or 0) >= count:
        here = f"{count} of type {present.type}" if present else "none but the CPU"
        raise InputError(f"there is no device '{name}' here: torch sees {here}")
    return device


def _choose(option: str, value: str, known: Iterable[str]) -> None:
    known = tuple(known)
    if value not in known:
        raise InputError(f"unknown {option} '{value}': {near(str(value), known)}")
